"""A report of what runs have made, as one file of HTML: plainer than Snakemake's, and nothing invented."""

from __future__ import annotations

import os
import time
from html import escape
from typing import TYPE_CHECKING

from mock_snakemake.errors import WorkflowError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mock_snakemake.snakefile import Rule
    from mock_snakemake.streams import Console

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;color-scheme:light dark}"
    "table{border-collapse:collapse;width:100%}"
    "td,th{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #8886}"
)


def write(path: str, rules: list[Rule], directory: str, console: Console) -> int:
    """Write the report to `path`; the exit code. Raises WorkflowError for what Snakemake would not write."""
    if not path.endswith(".html"):
        raise WorkflowError("Report file does not end with .html or .zip")
    console.line("Building DAG of jobs...\nCreating report...")
    page = "".join(_page(rules, directory))
    with open(path, "w", encoding="utf-8", errors="replace") as file:
        file.write(page)
    console.line("Report created.")
    return 0


def _page(rules: list[Rule], directory: str) -> Iterator[str]:
    yield '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Snakemake Report</title>'
    yield f"<style>{_STYLE}</style></head><body><h1>Snakemake Report</h1>"
    yield "<p>Made by mock_snakemake, a stand-in: no rule was really run.</p>"
    yield "<table><tr><th>Rule</th><th>Output</th><th>Bytes</th><th>Made</th></tr>"
    for rule in rules:
        for output in rule.outputs or ("",):
            size, made = _about(os.path.join(directory, output)) if output else ("", "")
            row = "".join(f"<td>{escape(text)}</td>" for text in (rule.name, output, size, made))
            yield f"<tr>{row}</tr>"
    yield "</table></body></html>\n"


def _about(path: str) -> tuple[str, str]:
    """The size and the time of a file, as far as it is there."""
    try:
        about = os.stat(path)
    except OSError:
        return "", "missing"
    return str(about.st_size), time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(about.st_mtime))

"""The result as a Markdown table, and its place in a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tests.mutants.guards import Guard

BEGIN = "<!-- begin: make mutants -->"
END = "<!-- end: make mutants -->"


class NoPlace(Exception):
    """The page has no place for the table."""


def table(rows: Iterable[tuple[Guard, str, float]]) -> str:
    """One row for each guard, by promise, with what noticed its loss and after how many seconds."""
    lines = ["| promise | guard | without it, this fails | s |", "|---|---|---|---|"]
    for guard, found, duration_s in sorted(rows, key=lambda row: int(row[0].promise[1:])):
        files = ", ".join(dict.fromkeys(f"`{edit.file}`" for edit in guard.edits))
        lines.append(f"| {guard.promise} | {guard.what} ({files}) | {found} | {duration_s:.1f} |")
    return "\n".join(lines) + "\n"


def put_into(page: Path, content: str) -> None:
    """Replace what stands between the two marks. Raises NoPlace."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise NoPlace(f"{page} needs a line {BEGIN} and below it a line {END}")
    page.write_text(f"{before}{BEGIN}\n{content}{END}{after}")

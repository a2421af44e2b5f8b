"""Errors in Snakemake's own words, without its banner, its internals and the place of our folders."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from runner.plain_text import MAX_LINE, clean, plain
from runner.tasks import MissingInput

if TYPE_CHECKING:
    from collections.abc import Sequence

LOOK_CHARS: Final = 1_000
"""So much of a line is looked at: an expression may take hours for a long one that was made for it."""

_FIRST_LINES: Final = 25
_MAX_FILES: Final = 1000
_MESSAGE_CHARS: Final = 64 * 2**10

_VERDICT: Final = "At least one job did not complete successfully"
_ANOTHER_ERROR: Final = "During handling of the above exception"
_WHILE_TELLING: Final = re.compile(r'\s*File ".*/snakemake/exceptions\.py", line \d+, in .*')
_INTERNALS: Final = re.compile(
    r'\s*File "(?:.*/site-packages/.*|.*/lib/python3[.\d]*/.*|.*/snakemake_logger_plugin_\w+/.*|<string>)"'
    r", line \d+, in .*"
)
_TRACEBACK: Final = "Traceback (most recent call last):"
_MISSING: Final = re.compile(r"Missing input files for rule (\S+):\n((?: {4}.*\n?)*)")
_AFFECTED: Final = "    affected files:\n"


def is_verdict(message: str) -> bool:
    """Whether an error only says that another one has happened."""
    return _VERDICT in message


def told(message: str, places: Sequence[str]) -> str:
    """The first lines of an error, so many that the page of a job can show them."""
    lines = without_internals(shortened(plain(message[:_MESSAGE_CHARS]), places).split("\n"))
    lines = [line.rstrip()[:MAX_LINE] for line in lines if line.strip()]
    if lines[-1:] == ["None"]:  # what Snakemake says of a syntax error whose line it does not have
        del lines[-1]
    if lines[0:1] == ["WorkflowError:"] and len(lines) > 1:  # says less than what follows
        del lines[0]
    left_out = len(lines) - _FIRST_LINES
    return "\n".join(lines[:_FIRST_LINES] + ([f"... and {left_out} more lines"] if left_out > 0 else []))


def without_internals(lines: Sequence[str]) -> list[str]:
    """Without what Snakemake itself was doing, and without errors of its own while it told of one."""
    kept: list[str] = []
    is_inside = False
    for line in _of_the_error(lines):
        is_inside = bool(_INTERNALS.fullmatch(line[:LOOK_CHARS])) or (is_inside and line.startswith("    "))
        if not is_inside:
            kept.append(line)
    return [line for line, after in pairwise([*kept, ""]) if line != _TRACEBACK or after.startswith("  ")]


def _of_the_error(lines: Sequence[str]) -> Sequence[str]:
    """The last of errors that led to each other, but for those that Snakemake made while it told of one."""
    starts = [0, *(i + 1 for i, line in enumerate(lines) if _ANOTHER_ERROR in line)]
    parts = [lines[start : end - 1] for start, end in pairwise([*starts, len(lines) + 1])]
    told = [part for part in parts if not any(_WHILE_TELLING.fullmatch(line[:LOOK_CHARS]) for line in part)]
    return (told or parts)[-1]


def shortened(text: str, places: Sequence[str]) -> str:
    """Paths as the workflow's author knows them: from the working directory on."""
    for place in places:
        text = text.replace(f"{place}/", "").replace(place, ".")
    return text


def missing_input(message: str) -> tuple[MissingInput, ...]:
    """The rules that want files which nothing makes, as far as this error names them."""
    return tuple(
        MissingInput(
            clean(rule, MAX_LINE),
            tuple(sorted(line.strip() for line in details.partition(_AFFECTED)[2].splitlines())[:_MAX_FILES]),
        )
        for rule, details in _MISSING.findall(plain(message[:_MESSAGE_CHARS]))
    )

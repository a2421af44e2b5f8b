"""Text that a job has written, as people may see it and stores can keep it."""

from __future__ import annotations

import re
from typing import Final

MAX_LINE: Final = 500
_LAST_LINES: Final = 20

# CSI and OSC sequences (ECMA-48); then every other control character but tab and newline, and halves of
# surrogate pairs, which no store could keep.
_ANSI: Final = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-_]")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def plain(text: str) -> str:
    """Without terminal sequences and control characters; lines end with a newline each."""
    if text.isprintable():
        return text
    return _CONTROL.sub("", _ANSI.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))


def clean(text: str, limit: int) -> str:
    """One line of it, with at most `limit` characters."""
    return plain(text[: 4 * limit]).replace("\n", " ")[:limit]


def last_lines(text: str) -> str:
    """The last twenty lines that say something, each with at most 500 characters."""
    lines = [line.rstrip()[:MAX_LINE] for line in plain(text).split("\n")]
    return "\n".join([line for line in lines if line.strip()][-_LAST_LINES:])


def encodable(text: str) -> str:
    """As it is, but for halves of surrogate pairs, which are no characters."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()

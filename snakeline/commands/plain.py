"""What comes from a service, as it may be written to a terminal: nothing in it is a command to that."""

from __future__ import annotations

import re
from typing import Final

# All controls but tab and newline; what turns the direction of text round; surrogates and line separators.
_UNSAFE: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_COLOURS: Final = re.compile("\x1b\\[[0-9;:]*m")


def plain(text: object) -> str:
    """With whatever a terminal could take for more than text shown as its code."""
    return _UNSAFE.sub(_shown, str(text))


def one_line(text: object) -> str:
    """The same on one line."""
    return " ".join(plain(text).split())


def coloured(text: str) -> str:
    """A piece of a log: as `plain`, but colours, bold and the like (`ESC [ … m`) stay."""
    parts: list[str] = []
    end = 0
    for found in _COLOURS.finditer(text):
        parts += plain(text[end : found.start()]), found[0]
        end = found.end()
    return "".join([*parts, plain(text[end:])])


def _shown(found: re.Match[str]) -> str:
    number = ord(found[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


class ColouredLines:
    """A log in pieces, coloured; an escape sequence that a piece's end cuts in two is kept for the next."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, text: str) -> str:
        text = self._held + text
        at = text.rfind("\x1b", max(0, len(text) - 64))
        self._held = text[at:] if at >= 0 and "m" not in text[at:] and "\n" not in text[at:] else ""
        return coloured(text[: len(text) - len(self._held)])

    def end(self) -> str:
        """What is still held, and the terminal's own colours again."""
        held, self._held = self._held, ""
        return coloured(held) + "\x1b[0m"

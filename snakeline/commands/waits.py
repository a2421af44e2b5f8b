"""Tells whoever waits for the command what that waits for."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Final

from snakeline.commands.plain import one_line
from snakeline.commands.streams import is_screen

if TYPE_CHECKING:
    from collections.abc import Callable

    from snakeline.client import Waiting

_SHORT_S: Final = 1.0


class Waits:
    """What the client is told of its pauses goes to standard error, unless they are short.

    On a terminal as a line that is gone when the pause is; where that would be written over a log, and in a
    file or a pipe, as one line for each trouble. `elsewhere` is told instead, where that is set.
    """

    def __init__(self, *, quiet: bool = False, is_transient: bool = True) -> None:
        self.elsewhere: Callable[[str], None] | None = None
        self.is_within_a_line = False
        """Whether what was written last, to the same terminal, has not ended its line yet."""
        self._quiet = quiet
        self._is_transient = is_transient and is_screen(sys.stderr)
        self._was_told = False
        self._is_shown = False

    def __call__(self, waiting: Waiting | None) -> None:
        if self._quiet:
            return
        if waiting is None:
            self._clear()
            return
        is_new = waiting.number <= 2
        if is_new:
            self._was_told = False
            if waiting.pause_s < _SHORT_S:
                return
        text = one_line(
            f"{waiting.why}: trying again in {max(1, round(waiting.pause_s))} s (try {waiting.number})"
        )
        if self.elsewhere is not None:
            self.elsewhere(text)
        elif self._is_transient:
            width = shutil.get_terminal_size().columns - 1
            sys.stderr.write(f"\r{text[:width]}\x1b[K")
            sys.stderr.flush()
            self._is_shown = True
        elif not self._was_told:
            sys.stdout.flush()
            begin = "\n" if self.is_within_a_line and sys.stdout.isatty() else ""
            print(f"{begin}{text}", file=sys.stderr, flush=True)
            self._was_told = True

    def _clear(self) -> None:
        if self.elsewhere is not None:
            self.elsewhere("")
        elif self._is_shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._is_shown = False

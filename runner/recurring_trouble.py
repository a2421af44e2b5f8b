"""Trouble that comes again and again until it is over, and what of it is worth a line in the log."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST_KINDS: Final = 32


class RecurringTrouble:
    """Each kind is told when it begins, then once in `every_s` seconds while it lasts; and that all is over.

    What comes and goes all the time is told as often, and no more. Not thread-safe.
    """

    def __init__(self, every_s: float = 50.0, clock: Callable[[], float] = time.monotonic) -> None:
        """By default each minute that has trouble has a line: alarms count minutes."""
        self._every_s = every_s
        self._clock = clock
        self._quiet_until: dict[str, float] = {}  # by kind
        self._times: dict[str, int] = {}  # by kind, since it was told last
        self._is_told = False

    def came(self, kind: str = "") -> int:
        """How often this has come since it was told last, if it is to be told now; else 0."""
        times = self._times.get(kind, 0) + 1
        now = self._clock()
        if now < self._quiet_until.get(kind, now):
            self._times[kind] = times
            return 0
        if len(self._quiet_until) >= _MOST_KINDS:
            self._quiet_until.clear()
            self._times.clear()
        self._quiet_until[kind] = now + self._every_s
        self._times[kind] = 0
        self._is_told = True
        return times

    def is_over(self) -> bool:
        """To be asked when all goes well; whether that is to be told, as the trouble was."""
        was_told, self._is_told = self._is_told, False
        return was_told

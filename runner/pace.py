"""How much of the time a background thread may work."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

_WORTH_A_REST_S: Final = 0.005


class Stopped(Exception):
    """The thread is to end: whatever it was doing is taken up again another time."""


class Pace:
    """Keeps a thread to a share of the time: the longer something took, the longer it rests after.

    Time that is spent waiting for the disk or the store counts as work: it is the disk's and the
    store's time that others miss.
    """

    def __init__(
        self, share: float, stopping: threading.Event, *, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._rests = 1 / share - 1
        self._stopping = stopping
        self._clock_s = clock_s
        self._began_s = clock_s()
        self._worked_s = 0.0

    def begin(self) -> None:
        """What was since the last call of `rest` was no work."""
        self._began_s = self._clock_s()

    def rest(self) -> None:
        """To be called often while working. Raises Stopped once `stopping` is set."""
        self._worked_s += self._clock_s() - self._began_s
        if self._worked_s >= _WORTH_A_REST_S:
            self._stopping.wait(self._worked_s * self._rests)
            self._worked_s = 0.0
        self._began_s = self._clock_s()
        if self._stopping.is_set():
            raise Stopped

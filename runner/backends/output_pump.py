"""Moves what a job writes from its pipe to the log. Used by the shim: standard library only."""

from __future__ import annotations

import mmap
import os
import time
from typing import TYPE_CHECKING

from runner.backends.engine_process import PIPE_BYTES
from runner.backends.flood_pace import FloodPace

if TYPE_CHECKING:
    from runner.backends.log_segments import LogSegments

_PIECE_BYTES = 2**16
"""Taken from the pipe at one go: small enough that the API, on the same cores, need not wait for it."""


class OutputPump:
    def __init__(self, log: LogSegments) -> None:
        self._log = log
        self._pace = FloodPace()
        # Anonymous memory costs nothing until it is used: most jobs write little.
        self._buffer = mmap.mmap(-1, _PIECE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)

    def move(self, output: int) -> int | None:
        """Move some of what is in the pipe to the log: how many bytes, None at its end."""
        try:
            count = os.readv(output, [self._buffer])
        except BlockingIOError:
            return 0
        self._log.write(memoryview(self._buffer)[:count])
        pause_s = self._pace.pause_s(count, time.monotonic())
        if pause_s:
            time.sleep(pause_s)  # noqa: TID251 - milliseconds, to leave the processor to others
        return count or None

    def drain(self, output: int) -> None:
        """What is left in the pipe, without waiting and no more than it can hold.

        A process that could not be killed may keep it open and go on writing.
        """
        left = 2 * PIPE_BYTES
        while left > 0 and (count := self.move(output)):
            left -= count

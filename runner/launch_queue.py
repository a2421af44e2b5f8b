"""Claimed attempts that wait to be launched, each no earlier than its time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runner.ports import Handle

_FIRST_DELAY_S = 0.5
_LONGEST_DELAY_S = 5.0


class LaunchQueue:
    """In the order added. One that could not be launched waits alone, longer each time, at most 5 s.

    Not thread-safe: it belongs to the supervisor's thread.
    """

    def __init__(self) -> None:
        self._due_at: dict[Handle, float] = {}
        self._delays: dict[Handle, float] = {}  # of those that could not be launched the last time

    def add(self, handle: Handle) -> None:
        self._due_at[handle] = 0.0

    def postpone(self, handle: Handle) -> None:
        """It could not be launched just now: again in a while."""
        delay = min(2 * self._delays.get(handle, _FIRST_DELAY_S / 2), _LONGEST_DELAY_S)
        self._delays[handle] = delay
        self._due_at[handle] = time.monotonic() + delay

    def discard(self, handle: Handle) -> bool:
        """Take it out and forget its delays; whether it was there."""
        self._delays.pop(handle, None)
        return self._due_at.pop(handle, None) is not None

    def take_due(self) -> list[Handle]:
        """What may be launched now. What comes to nothing is to be postponed."""
        now = time.monotonic()
        due = [handle for handle, at in self._due_at.items() if at <= now]
        for handle in due:
            del self._due_at[handle]
        return due

    @property
    def postponed(self) -> int:
        """How many attempts have failed to be launched and wait for their next try."""
        return sum(1 for handle in self._due_at if handle in self._delays)

    def next_at(self) -> float | None:
        """When the next one is due, on the monotonic clock; None when none waits."""
        return min(self._due_at.values(), default=None)

    def __contains__(self, handle: object) -> bool:
        return handle in self._due_at

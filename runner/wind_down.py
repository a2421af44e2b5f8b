"""How running jobs are dealt with while the service stops: let go, waited for, or stopped to resume."""

from __future__ import annotations

import time
from collections import deque
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runner.settings import OnShutdown

_CLOSING_S = 4.0
"""What the rest of the stop needs at most: answers under way, the last commit, the lock."""


class Step(Enum):
    """What is to be done now."""

    WAIT = auto()
    INTERRUPT = auto()
    FORCE = auto()
    GIVE_UP = auto()


class WindDown:
    """The steps of one shutdown on the monotonic clock, so that all is over `within_s` after its start.

    Running jobs are interrupted, then killed early enough that their results are still recorded. What
    could not be ended by then is let go: it is found again, or found lost, at the next start.
    """

    def __init__(self, how: OnShutdown, *, within_s: float, stop_grace_s: float) -> None:
        now = time.monotonic()
        give_up_at = now + max(0.6 * within_s, within_s - _CLOSING_S)
        left_s = give_up_at - now
        force_at = give_up_at - min(1.0, 0.2 * left_s)
        interrupt_at = now if how == "stop" else force_at - min(stop_grace_s, 0.5 * left_s)
        self._ahead = deque(
            [(Step.INTERRUPT, interrupt_at), (Step.FORCE, force_at), (Step.GIVE_UP, give_up_at)]
        )

    def step(self) -> Step:
        """The next step that is due, each told once; WAIT when there is none."""
        if not self._ahead or time.monotonic() < self._ahead[0][1]:
            return Step.WAIT
        return self._ahead.popleft()[0]

    def next_at(self) -> float | None:
        """When the next step is due, on the monotonic clock; None after the last."""
        return self._ahead[0][1] if self._ahead else None

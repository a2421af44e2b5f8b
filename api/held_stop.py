"""A signal to stop that came while the service was still starting."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import FrameType

_STOPPING: Final = (signal.SIGTERM, signal.SIGINT)


class HeldStop:
    """`came`: the service was told to stop before it could heed that, and is to stop once it has started.

    Who starts it while jobs run that must not be left alone blocks SIGTERM and SIGINT, and they wait until
    `heed` (snakeline/restarter.py, after a crash). Not blocked, they end a start: nothing is lost with it.
    """

    def __init__(self) -> None:
        self.came = False

    def heed(self) -> None:
        """Note them from here on. Before the first child, which would inherit that they are blocked."""
        held = signal.pthread_sigmask(signal.SIG_BLOCK, ()).intersection(_STOPPING)
        for number in held:
            signal.signal(number, self.note)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, held)

    def note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a signal handler's form
        self.came = True

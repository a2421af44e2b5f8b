"""When a request is sent again, and after which pause. It sends nothing itself."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from snakeline.client.errors import Problem, Unreachable

ABSENCE_S: Final = 15.0
AWAY: Final = frozenset({502, 504})  # of a proxy, while the service behind it does not answer
_PASSING: Final = frozenset({429, 503})
_FIRST_PAUSE_S: Final = 0.25
_FIRST_ASKED_PAUSE_S: Final = 0.01
_LONGEST_PAUSE_S: Final = 8.0
_LONGEST_ABSENT_PAUSE_S: Final = 1.0  # whoever follows wants to be there soon again


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request is sent once more after `pause_s`, for the reason `why`; `number` is that of this try."""

    why: str
    pause_s: float
    number: int


class Tries:
    """The tries of one request, for at most `for_s` seconds in all."""

    def __init__(self, for_s: float) -> None:
        self._began = time.monotonic()
        self._for_s = for_s
        self._count = 0

    def after_refusal(self, refused: Problem) -> float | None:
        """Seconds until the next try; None when there is to be none.

        The service's own Retry-After is kept, and never shortened: where it is longer than there is time, it
        is not waited for at all. A refused key is the caller's to mend.
        """
        if refused.status not in _PASSING or refused.type == "too-many-failures":
            return None
        return self._pause(refused.retry_after_s, self._for_s, _LONGEST_PAUSE_S)

    def after_break(self) -> float | None:
        """The same after a connection that broke, or that could not be made any more."""
        return self._pause(None, min(self._for_s, ABSENCE_S), _LONGEST_ABSENT_PAUSE_S)

    @property
    def next_number(self) -> int:
        """Of the try that comes next; the first is 1."""
        return self._count + 1

    def _pause(self, asked_s: float | None, for_s: float, longest_s: float) -> float | None:
        first_s = _FIRST_PAUSE_S if asked_s is None else _FIRST_ASKED_PAUSE_S
        # Also where the service says «at once» again and again the pauses grow.
        pause_s = max(asked_s or 0.0, min(longest_s, first_s * 2**self._count))
        # Many clients are refused at one moment: they shall not come back at one moment.
        pause_s *= 1 + random.random() / 4  # noqa: S311 - nothing is secret here
        self._count += 1
        return pause_s if time.monotonic() + pause_s - self._began <= for_s else None


class Absence:
    """Bears a stream's breaks for a while, as during a restart of the service."""

    def __init__(self, for_s: float) -> None:
        self._for_s = for_s
        self._tries: Tries | None = None

    def over(self) -> None:
        self._tries = None

    @property
    def next_number(self) -> int:
        return self._tries.next_number if self._tries else 1

    def pause(self, error: Unreachable) -> float:
        """Seconds until the next try. Raises the error when it has lasted for too long."""
        self._tries = self._tries or Tries(self._for_s)
        pause_s = self._tries.after_break()
        if pause_s is None:
            raise error
        return pause_s

"""Counts refused credentials per client, so that guessing is slow, quiet and seen."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from api.client_limits import client_group

if TYPE_CHECKING:
    from collections.abc import Callable

FAILURES_PER_MINUTE: Final = 10
_MOST_CLIENTS: Final = 10_000


class FailureLimit:
    """A leaky bucket per client address (IPv6: per /64, which is what one client has).

    Who is right is never held up by it, whoever else is wrong behind the same address. The table is
    bounded: the client whose last failure is the oldest is forgotten first.
    """

    def __init__(
        self,
        *,
        per_minute: int = FAILURES_PER_MINUTE,
        most_clients: int = _MOST_CLIENTS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._burst = per_minute
        self._per_s = per_minute / 60
        self._most_clients = most_clients
        self._clock = clock
        self._clients: OrderedDict[str, tuple[float, float]] = OrderedDict()  # level, and when

    def failed(self, address: str | None) -> int:
        """Count one failure; the seconds until the next would be taken, 0 while it is within the limit."""
        now = self._clock()
        client = client_group(address or "")
        level, at = self._clients.pop(client, (0.0, now))
        level = max(0.0, level - (now - at) * self._per_s) + 1
        over = level - self._burst
        # Failures beyond the limit do not add up: it ends a minute after the last one at the latest.
        self._clients[client] = (min(level, self._burst + 1), now)
        if len(self._clients) > self._most_clients:
            self._clients.popitem(last=False)
        return math.ceil(over / self._per_s) if over > 0 else 0

    def __len__(self) -> int:
        return len(self._clients)

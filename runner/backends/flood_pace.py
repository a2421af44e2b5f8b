"""How long to pause while a job floods its log. Used by the shim: standard library only."""

from __future__ import annotations

BYTES_PER_S = 0.5e9
"""What a job may write for ever; more than that for longer than a burst is slowed (docs/adr/0009)."""
BURST_S = 1.6
_WORTH_A_PAUSE_S = 0.004


class FloodPace:
    """Counts what was taken against a rate, with a burst's credit for whoever wrote little before."""

    def __init__(self) -> None:
        self._taken_until = 0.0  # when what was taken would be, at the rate

    def pause_s(self, count: int, now: float) -> float:
        """Seconds to wait after `count` more bytes at `now` (monotonic); 0 below the rate."""
        self._taken_until = max(self._taken_until, now - BURST_S) + count / BYTES_PER_S
        ahead_s = self._taken_until - now
        return ahead_s if ahead_s > _WORTH_A_PAUSE_S else 0.0

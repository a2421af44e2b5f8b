"""Which pending jobs may start now: free cores, then priority, then age."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.jobs import Job
    from runner.ports import JobStore

CLAIM_AT_ONCE = 64
RESERVE_AFTER_S = 60.0
"""How long smaller jobs may overtake one that does not fit; then cores are kept free for it."""


class CoreQueue:
    """Counts the cores of running jobs and chooses from the store what fits beside them.

    The sum never exceeds `max_cores`. Not thread-safe: it belongs to the supervisor's thread.
    """

    def __init__(self, store: JobStore, max_cores: int) -> None:
        self._store = store
        self._max_cores = max_cores
        self._used = 0
        self._blocked: tuple[str, float] | None = None  # the first job that does not fit, and since when

    @property
    def has_room(self) -> bool:
        """Whether a core is free. Safe from any thread."""
        return self._used < self._max_cores

    def take(self, job: Job) -> None:
        self._used += job.spec.cores

    def release(self, job: Job) -> None:
        self._used -= job.spec.cores

    def next(self) -> list[Job]:
        """At most `CLAIM_AT_ONCE` pending jobs to start; nothing is taken yet. Raises StoreUnavailable."""
        free = self._max_cores - self._used
        if free <= 0:
            return []
        limit = min(CLAIM_AT_ONCE, free)  # no more can fit: each takes a core at least
        waiting = self._store.pending(max_cores=self._max_cores, limit=limit)
        chosen, too_large = _fitting(waiting, free)
        if too_large is None:
            self._blocked = None
        elif self._has_waited_enough(too_large):
            return chosen[: waiting.index(too_large)]
        elif len(waiting) == limit:
            # Some at the head are too large: something that fits may stand behind them.
            chosen, _ = _fitting(self._store.pending(max_cores=free, limit=limit), free)
        return chosen

    def _has_waited_enough(self, job: Job) -> bool:
        now = time.monotonic()
        if self._blocked is None or self._blocked[0] != job.id:
            self._blocked = (job.id, now)
        return now - self._blocked[1] >= RESERVE_AFTER_S


def _fitting(waiting: Sequence[Job], free: int) -> tuple[list[Job], Job | None]:
    """What fits into `free` cores in this order, and the first job that does not."""
    chosen: list[Job] = []
    too_large: Job | None = None
    for job in waiting:
        if job.spec.cores <= free:
            free -= job.spec.cores
            chosen.append(job)
        elif too_large is None:
            too_large = job
    return chosen, too_large

"""Which pending jobs may start now: free cores shared fairly between tenants; then priority, then age."""

from __future__ import annotations

import heapq
import time
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.errors import JobNotFound
from runner.jobs import JobStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runner.job_store import JobStore
    from runner.jobs import Job
    from runner.quotas import CoreQuotas

CLAIM_AT_ONCE = 64
_LOOKS = 8  # at tenants of whom nothing fits: enough for all of them in time, however many there are
RESERVE_AFTER_S = 60.0
"""How long smaller jobs may overtake one that does not fit; then cores are kept free for it."""


@dataclass(frozen=True, slots=True)
class _Blocked:
    """The first job of a tenant that did not fit when its turn came, and since when."""

    job_id: str
    cores: int
    since: float


class CoreQueue:
    """Counts the cores of running jobs and chooses from the store what fits beside them.

    The sum never exceeds `max_cores`, nor that of a tenant its quota. The next job is of the tenant that
    has the least of what it may have; of two alike, of the one whose last turn is longer ago. A tenant
    at its quota is passed over. What becomes free is kept for a large job `RESERVE_AFTER_S` after it
    did not fit; until it starts, a tenant with nothing running may still start one job. While it is its own
    tenant's running jobs that such a job waits for, the others go on.

    Not thread-safe: it belongs to the supervisor's thread.
    """

    def __init__(
        self,
        store: JobStore,
        quotas: CoreQuotas,
        max_cores: int,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._quotas = quotas
        self._max_cores = max_cores
        self._clock = clock
        self._used = 0
        self._used_by: Counter[str] = Counter()
        self._blocked: dict[str, _Blocked] = {}  # by tenant
        self._turns = 0
        self._last_turn: dict[str, int] = {}
        self._let_by: set[str] = set()  # tenants that went ahead of the job that cores are kept for

    @property
    def has_room(self) -> bool:
        """Whether a core is free. Safe from any thread."""
        return self._used < self._max_cores

    @property
    def used(self) -> int:
        """Cores that are taken. Safe from any thread."""
        return self._used

    def take(self, job: Job) -> None:
        self._used += job.spec.cores
        self._used_by[job.tenant] += job.spec.cores
        self._turns += 1
        self._last_turn[job.tenant] = self._turns
        blocked = self._blocked.get(job.tenant)
        if blocked is not None and blocked.job_id == job.id:
            del self._blocked[job.tenant]

    def release(self, job: Job) -> None:
        self._used -= job.spec.cores
        self._used_by[job.tenant] -= job.spec.cores
        if not self._used_by[job.tenant]:
            del self._used_by[job.tenant]

    def next(self) -> list[Job]:
        """At most `CLAIM_AT_ONCE` pending jobs to start; nothing is taken yet. Raises StoreUnavailable."""
        free = self._max_cores - self._used
        if free <= 0:
            return []
        fewest = self._store.waiting_tenants()
        self._quotas.refresh()
        self._forget_all_but(fewest)
        kept_for = self._kept_for()
        turn = _Turn(free, Counter(self._used_by))
        if kept_for is None:
            self._let_by.clear()
        elif kept_for.spec.cores <= free:
            turn.choose(kept_for)
            kept_for = None
        waiting: dict[str, _Waiting] = {}
        at_once = max(1, min(CLAIM_AT_ONCE, free, -(-2 * free // max(1, len(fewest)))))
        order = [self._rank(tenant, turn) for tenant in fewest]
        heapq.heapify(order)
        looks = _LOOKS
        while order and turn.free > 0 and len(turn.chosen) < CLAIM_AT_ONCE:
            tenant = heapq.heappop(order)[-1]
            if kept_for is not None and not self._may_pass(tenant, kept_for, turn):
                continue
            most = self._quotas.of(tenant)
            room = min(turn.free, most - turn.used_by[tenant])
            if room < fewest[tenant]:
                # Nothing to start, but somebody begins to wait: known already, or looked at.
                if fewest[tenant] > most or tenant in self._blocked or not looks:
                    continue
                looks -= 1
            if tenant not in waiting:
                waiting[tenant] = _Waiting(self, tenant, at_once, turn)
            job = waiting[tenant].next(room)
            if job is not None:
                turn.choose(job)
                if kept_for is not None and tenant != kept_for.tenant:
                    self._let_by.add(tenant)
                heapq.heappush(order, self._rank(tenant, turn))
        return turn.chosen

    def _rank(self, tenant: str, turn: _Turn) -> tuple[float, int, str]:
        last = turn.last_turn.get(tenant)
        last = self._last_turn.get(tenant, 0) if last is None else self._turns + last
        return turn.used_by[tenant] / max(1, self._quotas.of(tenant)), last, tenant

    def _may_pass(self, tenant: str, kept_for: Job, turn: _Turn) -> bool:
        """While cores are kept for a job: those before it in its own tenant, and others' first ones."""
        return tenant == kept_for.tenant or (not turn.used_by[tenant] and tenant not in self._let_by)

    def _kept_for(self) -> Job | None:
        """The job that free cores are kept for: of those that have waited enough, the longest."""
        for tenant, blocked in sorted(self._blocked.items(), key=lambda item: item[1].since):
            if not self._has_waited_enough(blocked):
                break
            if blocked.cores > self._quotas.of(tenant) - self._used_by[tenant]:
                continue  # it is not free cores that it lacks
            try:
                job = self._store.get(blocked.job_id)
            except JobNotFound:
                job = None
            if job is not None and job.status is JobStatus.PENDING:
                return job
            del self._blocked[tenant]
        return None

    def block(self, job: Job) -> bool:
        """It did not fit when its turn came; whether nothing behind it may overtake it any more."""
        blocked = self._blocked.get(job.tenant)
        if blocked is None or blocked.job_id != job.id:
            blocked = self._blocked[job.tenant] = _Blocked(job.id, job.spec.cores, self._clock())
        return self._has_waited_enough(blocked)

    def unblock(self, tenant: str) -> None:
        """All of its jobs fit that were looked at."""
        self._blocked.pop(tenant, None)

    def _has_waited_enough(self, blocked: _Blocked) -> bool:
        return self._clock() - blocked.since >= RESERVE_AFTER_S

    def pending(self, tenant: str, most: int | None, limit: int) -> list[Job]:
        """The tenant's first jobs that need at most `most` cores, or else as many as it may have."""
        max_cores = self._quotas.of(tenant) if most is None else most
        return list(self._store.pending(tenant=tenant, max_cores=max_cores, limit=limit))

    def _forget_all_but(self, waiting: Mapping[str, int]) -> None:
        for tenant in self._blocked.keys() - waiting.keys():
            del self._blocked[tenant]
        if len(self._last_turn) > 2 * len(waiting) + 1000:
            for tenant in self._last_turn.keys() - waiting.keys() - self._used_by.keys():
                del self._last_turn[tenant]


class _Turn:
    """What was chosen so far by one call of `next`."""

    def __init__(self, free: int, used_by: Counter[str]) -> None:
        self.free = free
        self.used_by = used_by
        self.chosen: list[Job] = []
        self.ids: set[str] = set()
        self.last_turn: dict[str, int] = {}

    def choose(self, job: Job) -> None:
        self.free -= job.spec.cores
        self.used_by[job.tenant] += job.spec.cores
        self.chosen.append(job)
        self.ids.add(job.id)
        self.last_turn[job.tenant] = len(self.chosen)


class _Waiting:
    """One tenant's pending jobs in order, fetched a few at a time; for one call of `next`."""

    def __init__(self, queue: CoreQueue, tenant: str, at_once: int, turn: _Turn) -> None:
        self._queue = queue
        self._tenant = tenant
        self._at_once = at_once
        self._turn = turn
        self._jobs: deque[Job] = deque()
        self._seen: set[str] = set()
        self._is_last = False
        self._too_large = False

    def next(self, room: int) -> Job | None:
        """The next one that fits into `room` cores, which never grows from call to call."""
        while True:
            if not self._jobs and not self._fetch(room):
                if not self._too_large:
                    self._queue.unblock(self._tenant)
                return None
            job = self._jobs.popleft()
            if job.id in self._turn.ids:
                continue
            if job.spec.cores <= room:
                return job
            if not self._too_large:
                self._too_large = True
                if self._queue.block(job):
                    self._jobs.clear()
                    self._is_last = True

    def _fetch(self, room: int) -> bool:
        if self._is_last:
            return False
        limit = len(self._seen) + self._at_once
        # Behind one that is too large, only what fits is looked for, however many are too large as well.
        found = self._queue.pending(self._tenant, room if self._too_large else None, limit)
        self._jobs.extend(job for job in found if job.id not in self._seen)
        self._seen.update(job.id for job in self._jobs)
        self._is_last = len(found) < limit
        return bool(self._jobs)

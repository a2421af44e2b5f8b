"""`MemoryStore`: the job store as a dict under a lock. Nothing outlives the process."""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from concurrent.futures import Future
from dataclasses import fields, replace
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeVar

import structlog

from runner.errors import IdempotencyMismatch, JobNotFound, QueueFull
from runner.job_store import Admission, EndedJob, JobBrief, JobPage, Submitted
from runner.jobs import Change, Job, JobEvent, JobStatus
from runner.quotas import effective, require_room
from runner.stores.memory_access import MemoryAccess
from runner.stores.names import NAMED_STOPS_AT, TOTAL_STOPS_AT, matches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from runner.access import AuditRecord, Quota
    from runner.job_store import IdempotencyKey, JobQuery, Update

T = TypeVar("T")

_log = structlog.get_logger(__name__)
_EVENTLESS_AT_MOST: Final = 1000  # to drop events goes through all there are


class MemoryStore(MemoryAccess):
    """A `JobStore` and an `AccessStore` with the contract of the durable one; a restart forgets everything.

    Its futures are already resolved when they are returned. `on_commit` is called on the caller's
    thread, with the lock held so that events stay in order: it may read the store and must not wait.
    """

    def __init__(self, *, on_commit: Callable[[Sequence[JobEvent]], None] | None = None) -> None:
        super().__init__()
        self._on_commit = on_commit
        self._jobs: dict[str, Job] = {}
        self._ids: dict[int, str] = {}  # by seq, which only grows: in order of submission
        self._by_status: dict[JobStatus, dict[int, str]] = {status: {} for status in JobStatus}
        self._counts: Counter[tuple[str, str, JobStatus]] = Counter()  # by tenant and workflow
        self._ended: list[tuple[datetime, int]] = []  # when, and the seq; in order
        self._ceilings: dict[int, datetime] = {}
        self._ceiling = datetime.min.replace(tzinfo=UTC)
        self._leftovers: set[str] = set()
        self._keys: dict[tuple[str, str], tuple[str, str]] = {}  # by tenant and key
        self._key_of: dict[str, tuple[str, str]] = {}
        self._events: list[JobEvent] = []
        self._told: dict[str, JobEvent] = {}  # jobs' newest events, where they tell progress
        self._eventless: set[str] = set()  # deleted, with events still to be dropped from the list
        self._last_seq = 0
        self._last_event = 0

    # ------------------------------------------------------------ writes

    def add(
        self,
        job: Job,
        *,
        key: IdempotencyKey | None = None,
        max_pending: int | None = None,
        quota: Quota | None = None,
        used_bytes: int | None = None,
        audit: AuditRecord | None = None,
    ) -> Future[Submitted]:
        def add() -> tuple[Submitted, list[JobEvent]]:
            if key is not None and (job.tenant, key.key) in self._keys:
                job_id, fingerprint = self._keys[job.tenant, key.key]
                if fingerprint != key.fingerprint:
                    raise IdempotencyMismatch
                return Submitted(self._jobs[job_id], replayed=True), []
            self._admit(job, Admission(max_pending, quota, used_bytes))
            added = self._add(job, key)
            self._record(audit)
            return added

        return self._write(add)

    def _admit(self, job: Job, limits: Admission) -> None:
        if limits.quota is not None:
            own = effective(self._quotas.get(job.tenant), limits.quota)
            require_room(job, own, pending=lambda: self._pending_of(job.tenant), used_bytes=limits.used_bytes)
        if limits.max_pending is not None and len(self._by_status[JobStatus.PENDING]) >= limits.max_pending:
            raise QueueFull(limits.max_pending)

    def _pending_of(self, tenant: str) -> int:
        return self.counts(tenant=tenant)[JobStatus.PENDING]

    def _add(self, job: Job, key: IdempotencyKey | None) -> tuple[Submitted, list[JobEvent]]:
        if job.id in self._jobs:
            raise ValueError(f"job {job.id} is stored already")
        if job.id in self._eventless:
            self._drop_events()
        self._last_seq += 1
        stored = replace(job, seq=self._last_seq)
        self._ids[stored.seq] = stored.id
        self._ceiling = self._ceilings[stored.seq] = max(self._ceiling, stored.created_at)
        if key is not None:
            self._keys[stored.tenant, key.key] = (stored.id, key.fingerprint)
            self._key_of[stored.id] = (stored.tenant, key.key)
        self._put(None, stored)
        event = self._event(stored, Change.SUBMITTED, stored.created_at, {})
        return Submitted(stored, replayed=False), [event]

    def update(self, updates: Sequence[Update]) -> Future[list[Job | None]]:
        return self._write(lambda: self._update(updates))

    def _update(self, updates: Sequence[Update]) -> tuple[list[Job | None], list[JobEvent]]:
        answers: list[Job | None] = []
        events: list[JobEvent] = []
        for update in updates:
            if update.admission is not None:
                self._admit(update.after, update.admission)
        for update in updates:
            stored = self._jobs.get(update.before.id)
            if stored is None or stored.version != update.before.version:
                answers.append(None)
                continue
            after = replace(update.after, seq=stored.seq)
            self._put(stored, after)
            events.append(self._event(after, update.kind, after.updated_at, update.data))
            self._record(update.audit)
            answers.append(after)
        return answers, events

    def delete(self, job: Job, *, audit: AuditRecord | None = None) -> Future[bool]:
        return self._write(lambda: (self._delete(job, audit), []))

    def _delete(self, job: Job, audit: AuditRecord | None) -> bool:
        stored = self._jobs.get(job.id)
        if stored is None or stored.version != job.version:
            return False
        del self._jobs[stored.id]
        del self._ids[stored.seq]
        del self._ceilings[stored.seq]
        self._leave(stored)
        self._leftovers.add(stored.id)
        key = self._key_of.pop(stored.id, None)
        if key is not None:
            del self._keys[key]
        self._eventless.add(stored.id)
        self._told.pop(stored.id, None)
        if len(self._eventless) >= _EVENTLESS_AT_MOST:
            self._drop_events()
        self._record(audit)
        return True

    def _drop_events(self) -> None:
        self._events = [event for event in self._events if event.job_id not in self._eventless]
        self._eventless.clear()

    def _put(self, before: Job | None, after: Job) -> None:
        if before is not None:
            self._leave(before)
        self._jobs[after.id] = after
        if after.completed_at is not None:
            insort(self._ended, (after.completed_at, after.seq))
        self._by_status[after.status][after.seq] = after.id
        self._counts[after.tenant, after.spec.workflow, after.status] += 1

    def _leave(self, before: Job) -> None:
        """Take the job out of what is kept by status and by end."""
        del self._by_status[before.status][before.seq]
        self._counts[before.tenant, before.spec.workflow, before.status] -= 1
        if before.completed_at is not None:
            del self._ended[bisect_left(self._ended, (before.completed_at, before.seq))]

    def forget_leftovers(self, job_ids: Sequence[str]) -> Future[None]:
        def forget() -> tuple[None, list[JobEvent]]:
            self._leftovers.difference_update(job_ids)
            return None, []

        return self._write(forget)

    def _event(self, job: Job, kind: Change, at: datetime, data: Mapping[str, Any]) -> JobEvent:
        if (told := self._told.pop(job.id, None)) is not None:
            del self._events[bisect_left(self._events, told.seq, key=lambda event: event.seq)]
        self._last_event += 1
        event = JobEvent(self._last_event, job.id, kind, job.status, job.attempt, at, data, job.tenant)
        self._events.append(event)
        if kind is Change.PROGRESSED:
            self._told[job.id] = event
        return event

    def _write(self, change: Callable[[], tuple[T, list[JobEvent]]]) -> Future[T]:
        future: Future[T] = Future()
        with self._lock:
            try:
                self._require_open()
                answer, events = change()
            except Exception as error:  # noqa: BLE001 - every failure belongs in the future
                future.set_exception(error)
                return future
            future.set_result(answer)
            if events and self._on_commit is not None:
                try:
                    self._on_commit(events)
                except Exception:  # noqa: BLE001 - the write stands, whoever hears of it
                    _log.exception("store.news_not_told")
        return future

    # ------------------------------------------------------------ reads

    def get(self, job_id: str, *, tenant: str | None = None) -> Job:
        with self._lock:
            self._require_open()
            job = self._jobs.get(job_id)
        if job is None or tenant not in (None, job.tenant):
            raise JobNotFound(job_id)
        return job

    def list(self, query: JobQuery) -> JobPage:
        with self._lock:
            self._require_open()
            simple = not (query.labels or query.q or query.created_after or query.created_before)
            total = self._counted(query) if simple else 0
            stops_at = NAMED_STOPS_AT if query.q else TOTAL_STOPS_AT
            items: list[Job] = []
            for job in self._in_order(query):
                if not _matches(job, query):
                    continue
                if not simple:
                    total += 1
                if _is_behind(job, query) and len(items) <= query.limit:
                    items.append(job)
                if len(items) > query.limit and (simple or total > stops_at):
                    break
        exact = simple or total <= stops_at
        return JobPage(
            items=tuple(items[: query.limit]),
            total=total if exact else stops_at,
            total_is_exact=exact,
            has_more=len(items) > query.limit,
        )

    def _in_order(self, query: JobQuery) -> Iterator[Job]:
        ids = reversed(self._ids.values()) if query.order == "desc" else iter(self._ids.values())
        return (self._jobs[job_id] for job_id in ids)

    def _counted(self, query: JobQuery) -> int:
        return sum(
            jobs
            for (tenant, workflow, status), jobs in self._counts.items()
            if query.tenant in (None, tenant)
            and query.workflow in (None, workflow)
            and status in (query.statuses or JobStatus)
        )

    def pending(self, *, max_cores: int, limit: int, tenant: str | None = None) -> Sequence[Job]:
        with self._lock:
            self._require_open()
            jobs = (self._jobs[job_id] for job_id in self._by_status[JobStatus.PENDING].values())
            fitting = (job for job in jobs if job.spec.cores <= max_cores and tenant in (None, job.tenant))
            return heapq.nsmallest(limit, fitting, key=lambda job: (-job.spec.priority, job.seq))

    def queue_places(self, jobs: Sequence[Job]) -> Mapping[str, int]:
        asked: dict[str, list[tuple[int, int, str]]] = {}
        for job in jobs:
            if job.status is JobStatus.PENDING:
                asked.setdefault(job.tenant, []).append((-job.spec.priority, job.seq, job.id))
        places: dict[str, int] = {}
        with self._lock:
            self._require_open()
            pending = [self._jobs[job_id] for job_id in self._by_status[JobStatus.PENDING].values()]
        for tenant, wanted in asked.items():
            order = sorted((-job.spec.priority, job.seq) for job in pending if job.tenant == tenant)
            for priority, seq, job_id in wanted:
                places[job_id] = bisect_left(order, (priority, seq)) + 1
        return places

    def waiting_tenants(self) -> Mapping[str, int]:
        fewest: dict[str, int] = {}
        with self._lock:
            self._require_open()
            for job_id in self._by_status[JobStatus.PENDING].values():
                job = self._jobs[job_id]
                fewest[job.tenant] = min(fewest.get(job.tenant, job.spec.cores), job.spec.cores)
        return fewest

    def running(self) -> Sequence[Job]:
        with self._lock:
            self._require_open()
            return [self._jobs[job_id] for _, job_id in sorted(self._by_status[JobStatus.RUNNING].items())]

    def has_workflow_version(self, version: str) -> bool:
        with self._lock:
            self._require_open()
            return any(job.workflow_version == version for job in self._jobs.values())

    def counts(self, *, tenant: str | None = None) -> Mapping[JobStatus, int]:
        found = dict.fromkeys(JobStatus, 0)
        with self._lock:
            self._require_open()
            for (of, _, status), jobs in self._counts.items():
                if tenant in (None, of):
                    found[status] += jobs
        return found

    def counts_by_workflow(self) -> Mapping[tuple[str, JobStatus], int]:
        found: Counter[tuple[str, JobStatus]] = Counter()
        with self._lock:
            self._require_open()
            for (_, workflow, status), jobs in self._counts.items():
                if jobs:
                    found[workflow, status] += jobs
        return found

    def pending_since(self) -> datetime | None:
        with self._lock:
            self._require_open()
            pending = self._by_status[JobStatus.PENDING].values()
            return min((self._jobs[job_id].updated_at for job_id in pending), default=None)

    def _tenants_with_jobs(self) -> set[str]:
        return {tenant for (tenant, _, _), jobs in self._counts.items() if jobs}

    def ended(self, *, after: EndedJob | None = None, limit: int = 500) -> Sequence[EndedJob]:
        with self._lock:
            self._require_open()
            start = 0 if after is None else bisect_right(self._ended, (after.completed_at, after.seq))
            return [
                EndedJob(
                    seq, self._ids[seq], completed_at, self._ceilings[seq], self._jobs[self._ids[seq]].tenant
                )
                for completed_at, seq in self._ended[start : start + limit]
            ]

    def leftovers(self, *, after: str = "", limit: int = 500) -> Sequence[str]:
        with self._lock:
            self._require_open()
            return heapq.nsmallest(limit, (job_id for job_id in self._leftovers if job_id > after))

    def events(
        self, *, job_id: str | None = None, tenant: str | None = None, after_seq: int = 0, limit: int = 500
    ) -> Sequence[JobEvent]:
        with self._lock:
            self._require_open()
            start = bisect_right(self._events, after_seq, key=lambda event: event.seq)
            found = (
                event
                for event in map(self._events.__getitem__, range(start, len(self._events)))
                if event.job_id not in self._eventless
                and job_id in (None, event.job_id)
                and tenant in (None, event.tenant)
            )
            return list(islice(found, limit))

    def newest_event(self, *, tenant: str | None = None) -> int:
        with self._lock:
            self._require_open()
            if tenant is None:
                return self._last_event
            return next((event.seq for event in reversed(self._events) if event.tenant == tenant), 0)

    def briefs(self, job_ids: Sequence[str]) -> Mapping[str, JobBrief]:
        with self._lock:
            self._require_open()
            return {job_id: _brief(self._jobs[job_id]) for job_id in job_ids if job_id in self._jobs}

    # ------------------------------------------------------------ condition

    def check(self) -> None:
        with self._lock:
            self._require_open()


def _brief(job: Job) -> JobBrief:
    shared = {field.name: getattr(job, field.name) for field in fields(JobBrief) if hasattr(job, field.name)}
    return JobBrief(**shared, workflow=job.spec.workflow, name=job.spec.name)


def _matches(job: Job, query: JobQuery) -> bool:
    spec = job.spec
    return (
        query.tenant in (None, job.tenant)
        and (not query.statuses or job.status in query.statuses)
        and query.workflow in (None, spec.workflow)
        and all(spec.labels.get(key) == value for key, value in query.labels)
        and (not query.q or matches(query.q, job_id=job.id, name=spec.name))
        and (query.created_after is None or job.created_at > query.created_after)
        and (query.created_before is None or job.created_at < query.created_before)
    )


def _is_behind(job: Job, query: JobQuery) -> bool:
    if query.after_seq is None:
        return True
    return job.seq < query.after_seq if query.order == "desc" else job.seq > query.after_seq

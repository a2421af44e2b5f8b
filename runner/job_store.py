"""The interface to where jobs are stored, and the values it takes and gives; all stores keep one contract."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from runner.access import DEFAULT_TENANT
from runner.jobs import JobStatus

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from concurrent.futures import Future
    from datetime import datetime

    from runner.access import AuditRecord, Quota
    from runner.jobs import Change, Job, JobEvent, Progress, Reason
    from runner.trace_context import JobTrace

Order = Literal["desc", "asc"]


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """The caller's key, known within its tenant, and a digest of the body it came with."""

    key: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Submitted:
    job: Job
    replayed: bool


@dataclass(frozen=True, slots=True)
class Admission:
    """The limits that a job must keep to become pending; what each means is told at `JobStore.add`."""

    max_pending: int | None = None
    quota: Quota | None = None
    used_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Update:
    """One compare-and-set: store `after` if the stored version is still `before.version`."""

    before: Job
    after: Job
    kind: Change
    data: Mapping[str, Any] = field(default_factory=dict)
    audit: AuditRecord | None = None  # of who asked for it; stored by the same commit
    admission: Admission | None = None


@dataclass(frozen=True, slots=True)
class JobQuery:
    """A page of jobs. Statuses are alternatives; everything else must hold together.

    `q` matches a part of the name in any case; one or two characters match the beginning of a name
    only. From eight characters on it also matches the beginning of the id (ids begin with the time, so
    fewer would match nearly every job). No character in it has a special meaning. Jobs created exactly
    at `created_after` or `created_before` are left out. `after_seq` is the last `seq` of the page before:
    the page continues behind it in `order` of submission. Without a `tenant` it is of all tenants' jobs.
    """

    tenant: str | None = None
    statuses: tuple[JobStatus, ...] = ()
    workflow: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    q: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    order: Order = "desc"
    limit: int = 50
    after_seq: int | None = None


@dataclass(frozen=True, slots=True)
class JobPage:
    """`total` is exact when filtered by status and workflow alone; any other filter counts only so far.

    `total_is_exact` tells which. Not exact, it is a lower bound: 10,000 for labels or times, 5,000 for
    `q`, and fewer for several of these together, where the store stops looking before it has seen all.
    """

    items: tuple[Job, ...]
    total: int
    total_is_exact: bool
    has_more: bool


@dataclass(frozen=True, slots=True)
class EndedJob:
    """An ended job in short, for walking very many of them in the order of their ends.

    `created_ceiling` is the latest `created_at` of this job and all submitted before it. It is later
    than `completed_at` only where the clock was wrong at one of the two.
    """

    seq: int
    id: str
    completed_at: datetime
    created_ceiling: datetime
    tenant: str = DEFAULT_TENANT


@dataclass(frozen=True, slots=True)
class JobBrief:
    """A job in short, for telling of its changes: without what was asked for, which may be large."""

    id: str
    status: JobStatus
    reason: Reason | None
    workflow: str
    name: str | None
    attempt: int
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    exit_code: int | None
    exit_signal: int | None
    error_message: str | None
    progress: Progress | None
    owner: str
    tenant: str
    trace: JobTrace | None


class JobStore(Protocol):
    """Thread-safe and durable: a write's future resolves after its commit, and never before.

    Every write appends its event rows in the same transaction; `on_commit` (a constructor argument)
    is called with them afterwards, in order, on the writer's thread. A row that tells progress is kept
    only until the job's next one, so that a long run has a few rows and not a million. Every method may raise
    StoreUnavailable; writes may raise StorageFull. A future that raises changed nothing.

    A `tenant` limits an answer to its jobs, for those of others are as if they were not there; None
    asks for all.
    """

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
        """Store a new job; the answer carries its `seq`.

        A key that the job's tenant has used, with the same fingerprint, answers the job it made, as
        replayed. The future raises IdempotencyMismatch for another fingerprint, QueueFull when
        `max_pending` jobs are pending, and what `quotas.require_room` raises: `quota` holds where the
        tenant's own says nothing, and without one no limit does.
        """

    def update(self, updates: Sequence[Update]) -> Future[list[Job | None]]:
        """Apply each update in one transaction; None in the answer for each that lost its race.

        The future raises what `add` raises for one beyond the limits of its `admission`, and none is applied.
        """

    def delete(self, job: Job, *, audit: AuditRecord | None = None) -> Future[bool]:
        """Remove the job, its events and its idempotency key; False when its version has changed.

        The same commit puts its id among the `leftovers`. What the audit says of it stays.
        """

    def forget_leftovers(self, job_ids: Sequence[str]) -> Future[None]:
        """Nothing of these deleted jobs is left on the disk; ids that are no leftovers are no error."""

    def get(self, job_id: str, *, tenant: str | None = None) -> Job:
        """Raises JobNotFound."""

    def list(self, query: JobQuery) -> JobPage:
        """Of very large jobs fewer than asked for; of any job the trace may be left out."""

    def pending(self, *, max_cores: int, limit: int, tenant: str | None = None) -> Sequence[Job]:
        """Pending jobs that need at most `max_cores`, highest priority first, then oldest."""

    def queue_places(self, jobs: Sequence[Job]) -> Mapping[str, int]:
        """By id, the place of each pending one of these in the order of its tenant's `pending`; 1 is next.

        One that has started meanwhile is told the place that it would have.
        """

    def waiting_tenants(self) -> Mapping[str, int]:
        """Every tenant with a pending job, and the fewest cores that one of them needs. Takes no scan."""

    def running(self) -> Sequence[Job]: ...

    def has_workflow_version(self, version: str) -> bool:
        """Whether any stored job runs or ran this version of a workflow."""

    def counts(self, *, tenant: str | None = None) -> Mapping[JobStatus, int]:
        """Jobs per status; every status is there. Takes no scan."""

    def counts_by_workflow(self) -> Mapping[tuple[str, JobStatus], int]:
        """Jobs of all tenants by workflow and status, where there are any. Takes no scan."""

    def pending_since(self) -> datetime | None:
        """Since when the pending job that has waited longest has been pending; None when none is.

        Of many that were put back into the queue only the first thousand submitted are looked at.
        """

    def ended(self, *, after: EndedJob | None = None, limit: int = 500) -> Sequence[EndedJob]:
        """Ended jobs, the earliest end first, then by seq; those behind `after`. Takes no scan."""

    def leftovers(self, *, after: str = "", limit: int = 500) -> Sequence[str]:
        """Ids of deleted jobs whose files may still be there, in order; those behind `after`."""

    def events(
        self, *, job_id: str | None = None, tenant: str | None = None, after_seq: int = 0, limit: int = 500
    ) -> Sequence[JobEvent]:
        """Events with a greater `seq`, in order. Those of a deleted job have gone with it. Takes no scan."""

    def newest_event(self, *, tenant: str | None = None) -> int:
        """The `seq` of the newest event, or 0; without a tenant the greatest there has ever been."""

    def briefs(self, job_ids: Sequence[str]) -> Mapping[str, JobBrief]:
        """These jobs in short, by id; those that are gone are left out."""

    def check(self) -> None:
        """Prove that the store can be read and written. Raises StoreUnavailable or StorageFull."""

    def close(self) -> None:
        """Finish the writes already asked for, then release everything. Safe to repeat."""

"""What a job is and how its status may change: frozen values, no I/O."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from runner.access import DEFAULT_TENANT, OPERATOR_NAME
from runner.errors import InvalidTransition
from runner.trace_context import JobTrace

if TYPE_CHECKING:
    from collections.abc import Mapping


class JobStatus(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        return self in TERMINAL


TERMINAL: Final = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED})


class Reason(StrEnum):
    """Why a job ended. Each reason belongs to exactly one terminal status."""

    EXITED_ZERO = "exited_zero"
    EXITED_NONZERO = "exited_nonzero"
    KILLED_BY_SIGNAL = "killed_by_signal"
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    LAUNCH_FAILED = "launch_failed"
    LOST = "lost"
    CANCEL_REQUESTED = "cancel_requested"


STATUS_OF: Final[Mapping[Reason, JobStatus]] = MappingProxyType(
    {
        Reason.EXITED_ZERO: JobStatus.COMPLETED,
        Reason.EXITED_NONZERO: JobStatus.FAILED,
        Reason.KILLED_BY_SIGNAL: JobStatus.FAILED,
        Reason.TIMED_OUT: JobStatus.FAILED,
        Reason.OUT_OF_MEMORY: JobStatus.FAILED,
        Reason.LAUNCH_FAILED: JobStatus.FAILED,
        Reason.LOST: JobStatus.FAILED,
        Reason.CANCEL_REQUESTED: JobStatus.CANCELLED,
    }
)


class Change(StrEnum):
    """The names of everything that can happen to a stored job; also the `kind` of its event."""

    SUBMITTED = "submitted"
    CLAIMED = "claimed"
    CANCEL_REQUESTED = "cancel_requested"
    ENDED = "ended"
    RETRIED = "retried"
    INTERRUPTED = "interrupted"
    PROGRESSED = "progressed"


# The state machine: (status, change) -> the statuses it may lead to. Nothing else changes a status.
TRANSITIONS: Final[Mapping[tuple[JobStatus, Change], frozenset[JobStatus]]] = MappingProxyType(
    {
        (JobStatus.PENDING, Change.CLAIMED): frozenset({JobStatus.RUNNING}),
        (JobStatus.PENDING, Change.CANCEL_REQUESTED): frozenset({JobStatus.CANCELLED}),
        (JobStatus.RUNNING, Change.PROGRESSED): frozenset({JobStatus.RUNNING}),
        (JobStatus.RUNNING, Change.CANCEL_REQUESTED): frozenset({JobStatus.RUNNING}),
        (JobStatus.RUNNING, Change.ENDED): TERMINAL,
        # An automatic retry goes straight back to pending, so that nobody takes a failure for final
        # that is not.
        (JobStatus.RUNNING, Change.RETRIED): frozenset({JobStatus.PENDING}),
        # The service stopped it for its own sake: it resumes at the next start.
        (JobStatus.RUNNING, Change.INTERRUPTED): frozenset({JobStatus.PENDING}),
        (JobStatus.FAILED, Change.RETRIED): frozenset({JobStatus.PENDING}),
        (JobStatus.CANCELLED, Change.RETRIED): frozenset({JobStatus.PENDING}),
    }
)


CORES_NOT_NAMED: Final = 0
"""`JobSpec.cores` of a submission that names none; a stored job has the operator's default."""


UPLOADED: Final = "uploaded"
"""`JobSpec.workflow` of a job that has brought its own; no registered workflow is called so."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that came with the job, as it was sent: an archive may have been unpacked since."""

    name: str  # its path below `input/`
    size_bytes: int
    sha256: str  # 64 hexadecimal digits


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What the caller asked for, validated. It never changes after submission.

    `memory_mb` are MiB for all of the job's processes together.
    """

    workflow: str = "demo"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    targets: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    cores: int = 1
    name: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    priority: int = 0
    timeout_s: float | None = None
    max_retries: int = 0
    retry_lost: bool = False
    memory_mb: int | None = None
    attachments: tuple[Attachment, ...] = ()


@dataclass(frozen=True, slots=True)
class Progress:
    """How many tasks (the engine's own jobs) there are to do, and how many have got where.

    `up_to_date` are those of the workflow that needed no run: they are in none of the others.
    """

    total: int
    done: int = 0
    running: int = 0
    failed: int = 0
    up_to_date: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """What one attempt used, over its whole process tree.

    `cpu_s` is user plus system time. While a job runs the figures are samples; after it has ended CPU
    and I/O are the kernel's accounts (wait4(2), proc_pid_io(5)) and `max_rss_bytes` is the larger of the
    sampled peak of the tree and the kernel's peak of its largest process.
    """

    cpu_s: float
    max_rss_bytes: int
    read_bytes: int
    written_bytes: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended. `exit_code` and `exit_signal` are never both set; both None is unknown.

    `interrupted`: the service stopped it to end itself, and it would have gone on; it is to resume.
    """

    reason: Reason
    ended_at: datetime
    started_at: datetime | None = None
    exit_code: int | None = None
    exit_signal: int | None = None
    error_message: str | None = None
    progress: Progress | None = None
    usage: Usage | None = None
    interrupted: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """A job as the store knows it. `version` counts its changes; `seq` orders jobs by submission."""

    id: str
    spec: JobSpec
    status: JobStatus
    engine: str
    created_at: datetime
    updated_at: datetime
    owner: str = OPERATOR_NAME
    tenant: str = DEFAULT_TENANT
    version: int = 1
    seq: int = 0
    attempt: int = 1
    retries_left: int = 0
    reason: Reason | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    cancel_requested_at: datetime | None = None
    exit_code: int | None = None
    exit_signal: int | None = None
    error_message: str | None = None
    progress: Progress | None = None
    usage: Usage | None = None
    workflow_version: str | None = None  # of what it runs, by content; None for jobs of earlier releases
    workflow_commit: str | None = None  # where that folder comes from git
    trace: JobTrace | None = None  # that it belongs to, if it belongs to one
    isolation: str | None = None  # what keeps the current attempt apart from others; set when it is claimed


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One change of one job. `seq` is the store's own number, growing without reuse."""

    seq: int
    job_id: str
    kind: Change
    status: JobStatus
    attempt: int
    at: datetime
    data: Mapping[str, Any] = field(default_factory=dict)
    tenant: str = DEFAULT_TENANT


def _moved(job: Job, change: Change, status: JobStatus, at: datetime, **fields: Any) -> Job:
    """The one function that changes a status. Raises InvalidTransition when the table has no such row."""
    if status not in TRANSITIONS.get((job.status, change), frozenset()):
        raise InvalidTransition(job.id, job.status.value, change.value)
    return replace(job, status=status, updated_at=max(at, job.updated_at), version=job.version + 1, **fields)


def claimed(job: Job, at: datetime, isolation: str | None = None) -> Job:
    """The job with its cores taken; `started_at` is set here and made exact when the attempt ends."""
    return _moved(job, Change.CLAIMED, JobStatus.RUNNING, at, started_at=at, isolation=isolation)


def cancel_asked(job: Job, at: datetime) -> Job:
    """A pending job is cancelled at once; a running one when its last process is gone.

    Asking a running job twice changes nothing. Raises InvalidTransition when it has ended.
    """
    if job.status is JobStatus.PENDING:
        return _moved(
            job,
            Change.CANCEL_REQUESTED,
            JobStatus.CANCELLED,
            at,
            reason=Reason.CANCEL_REQUESTED,
            cancel_requested_at=at,
            completed_at=max(at, job.created_at),  # the clock may have been set back since
        )
    if job.status is JobStatus.RUNNING and job.cancel_requested_at is not None:
        return job
    return _moved(job, Change.CANCEL_REQUESTED, JobStatus.RUNNING, at, cancel_requested_at=at)


def ended(job: Job, outcome: Outcome) -> Job:
    """The running job with its final outcome."""
    started = outcome.started_at or job.started_at
    return _moved(
        job,
        Change.ENDED,
        STATUS_OF[outcome.reason],
        outcome.ended_at,
        reason=outcome.reason,
        started_at=started,
        completed_at=max(outcome.ended_at, started) if started else outcome.ended_at,
        exit_code=outcome.exit_code,
        exit_signal=outcome.exit_signal,
        error_message=outcome.error_message,
        progress=outcome.progress,
        usage=outcome.usage,
    )


def retried(job: Job, at: datetime, *, automatic: bool = False) -> Job:
    """The job as a new attempt, pending again. A manual retry restores the full number of automatic ones."""
    if not automatic and job.status is JobStatus.RUNNING:
        # The table has the row for the automatic one alone: the attempt that is given up still runs.
        raise InvalidTransition(job.id, job.status.value, Change.RETRIED.value)
    left = job.retries_left - 1 if automatic else job.spec.max_retries
    return _again(job, Change.RETRIED, at, left)


def interrupted(job: Job, at: datetime) -> Job:
    """The job as a new attempt, after the service stopped this one to end itself. It costs no retry."""
    return _again(job, Change.INTERRUPTED, at, job.retries_left)


def _again(job: Job, change: Change, at: datetime, retries_left: int) -> Job:
    return _moved(
        job,
        change,
        JobStatus.PENDING,
        at,
        attempt=job.attempt + 1,
        retries_left=retries_left,
        reason=None,
        started_at=None,
        completed_at=None,
        cancel_requested_at=None,
        exit_code=None,
        exit_signal=None,
        error_message=None,
        progress=None,
        usage=None,
        isolation=None,
    )


def progressed(job: Job, at: datetime, progress: Progress | None, usage: Usage | None) -> Job:
    """The running job with newer figures; None keeps what is there."""
    return _moved(
        job,
        Change.PROGRESSED,
        JobStatus.RUNNING,
        at,
        progress=progress or job.progress,
        usage=usage or job.usage,
    )


def may_retry_by_itself(job: Job, outcome: Outcome) -> bool:
    """Whether `max_retries` covers this outcome: it failed by itself and was started.

    A lost attempt is covered only if the job says `retry_lost`: nobody knows how far it got, and only
    its author knows whether doing some of it twice does harm.
    """
    return (
        job.retries_left > 0
        and job.cancel_requested_at is None
        and STATUS_OF[outcome.reason] is JobStatus.FAILED
        and outcome.reason is not Reason.LAUNCH_FAILED
        and (outcome.reason is not Reason.LOST or job.spec.retry_lost)
    )

"""Jobs and events to rows and back, exactly."""

from __future__ import annotations

import json
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from runner.errors import StoreUnavailable
from runner.job_store import EndedJob, JobBrief
from runner.jobs import Attachment, Change, Job, JobEvent, JobSpec, JobStatus, Progress, Reason, Usage
from runner.stores.names import folded
from runner.stores.sql.schema import JOB_SPECS, JOBS
from runner.stores.sql.sqlite import REMEDY
from runner.trace_context import JobTrace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.job_store import IdempotencyKey

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_STATUSES: Final = {s.value: s for s in JobStatus}
_REASONS: Final[dict[str | None, Reason | None]] = {None: None, **{r.value: r for r in Reason}}
_CHANGES: Final = {c.value: c for c in Change}
_UNREADABLE: Final = (ValueError, KeyError, TypeError, OverflowError)
_dumps: Final = json.JSONEncoder(separators=(",", ":")).encode
_counts_of: Final = attrgetter(*(field.name for field in fields(Progress)))  # astuple copies deeply

# The columns of a job as `job_of` takes them, in this order.
JOB_COLUMNS: Final = (
    JOBS.c.seq,
    JOBS.c.id,
    JOBS.c.version,
    JOBS.c.status,
    JOBS.c.reason,
    JOBS.c.workflow,
    JOBS.c.name,
    JOBS.c.engine,
    JOBS.c.cores,
    JOBS.c.priority,
    JOBS.c.timeout_s,
    JOBS.c.max_retries,
    JOBS.c.retries_left,
    JOBS.c.attempt,
    JOBS.c.created_at,
    JOBS.c.updated_at,
    JOBS.c.started_at,
    JOBS.c.completed_at,
    JOBS.c.cancel_requested_at,
    JOBS.c.exit_code,
    JOBS.c.exit_signal,
    JOBS.c.error_message,
    JOBS.c.progress,
    JOBS.c.usage,
    JOBS.c.owner,
    JOBS.c.tenant,
    JOBS.c.isolation,
    JOBS.c.workflow_version,
    JOBS.c.workflow_commit,
    JOBS.c.trace,
    JOB_SPECS.c.spec,
)
# Those of `brief_of`.
BRIEF_COLUMNS: Final = (
    JOBS.c.id,
    JOBS.c.status,
    JOBS.c.reason,
    JOBS.c.workflow,
    JOBS.c.name,
    JOBS.c.attempt,
    JOBS.c.created_at,
    JOBS.c.updated_at,
    JOBS.c.started_at,
    JOBS.c.completed_at,
    JOBS.c.exit_code,
    JOBS.c.exit_signal,
    JOBS.c.error_message,
    JOBS.c.progress,
    JOBS.c.owner,
    JOBS.c.tenant,
    JOBS.c.trace,
)


def micros(at: datetime) -> int:
    """Whole microseconds since the epoch; integers all the way, so nothing is rounded."""
    return (at - _EPOCH) // _MICROSECOND


def moment(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=us)


def _micros_or_none(at: datetime | None) -> int | None:
    return None if at is None else (at - _EPOCH) // _MICROSECOND


def _moment_or_none(us: int | None) -> datetime | None:
    return None if us is None else _EPOCH + timedelta(microseconds=us)


def _progress_text(progress: Progress | None) -> str | None:
    if progress is None:
        return None
    return _dumps(_counts_of(progress))


def _usage_text(usage: Usage | None) -> str | None:
    if usage is None:
        return None
    return _dumps([usage.cpu_s, usage.max_rss_bytes, usage.read_bytes, usage.written_bytes])


def _trace_text(trace: JobTrace | None) -> str | None:
    if trace is None:
        return None
    began = _micros_or_none(trace.asked_at)
    return _dumps([trace.trace_id, trace.parent_id, trace.flags, trace.state, began])


def _trace_of(text: str) -> JobTrace:
    trace_id, parent_id, flags, state, asked_at = json.loads(text)
    return JobTrace(trace_id, parent_id, flags, state, _moment_or_none(asked_at))


def changing_values(job: Job) -> dict[str, Any]:
    """The columns that an update may change."""
    return {
        "version": job.version,
        "status": job.status.value,
        "reason": None if job.reason is None else job.reason.value,
        "retries_left": job.retries_left,
        "attempt": job.attempt,
        "updated_at": micros(job.updated_at),
        "started_at": _micros_or_none(job.started_at),
        "completed_at": _micros_or_none(job.completed_at),
        "cancel_requested_at": _micros_or_none(job.cancel_requested_at),
        "exit_code": job.exit_code,
        "exit_signal": job.exit_signal,
        "error_message": job.error_message,
        "progress": _progress_text(job.progress),
        "usage": _usage_text(job.usage),
        "isolation": job.isolation,
    }


def job_values(job: Job, key: IdempotencyKey | None, created_ceiling: int) -> dict[str, Any]:
    """Every column of `jobs` but `seq`."""
    spec = job.spec
    values = changing_values(job)
    values.update(
        id=job.id,
        workflow=spec.workflow,
        name=spec.name,
        name_folded=None if spec.name is None else folded(spec.name),
        engine=job.engine,
        cores=spec.cores,
        priority=spec.priority,
        timeout_s=spec.timeout_s,
        max_retries=spec.max_retries,
        created_at=micros(job.created_at),
        created_ceiling=created_ceiling,
        owner=job.owner,
        tenant=job.tenant,
        workflow_version=job.workflow_version,
        workflow_commit=job.workflow_commit,
        trace=_trace_text(job.trace),
        idempotency_key=None if key is None else key.key,
        idempotency_fingerprint=None if key is None else key.fingerprint,
    )
    return values


def spec_text(spec: JobSpec) -> str:
    """The parts of a spec that nobody searches, as JSON."""
    return _dumps(
        {
            "parameters": dict(spec.parameters),
            "targets": spec.targets,
            "options": dict(spec.options),
            "labels": dict(spec.labels),
            **({"retry_lost": True} if spec.retry_lost else {}),
            **({"memory_mb": spec.memory_mb} if spec.memory_mb is not None else {}),
            **({"attachments": _attachments_plain(spec)} if spec.attachments else {}),
        }
    )


def _attachments_plain(spec: JobSpec) -> list[list[Any]]:
    return [[each.name, each.size_bytes, each.sha256] for each in spec.attachments]


def data_text(data: Any) -> str:
    return _dumps(dict(data)) if data else "{}"


def job_of(row: Sequence[Any], *, with_trace: bool = True) -> Job:
    """Raises StoreUnavailable when the row holds what nobody can have written."""
    try:
        return _job_of(row, with_trace=with_trace)
    except _UNREADABLE as error:
        raise StoreUnavailable(f"The row of job {row[1]!r} is damaged: {REMEDY}.") from error


def _job_of(row: Sequence[Any], *, with_trace: bool) -> Job:
    (
        seq,
        job_id,
        version,
        status,
        reason,
        workflow,
        name,
        engine,
        cores,
        priority,
        timeout_s,
        max_retries,
        retries_left,
        attempt,
        created_at,
        updated_at,
        started_at,
        completed_at,
        cancel_requested_at,
        exit_code,
        exit_signal,
        error_message,
        progress,
        usage,
        owner,
        tenant,
        isolation,
        workflow_version,
        workflow_commit,
        trace,
        spec,
    ) = row
    document = json.loads(spec)
    return Job(
        id=job_id,
        spec=JobSpec(
            workflow=workflow,
            parameters=document["parameters"],
            targets=tuple(document["targets"]),
            options=document["options"],
            cores=cores,
            name=name,
            labels=document["labels"],
            priority=priority,
            timeout_s=timeout_s,
            max_retries=max_retries,
            retry_lost=document.get("retry_lost", False),
            memory_mb=document.get("memory_mb"),
            attachments=tuple(Attachment(*each) for each in document.get("attachments", ())),
        ),
        status=_STATUSES[status],
        engine=engine,
        created_at=moment(created_at),
        updated_at=moment(updated_at),
        version=version,
        seq=seq,
        attempt=attempt,
        retries_left=retries_left,
        reason=_REASONS[reason],
        started_at=_moment_or_none(started_at),
        completed_at=_moment_or_none(completed_at),
        cancel_requested_at=_moment_or_none(cancel_requested_at),
        exit_code=exit_code,
        exit_signal=exit_signal,
        error_message=error_message,
        progress=None if progress is None else Progress(*json.loads(progress)),
        usage=None if usage is None else Usage(*json.loads(usage)),
        owner=owner,
        tenant=tenant,
        isolation=isolation,
        workflow_version=workflow_version,
        workflow_commit=workflow_commit,
        trace=_trace_of(trace) if with_trace and trace is not None else None,
    )


def brief_of(row: Sequence[Any]) -> JobBrief:
    """Raises StoreUnavailable as `job_of` does."""
    try:
        return _brief_of(row)
    except _UNREADABLE as error:
        raise StoreUnavailable(f"The row of job {row[0]!r} is damaged: {REMEDY}.") from error


def _brief_of(row: Sequence[Any]) -> JobBrief:
    job_id, status, reason, workflow, name, attempt, *times = row[:10]
    created_at, updated_at, started_at, completed_at = times
    exit_code, exit_signal, error_message, progress, owner, tenant, trace = row[10:]
    return JobBrief(
        id=job_id,
        status=_STATUSES[status],
        reason=_REASONS[reason],
        workflow=workflow,
        name=name,
        attempt=attempt,
        created_at=moment(created_at),
        updated_at=moment(updated_at),
        started_at=_moment_or_none(started_at),
        completed_at=_moment_or_none(completed_at),
        exit_code=exit_code,
        exit_signal=exit_signal,
        error_message=error_message,
        progress=None if progress is None else Progress(*json.loads(progress)),
        owner=owner,
        tenant=tenant,
        trace=None if trace is None else _trace_of(trace),
    )


def event_of(row: Sequence[Any]) -> JobEvent:
    """Raises StoreUnavailable as `job_of` does."""
    try:
        return _event_of(row)
    except _UNREADABLE as error:
        raise StoreUnavailable(f"The row of event {row[0]!r} is damaged: {REMEDY}.") from error


def _event_of(row: Sequence[Any]) -> JobEvent:
    seq, job_id, kind, status, attempt, at, data, tenant = row
    return JobEvent(
        seq=seq,
        job_id=job_id,
        kind=_CHANGES[kind],
        status=_STATUSES[status],
        attempt=attempt,
        at=moment(at),
        data={} if data == "{}" else json.loads(data),
        tenant=tenant,
    )


def ended_job_of(row: Sequence[Any]) -> EndedJob:
    seq, job_id, completed_at, created_ceiling, tenant = row
    return EndedJob(seq, job_id, moment(completed_at), moment(created_ceiling), tenant)

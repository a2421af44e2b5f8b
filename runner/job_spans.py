"""From what the store keeps of an attempt to the spans that tell of it.

Nothing is kept open meanwhile: the times are those of the job's events, so a restart in between, or a
kill -9, changes nothing.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final

from runner.jobs import STATUS_OF, Change, JobStatus, Reason
from runner.spans import Span
from runner.trace_context import RUN, JobTrace, TraceContext, span_id_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runner.job_store import JobBrief
    from runner.jobs import JobEvent

SUBMIT: Final = "submit"
_ATTEMPT: Final = "job"
_QUEUED: Final = frozenset({Change.SUBMITTED, Change.RETRIED, Change.INTERRUPTED})


def ended_attempt(event: JobEvent) -> int | None:
    """The attempt whose end the event tells of, if it does."""
    match event.kind:
        case Change.ENDED:
            return event.attempt
        case Change.RETRIED | Change.INTERRUPTED if "reason" in event.data:
            return event.attempt - 1
        case Change.CANCEL_REQUESTED if event.status is JobStatus.CANCELLED:
            return event.attempt
        case _:
            return None


def spans_of(job: JobBrief, trace: JobTrace, events: Sequence[JobEvent], end: JobEvent) -> Iterator[Span]:
    """The spans of the attempt that `end` ended; with the first attempt that of the submission.

    `events` are the job's, from the first on.
    """
    attempt = ended_attempt(end)
    assert attempt is not None
    queued = next((e.at for e in events if e.kind in _QUEUED and e.attempt == attempt), job.created_at)
    claimed = next((e.at for e in events if e.kind is Change.CLAIMED and e.attempt == attempt), None)
    if attempt == 1:
        yield _submitted(job, trace)
    yield from _Attempt(job, trace, attempt, end).spans(queued, claimed)


def _submitted(job: JobBrief, trace: JobTrace) -> Span:
    assert trace.asked_at is not None
    return Span(
        name=SUBMIT,
        context=_context(trace, job.id, 1, SUBMIT),
        parent_id=trace.parent_id,
        started_at=min(trace.asked_at, job.created_at),
        ended_at=job.created_at,
        attributes=_attributes(job, 1),
        is_entry=True,
    )


def _context(trace: JobTrace, job_id: str, attempt: int, name: str) -> TraceContext:
    return TraceContext(trace.trace_id, span_id_of(job_id, attempt, name), trace.flags, trace.state)


def _attributes(job: JobBrief, attempt: int) -> dict[str, str | int]:
    return {
        "snakeline.job.id": job.id,
        "snakeline.job.attempt": attempt,
        "snakeline.job.workflow": job.workflow,
        "snakeline.job.tenant": job.tenant,
    }


class _Attempt:
    def __init__(self, job: JobBrief, trace: JobTrace, attempt: int, end: JobEvent) -> None:
        self._job = job
        self._trace = trace
        self._number = attempt
        data = end.data
        self._started = _moment(data.get("started_at"))
        self._ended = _moment(data.get("ended_at")) or end.at
        self._recorded = _moment(data.get("recorded_at")) or end.at
        reason = data.get("reason", Reason.CANCEL_REQUESTED.value)
        self._error = reason if STATUS_OF[Reason(reason)] is JobStatus.FAILED else None
        self._outcome: dict[str, str | int] = {"snakeline.job.reason": reason}
        for name in ("exit_code", "exit_signal"):
            if data.get(name) is not None:
                self._outcome[f"snakeline.job.{name}"] = data[name]

    def spans(self, queued: datetime, claimed: datetime | None) -> Iterator[Span]:
        top = span_id_of(self._job.id, 1, SUBMIT)
        last = max(queued, self._ended, self._recorded)
        yield self._span(_ATTEMPT, f"{_ATTEMPT} {self._job.workflow}", top, queued, last, told=True)
        parent = span_id_of(self._job.id, self._number, _ATTEMPT)
        if claimed is None:
            yield self._span("queue", "queue", parent, queued, last)
            return
        yield self._span("queue", "queue", parent, queued, claimed)
        if self._started is None:
            yield self._span("launch", "launch", parent, claimed, self._ended, told=True)
        else:
            yield self._span("launch", "launch", parent, claimed, self._started)
            yield self._span(RUN, RUN, parent, self._started, self._ended, told=True)
        yield self._span("exit", "exit", parent, self._ended, self._recorded)

    def _span(
        self, key: str, name: str, parent: str, start: datetime, end: datetime, *, told: bool = False
    ) -> Span:
        attributes = _attributes(self._job, self._number)
        return Span(
            name=name,
            context=_context(self._trace, self._job.id, self._number, key),
            parent_id=parent,
            started_at=start,
            ended_at=max(start, end),  # the shim's clock and ours may have been set meanwhile
            attributes={**attributes, **self._outcome} if told else attributes,
            error=self._error if told else None,
        )


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)

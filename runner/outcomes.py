"""From what was observed of an attempt to how the job ended: exact, and never invented."""

from __future__ import annotations

import signal
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from runner.job_store import Update
from runner.jobs import (
    STATUS_OF,
    Change,
    JobStatus,
    Outcome,
    Reason,
    Usage,
    ended,
    interrupted,
    may_retry_by_itself,
    retried,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.attempt_files import ExitRecord
    from runner.jobs import Job, Progress


_MESSAGE_CHARS = 16_384
_AT_LIMIT = 0.9
"""A job whose peak stayed below this share of its own limit was killed for the machine's sake."""


def reason_of(record: ExitRecord, *, cancel_requested: bool) -> Reason:
    """Why the attempt ended.

    What it was stopped for counts only when the signal was sent before the engine ended: an exit that
    beats the signal keeps its own result. A stop that nobody asked this service for is a signal from
    outside, and told as what it did.
    """
    if record.launch_error is not None:
        return Reason.OUT_OF_MEMORY if record.oom_kills else Reason.LAUNCH_FAILED
    if record.stopped == "timeout":
        return Reason.TIMED_OUT
    if record.stopped in ("cancel", "interrupt") and cancel_requested:
        return Reason.CANCEL_REQUESTED
    return _own_end(record)


def _own_end(record: ExitRecord) -> Reason:
    if record.exit_code == 0:
        return Reason.EXITED_ZERO
    if _ran_out_of_memory(record):
        return Reason.OUT_OF_MEMORY
    if record.exit_signal is not None:
        return Reason.KILLED_BY_SIGNAL
    return Reason.EXITED_NONZERO if record.exit_code is not None else Reason.LOST


def _ran_out_of_memory(record: ExitRecord) -> bool:
    """Whether that is why it failed, so far as anything was stopped at all by then.

    Known where the shim ended it for its memory, or the kernel killed a process of the job. Where the
    kernel does not count these by job, an engine that somebody unknown killed while the kernel killed for
    lack of memory is taken for one of those, and the message names the evidence.
    """
    if record.stopped == "memory":
        return True
    if record.stopped is not None:
        return False
    return record.oom_kills > 0 or (record.exit_signal == signal.SIGKILL and record.machine_oom_kills > 0)


def outcome_of(
    job: Job,
    record: ExitRecord,
    *,
    explained: str | None,
    progress: Progress | None,
    sampled_rss_bytes: int,
    failed_at: Sequence[float] = (),
) -> Outcome:
    """The outcome of a recorded attempt; `explained` is what the engine says of a failure.

    `failed_at` is when each failed task of the progress has failed, in seconds since the epoch.
    """
    reason = reason_of(record, cancel_requested=job.cancel_requested_at is not None)
    if progress is not None and reason is Reason.CANCEL_REQUESTED and job.cancel_requested_at is not None:
        stopped_at = job.cancel_requested_at.timestamp()
        stopped = sum(at >= stopped_at for at in failed_at)
        progress = replace(progress, failed=progress.failed - stopped)
    return Outcome(
        reason=reason,
        started_at=datetime.fromtimestamp(record.started_at, UTC),
        ended_at=datetime.fromtimestamp(record.ended_at, UTC),
        exit_code=record.exit_code,
        exit_signal=record.exit_signal,
        error_message=_message(job, record, reason, explained, sampled_rss_bytes),
        progress=_at_rest(progress, reason, record.stopped),
        usage=Usage(
            cpu_s=record.cpu_s,
            max_rss_bytes=max(record.max_rss_bytes, sampled_rss_bytes),
            read_bytes=record.read_bytes,
            written_bytes=record.written_bytes,
        ),
        interrupted=record.stopped == "interrupt"
        and record.launch_error is None
        and STATUS_OF[reason] is JobStatus.FAILED,
    )


def _at_rest(progress: Progress | None, reason: Reason, stopped: str | None = None) -> Progress | None:
    """Nothing runs any more, whatever the events of a killed run told last: it has failed, or was stopped."""
    if progress is None:
        return None
    has_failed = STATUS_OF[reason] is JobStatus.FAILED and stopped != "interrupt"
    return replace(progress, running=0, failed=progress.failed + (progress.running if has_failed else 0))


def _message(
    job: Job, record: ExitRecord, reason: Reason, explained: str | None, sampled_rss_bytes: int
) -> str | None:
    match reason:
        case Reason.EXITED_ZERO:
            text = explained
        case Reason.CANCEL_REQUESTED:
            text = None
        case Reason.LAUNCH_FAILED:
            text = record.launch_error
        case Reason.TIMED_OUT:
            text = f"Stopped after {job.spec.timeout_s:g} s, the job's timeout."
        case Reason.OUT_OF_MEMORY:
            text = "\n".join(filter(None, (_shortage(job, record, sampled_rss_bytes), explained)))
        case Reason.KILLED_BY_SIGNAL:
            text = explained or f"The engine was killed by {_signal_name(record.exit_signal)}."
        case Reason.LOST:
            text = "It was stopped from outside before the engine was started."
        case _:
            text = explained or f"The engine exited with {record.exit_code}; see the log."
            if record.machine_oom_kills:
                text += (
                    f"\nWhile it ran {_killed(record.machine_oom_kills)} on this machine for lack of memory."
                )
    if record.survivors:
        note = f"{record.survivors} processes of the job could not be killed and still run."
        text = f"{text} {note}" if text else note
    return _storable(text) if text else None


def _shortage(job: Job, record: ExitRecord, sampled_rss_bytes: int) -> str:
    """Whose memory was not enough, how much of it the job took, and what to do."""
    limit_mb = job.spec.memory_mb
    peak_mb = (record.memory_peak_bytes or max(record.max_rss_bytes, sampled_rss_bytes)) >> 20
    took = f"It took {peak_mb} MiB at most"
    is_at_limit = (
        not record.memory_peak_bytes or record.memory_peak_bytes >= _AT_LIMIT * (limit_mb or 0) * 2**20
    )
    if limit_mb is not None and (record.stopped == "memory" or (record.oom_kills and is_at_limit)):
        took += f"; {_killed(record.oom_kills)}" if record.oom_kills else ""
        return f"The job needs more than its {limit_mb} MiB of memory. {took}. Give it a larger memory_mb."
    advice = "Run fewer jobs at once, or give those that need much a memory_mb."
    if record.oom_kills:
        return f"The machine ran out of memory: {_killed(record.oom_kills)} of the job. {took}. {advice}"
    return (
        "The engine was killed by SIGKILL, and not by this service; meanwhile "
        f"{_killed(record.machine_oom_kills)} on this machine for lack of memory (oom_kill in /proc/vmstat), "
        f"most likely this one. {took}. {advice}"
    )


def _killed(count: int) -> str:
    return "the kernel killed a process" if count == 1 else f"the kernel killed {count} processes"


def _storable(text: str) -> str:
    """Much of it was written by the job: no NUL, no lone surrogate, not without end."""
    return text[:_MESSAGE_CHARS].replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _signal_name(number: int | None) -> str:
    try:
        return signal.Signals(number or 0).name
    except ValueError:
        return f"signal {number}"


def lost(job: Job, detail: str, *, progress: Progress | None) -> Outcome:
    """Nobody knows how it ended: no exit code, no signal."""
    return Outcome(
        reason=Reason.LOST,
        started_at=job.started_at,
        ended_at=datetime.now(UTC),
        error_message=_storable(
            f"How the job ended is not known: {detail}. A retry continues where it stopped."
        ),
        progress=_at_rest(progress, Reason.LOST),
    )


def cancelled_before_start() -> Outcome:
    """The cancel came before anything of the attempt was launched."""
    return Outcome(reason=Reason.CANCEL_REQUESTED, ended_at=datetime.now(UTC))


def launch_failed(detail: str) -> Outcome:
    """Nothing of the attempt ever ran."""
    return Outcome(reason=Reason.LAUNCH_FAILED, ended_at=datetime.now(UTC), error_message=detail)


def update_for(job: Job, outcome: Outcome) -> Update:
    """The end of an attempt: of the job as well, or back to the queue.

    Back go what the service itself stopped, and what failed while `max_retries` covers it.
    """
    told = {
        "reason": outcome.reason.value,
        "exit_code": outcome.exit_code,
        "exit_signal": outcome.exit_signal,
        "error_message": outcome.error_message,
        "started_at": outcome.started_at.isoformat() if outcome.started_at else None,
        "ended_at": outcome.ended_at.isoformat(),
        "recorded_at": datetime.now(UTC).isoformat(),
    }
    if outcome.interrupted:
        return Update(job, interrupted(job, outcome.ended_at), Change.INTERRUPTED, told)
    if may_retry_by_itself(job, outcome):
        return Update(job, retried(job, outcome.ended_at, automatic=True), Change.RETRIED, told)
    return Update(job, ended(job, outcome), Change.ENDED, told)

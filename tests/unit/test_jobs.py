"""The transition table: what may happen to a job in each status, and what becomes of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from runner.errors import InvalidTransition
from runner.jobs import (
    STATUS_OF,
    TERMINAL,
    TRANSITIONS,
    Change,
    Job,
    JobSpec,
    JobStatus,
    Outcome,
    Progress,
    Reason,
    Usage,
    cancel_asked,
    claimed,
    ended,
    interrupted,
    may_retry_by_itself,
    progressed,
    retried,
)

if TYPE_CHECKING:
    from collections.abc import Callable

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
LATER = NOON + timedelta(minutes=1)
USAGE = Usage(cpu_s=1.5, max_rss_bytes=1, read_bytes=2, written_bytes=3)


def a_job(status: JobStatus = JobStatus.PENDING, **fields: object) -> Job:
    job = Job(
        id="j",
        spec=JobSpec(max_retries=2),
        status=status,
        engine="mock",
        created_at=NOON,
        updated_at=NOON,
        retries_left=2,
    )
    return replace(job, **fields)  # type: ignore[arg-type]


def outcome(reason: Reason = Reason.EXITED_ZERO, **fields: object) -> Outcome:
    return Outcome(reason, LATER, **fields)  # type: ignore[arg-type]


STEPS: dict[Change, Callable[[Job], Job]] = {
    Change.CLAIMED: lambda job: claimed(job, LATER),
    Change.CANCEL_REQUESTED: lambda job: cancel_asked(job, LATER),
    Change.ENDED: lambda job: ended(job, outcome()),
    Change.RETRIED: lambda job: retried(job, LATER, automatic=job.status is JobStatus.RUNNING),
    Change.INTERRUPTED: lambda job: interrupted(job, LATER),
    Change.PROGRESSED: lambda job: progressed(job, LATER, Progress(2, 1), USAGE),
}
# Written out once more, on purpose: a slip in the table must not go unnoticed.
ALLOWED = {
    (JobStatus.PENDING, Change.CLAIMED): JobStatus.RUNNING,
    (JobStatus.PENDING, Change.CANCEL_REQUESTED): JobStatus.CANCELLED,
    (JobStatus.RUNNING, Change.CANCEL_REQUESTED): JobStatus.RUNNING,
    (JobStatus.RUNNING, Change.PROGRESSED): JobStatus.RUNNING,
    (JobStatus.RUNNING, Change.ENDED): JobStatus.COMPLETED,
    (JobStatus.RUNNING, Change.RETRIED): JobStatus.PENDING,
    (JobStatus.RUNNING, Change.INTERRUPTED): JobStatus.PENDING,
    (JobStatus.FAILED, Change.RETRIED): JobStatus.PENDING,
    (JobStatus.CANCELLED, Change.RETRIED): JobStatus.PENDING,
}


@pytest.mark.parametrize("status", JobStatus)
@pytest.mark.parametrize("change", STEPS)
def test_each_change_is_possible_in_just_the_statuses_of_the_table(status: JobStatus, change: Change) -> None:
    job = a_job(status)
    if (status, change) not in ALLOWED:
        with pytest.raises(InvalidTransition) as caught:
            STEPS[change](job)
        assert (caught.value.job_id, caught.value.status, caught.value.change) == (
            "j",
            status.value,
            change.value,
        )
        return
    after = STEPS[change](job)
    assert after.status is ALLOWED[status, change]
    assert after.version == job.version + 1
    assert after.updated_at == LATER


def test_the_table_has_no_other_rows() -> None:
    assert set(TRANSITIONS) == set(ALLOWED)
    assert TRANSITIONS[JobStatus.RUNNING, Change.ENDED] == TERMINAL
    assert all(TRANSITIONS[row] == {ALLOWED[row]} for row in ALLOWED if row[1] is not Change.ENDED)


def test_the_words_are_the_ones_that_callers_know() -> None:
    assert [s.value for s in JobStatus] == ["pending", "running", "completed", "failed", "cancelled"]
    assert {s for s in JobStatus if s.is_terminal} == {
        JobStatus.COMPLETED,
        JobStatus.FAILED,
        JobStatus.CANCELLED,
    }


@pytest.mark.parametrize("reason", Reason)
def test_each_reason_belongs_to_one_terminal_status(reason: Reason) -> None:
    assert STATUS_OF[reason] in TERMINAL
    assert ended(a_job(JobStatus.RUNNING), outcome(reason)).status is STATUS_OF[reason]
    assert ended(a_job(JobStatus.RUNNING), outcome(reason)).reason is reason


def test_a_pending_job_is_cancelled_at_once() -> None:
    job = cancel_asked(a_job(), LATER)
    assert (job.status, job.reason) == (JobStatus.CANCELLED, Reason.CANCEL_REQUESTED)
    assert job.cancel_requested_at == job.completed_at == LATER
    assert job.started_at is None


def test_a_running_job_is_asked_once_and_runs_on_until_it_ends() -> None:
    asked = cancel_asked(a_job(JobStatus.RUNNING, started_at=NOON), LATER)
    assert (asked.status, asked.cancel_requested_at, asked.reason) == (JobStatus.RUNNING, LATER, None)
    assert cancel_asked(asked, LATER + timedelta(seconds=1)) is asked
    assert ended(asked, outcome(exit_code=0)).status is JobStatus.COMPLETED


def test_an_ended_job_holds_its_outcome_and_the_exact_start() -> None:
    exact = NOON + timedelta(milliseconds=3)
    what = outcome(
        Reason.KILLED_BY_SIGNAL,
        started_at=exact,
        exit_signal=9,
        error_message="m",
        progress=Progress(3, 1),
        usage=USAGE,
    )
    job = ended(claimed(a_job(), NOON), what)
    assert (job.started_at, job.completed_at) == (exact, LATER)
    assert (job.exit_code, job.exit_signal, job.error_message) == (None, 9, "m")
    assert (job.progress, job.usage) == (Progress(3, 1), USAGE)
    assert ended(claimed(a_job(), NOON), outcome(Reason.LOST)).started_at == NOON


def test_a_clock_that_jumps_back_never_ends_a_job_before_it_began() -> None:
    earlier = NOON - timedelta(hours=1)
    running = claimed(a_job(), NOON)
    job = ended(running, Outcome(Reason.EXITED_ZERO, earlier))
    assert job.completed_at == NOON
    assert job.updated_at == NOON
    assert cancel_asked(running, earlier).updated_at == NOON


def test_a_clock_that_was_set_back_never_cancels_a_job_before_it_was_submitted() -> None:
    assert cancel_asked(a_job(), NOON - timedelta(days=10)).completed_at == NOON


def test_a_retry_forgets_the_attempt_and_keeps_the_job() -> None:
    failed = ended(
        cancel_asked(claimed(a_job(), NOON), NOON),
        outcome(
            Reason.EXITED_NONZERO,
            exit_code=3,
            exit_signal=None,
            error_message="m",
            progress=Progress(1),
            usage=USAGE,
        ),
    )
    job = retried(failed, LATER)
    assert job == replace(a_job(), attempt=2, version=failed.version + 1, updated_at=LATER)


def test_an_automatic_retry_uses_one_up_and_a_manual_one_restores_them() -> None:
    running = a_job(JobStatus.RUNNING, retries_left=1)
    assert retried(running, LATER, automatic=True).retries_left == 0
    assert retried(a_job(JobStatus.FAILED, retries_left=0), LATER).retries_left == 2


def test_an_interruption_costs_no_retry() -> None:
    job = interrupted(a_job(JobStatus.RUNNING, retries_left=1, started_at=NOON), LATER)
    assert (job.attempt, job.retries_left, job.started_at) == (2, 1, None)


def test_nobody_can_retry_a_job_that_still_runs() -> None:
    with pytest.raises(InvalidTransition, match="only a failed or cancelled job"):
        retried(a_job(JobStatus.RUNNING), LATER)


def test_progress_keeps_what_it_is_not_told() -> None:
    job = progressed(a_job(JobStatus.RUNNING), LATER, Progress(4, 1), None)
    job = progressed(job, LATER, None, USAGE)
    assert (job.progress, job.usage) == (Progress(4, 1), USAGE)


@pytest.mark.parametrize("reason", Reason)
def test_only_a_failure_that_was_started_and_is_known_is_retried_by_itself(reason: Reason) -> None:
    expected = reason in (
        Reason.EXITED_NONZERO,
        Reason.KILLED_BY_SIGNAL,
        Reason.TIMED_OUT,
        Reason.OUT_OF_MEMORY,
    )
    running = a_job(JobStatus.RUNNING)
    assert may_retry_by_itself(running, outcome(reason)) is expected
    with_lost = replace(running, spec=JobSpec(max_retries=2, retry_lost=True))
    assert may_retry_by_itself(with_lost, outcome(reason)) is (expected or reason is Reason.LOST)
    assert not may_retry_by_itself(replace(with_lost, retries_left=0), outcome(reason))
    assert not may_retry_by_itself(replace(running, cancel_requested_at=NOON), outcome(reason))

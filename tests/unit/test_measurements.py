"""Which ends of attempts are run times, and which are ends of jobs."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from runner.jobs import Job, JobStatus, Outcome, Reason, Usage, claimed, ended, interrupted
from runner.measurements import Measurements
from tests.support.stores import NOON, a_job

_USED = Usage(cpu_s=1.0, max_rss_bytes=1, read_bytes=1, written_bytes=1)


def running() -> Job:
    return claimed(a_job(workflow="demo"), NOON)


def outcome(reason: Reason, **changes: object) -> Outcome:
    after = NOON + timedelta(seconds=40)
    return replace(Outcome(reason, ended_at=after, started_at=NOON, usage=_USED), **changes)  # type: ignore[arg-type]


def test_a_run_is_as_long_as_from_its_start_to_its_end() -> None:
    measured = Measurements()
    how = outcome(Reason.EXITED_NONZERO)
    measured.attempt_ended(ended(running(), how), how)
    found = measured.run_time.read()["demo"]
    assert (found.count, found.sum_s) == (1, 40.0)
    assert measured.ended.read() == {("demo", Reason.EXITED_NONZERO): 1}


def test_what_has_not_run_or_ended_unseen_has_no_run_time() -> None:
    measured = Measurements()
    for how in (outcome(Reason.LAUNCH_FAILED), outcome(Reason.LOST, usage=None)):
        measured.attempt_ended(ended(running(), how), how)
    how = outcome(Reason.CANCEL_REQUESTED, started_at=None)
    measured.attempt_ended(ended(running(), how), how)
    assert measured.run_time.read() == {}
    assert measured.ended.read() == {
        ("demo", Reason.LAUNCH_FAILED): 1,
        ("demo", Reason.LOST): 1,
        ("demo", Reason.CANCEL_REQUESTED): 1,
    }


def test_an_attempt_that_the_service_stopped_is_no_end_of_its_job() -> None:
    measured = Measurements()
    how = outcome(Reason.KILLED_BY_SIGNAL, interrupted=True)
    after = interrupted(running(), how.ended_at)
    assert after.status is JobStatus.PENDING
    measured.attempt_ended(after, how)
    assert measured.ended.read() == {}
    assert measured.requeued.read() == {("demo", Reason.KILLED_BY_SIGNAL): 1}

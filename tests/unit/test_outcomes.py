"""From an exit record to the reason of a job's end."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from runner.attempt_files import ExitRecord
from runner.jobs import STATUS_OF, Job, JobSpec, JobStatus, Reason
from runner.outcomes import cancelled_before_start, launch_failed, lost, outcome_of, reason_of

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def record(
    exit_code: int | None = None,
    exit_signal: int | None = None,
    launch_error: str | None = None,
    stopped: str | None = None,
    survivors: int = 0,
) -> ExitRecord:
    return ExitRecord(
        exit_code=exit_code,
        exit_signal=exit_signal,
        launch_error=launch_error,
        stopped=stopped,
        started_at=NOW.timestamp(),
        ended_at=NOW.timestamp() + 2.5,
        cpu_s=1.25,
        max_rss_bytes=1000,
        read_bytes=1,
        written_bytes=2,
        log_bytes=3,
        survivors=survivors,
    )


def job() -> Job:
    return Job(
        id="j",
        spec=JobSpec(timeout_s=90),
        status=JobStatus.RUNNING,
        engine="mock",
        created_at=NOW,
        updated_at=NOW,
        started_at=NOW,
    )


@pytest.mark.parametrize(
    ("given", "cancel_requested", "reason"),
    [
        (record(exit_code=0), False, Reason.EXITED_ZERO),
        (record(exit_code=0), True, Reason.EXITED_ZERO),
        (record(exit_code=1), False, Reason.EXITED_NONZERO),
        (record(exit_code=1), True, Reason.EXITED_NONZERO),
        (record(exit_signal=9), False, Reason.KILLED_BY_SIGNAL),
        (record(exit_signal=9), True, Reason.KILLED_BY_SIGNAL),
        (record(exit_code=1, stopped="cancel"), True, Reason.CANCEL_REQUESTED),
        (record(exit_code=0, stopped="cancel"), True, Reason.CANCEL_REQUESTED),
        (record(exit_signal=9, stopped="cancel"), True, Reason.CANCEL_REQUESTED),
        (record(stopped="cancel"), True, Reason.CANCEL_REQUESTED),
        (record(exit_code=1, stopped="cancel"), False, Reason.EXITED_NONZERO),
        (record(exit_signal=15, stopped="cancel"), False, Reason.KILLED_BY_SIGNAL),
        (record(stopped="cancel"), False, Reason.LOST),
        (record(exit_signal=15, stopped="timeout"), False, Reason.TIMED_OUT),
        (record(exit_code=0, stopped="timeout"), True, Reason.TIMED_OUT),
        (record(stopped="timeout"), False, Reason.TIMED_OUT),
        (record(launch_error="no"), True, Reason.LAUNCH_FAILED),
    ],
)
def test_the_reason_follows_what_happened_first(
    given: ExitRecord, reason: Reason, *, cancel_requested: bool
) -> None:
    assert reason_of(given, cancel_requested=cancel_requested) is reason


def test_an_outcome_keeps_the_code_the_times_and_the_larger_memory() -> None:
    outcome = outcome_of(
        job(), record(exit_code=3), explained="it broke", progress=None, sampled_rss_bytes=5000
    )
    assert (outcome.exit_code, outcome.exit_signal, outcome.error_message) == (3, None, "it broke")
    assert outcome.started_at == NOW
    assert (outcome.ended_at - NOW).total_seconds() == 2.5
    assert outcome.usage is not None
    assert (outcome.usage.cpu_s, outcome.usage.max_rss_bytes) == (1.25, 5000)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (record(exit_code=3), "The engine exited with 3; see the log."),
        (record(exit_signal=11), "The engine was killed by SIGSEGV."),
        (record(exit_signal=40), "The engine was killed by signal 40."),
        (record(exit_signal=15, stopped="timeout"), "Stopped after 90 s, the job's timeout."),
        (record(launch_error="nothing there"), "nothing there"),
        (record(exit_code=0), None),
        (
            record(exit_code=0, survivors=2),
            "2 processes of the job could not be killed and still run.",
        ),
    ],
)
def test_an_end_without_the_engines_words_still_says_what_happened(
    given: ExitRecord, text: str | None
) -> None:
    outcome = outcome_of(job(), given, explained=None, progress=None, sampled_rss_bytes=0)
    assert outcome.error_message == text


def test_a_message_made_of_the_jobs_own_bytes_can_be_stored_and_has_an_end() -> None:
    nasty = "NUL \0, half a pair \ud800, " + "x" * 100_000
    message = outcome_of(
        job(), record(exit_code=1), explained=nasty, progress=None, sampled_rss_bytes=0
    ).error_message
    assert message is not None
    assert message.startswith("NUL \ufffd, half a pair ?, xxx")
    assert len(message.encode()) < 20_000


def test_a_lost_attempt_has_no_code_and_no_signal() -> None:
    outcome = lost(job(), "its record is damaged", progress=None)
    assert (outcome.exit_code, outcome.exit_signal, outcome.usage) == (None, None, None)
    assert outcome.error_message is not None
    assert "its record is damaged" in outcome.error_message


def test_what_never_ran_has_no_start() -> None:
    assert launch_failed("why").started_at is None
    assert cancelled_before_start().started_at is None


def test_every_reason_belongs_to_one_terminal_status() -> None:
    assert set(STATUS_OF) == set(Reason)
    assert all(status.is_terminal for status in STATUS_OF.values())

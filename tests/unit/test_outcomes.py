"""From an exit record to the reason of a job's end."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from runner.attempt_files import ExitRecord
from runner.jobs import STATUS_OF, Job, JobSpec, JobStatus, Progress, Reason
from runner.outcomes import cancelled_before_start, launch_failed, lost, outcome_of, reason_of

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def record(
    exit_code: int | None = None,
    exit_signal: int | None = None,
    launch_error: str | None = None,
    stopped: str | None = None,
    survivors: int = 0,
    oom_kills: int = 0,
    memory_peak_bytes: int = 0,
    machine_oom_kills: int = 0,
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
        oom_kills=oom_kills,
        memory_peak_bytes=memory_peak_bytes,
        machine_oom_kills=machine_oom_kills,
    )


def job(memory_mb: int | None = None) -> Job:
    return Job(
        id="j",
        spec=JobSpec(timeout_s=90, memory_mb=memory_mb),
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
        (record(launch_error="no", oom_kills=1), False, Reason.OUT_OF_MEMORY),
        (record(exit_signal=9, oom_kills=1), False, Reason.OUT_OF_MEMORY),
        (record(exit_code=1, oom_kills=2), False, Reason.OUT_OF_MEMORY),
        (record(exit_signal=9, stopped="memory"), False, Reason.OUT_OF_MEMORY),
        (record(exit_code=0, oom_kills=1), False, Reason.EXITED_ZERO),
        (record(exit_code=0, stopped="memory"), False, Reason.EXITED_ZERO),
        (record(exit_signal=9, stopped="timeout", oom_kills=1), False, Reason.TIMED_OUT),
        (record(exit_signal=9, stopped="cancel", oom_kills=1), True, Reason.CANCEL_REQUESTED),
        (record(exit_signal=9, stopped="cancel", oom_kills=1), False, Reason.KILLED_BY_SIGNAL),
        (record(exit_signal=9, machine_oom_kills=1), False, Reason.OUT_OF_MEMORY),
        (record(exit_signal=9, machine_oom_kills=1, stopped="cancel"), False, Reason.KILLED_BY_SIGNAL),
        (record(exit_signal=11, machine_oom_kills=1), False, Reason.KILLED_BY_SIGNAL),
        (record(exit_code=137, machine_oom_kills=1), False, Reason.EXITED_NONZERO),
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
    ("given", "failed"),
    [
        (record(exit_code=1), 3),
        (record(exit_signal=9), 3),
        (record(exit_code=1, stopped="interrupt"), 1),
        (record(exit_code=0), 1),
    ],
)
def test_a_task_that_ran_at_the_end_has_failed_with_its_job(given: ExitRecord, failed: int) -> None:
    progress = Progress(9, done=2, running=2, failed=1)
    outcome = outcome_of(job(), given, explained=None, progress=progress, sampled_rss_bytes=0)
    assert outcome.progress == Progress(9, done=2, failed=failed)


@pytest.mark.parametrize(("stopped", "failed"), [("cancel", 1), (None, 3)])
def test_a_task_that_the_cancel_has_ended_has_not_failed(stopped: str | None, failed: int) -> None:
    outcome = outcome_of(
        replace(job(), cancel_requested_at=NOW),
        record(exit_code=1, stopped=stopped),
        explained=None,
        progress=Progress(9, done=2, failed=3),
        sampled_rss_bytes=0,
        failed_at=(NOW.timestamp() - 1, NOW.timestamp(), NOW.timestamp() + 1),
    )
    assert outcome.progress == Progress(9, done=2, failed=failed)


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


MIB = 2**20


def said(given: ExitRecord, *, memory_mb: int | None = None, explained: str | None = None) -> str:
    outcome = outcome_of(
        job(memory_mb), given, explained=explained, progress=None, sampled_rss_bytes=100 * MIB
    )
    return outcome.error_message or ""


def test_a_job_that_needs_more_than_its_memory_is_told_the_limit_the_peak_and_what_to_do() -> None:
    given = record(exit_signal=9, oom_kills=1, memory_peak_bytes=512 * MIB)
    assert said(given, memory_mb=512, explained="Rule sort failed") == (
        "The job needs more than its 512 MiB of memory. It took 512 MiB at most; the kernel killed a "
        "process. Give it a larger memory_mb.\nRule sort failed"
    )


def test_a_job_ended_by_its_shim_for_its_memory_says_what_was_seen() -> None:
    assert said(record(exit_signal=9, stopped="memory"), memory_mb=64) == (
        "The job needs more than its 64 MiB of memory. It took 100 MiB at most. Give it a larger memory_mb."
    )


@pytest.mark.parametrize("memory_mb", [None, 512])
def test_a_job_within_its_limit_was_killed_for_the_machines_sake(memory_mb: int | None) -> None:
    given = record(exit_code=1, oom_kills=2, memory_peak_bytes=300 * MIB)
    text = said(given, memory_mb=memory_mb)
    assert text.startswith("The machine ran out of memory: the kernel killed 2 processes of the job.")
    assert "It took 300 MiB at most" in text


def test_where_the_kernel_does_not_count_by_job_the_evidence_is_named() -> None:
    text = said(record(exit_signal=9, machine_oom_kills=1))
    assert "SIGKILL, and not by this service" in text
    assert "oom_kill in /proc/vmstat" in text
    assert said(record(exit_code=1, machine_oom_kills=3), explained="Rule sort failed") == (
        "Rule sort failed\nWhile it ran the kernel killed 3 processes on this machine for lack of memory."
    )

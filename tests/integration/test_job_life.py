"""A job's life through the real runner: start, end, cancel, timeout, retry, delete, restart."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
from datetime import timedelta
from typing import TYPE_CHECKING

import psutil
import pytest

from runner.attempt_files import AttemptFiles
from runner.errors import (
    DataDirUnusable,
    InvalidSpec,
    InvalidTransition,
    JobNotFound,
    LogNotFound,
)
from runner.job_store import JobQuery
from runner.jobs import Change, Job, JobSpec, JobStatus, Progress, Reason
from runner.settings import MockSettings
from tests.support.runners import Hold, RunningRunner
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


# ---------------------------------------------------------------- ends


@pytest.mark.parametrize("warm_start", [True, False])
@pytest.mark.parametrize("database_url", ["memory://", None])
def test_a_job_runs_to_completion(
    open_runner: Callable[..., RunningRunner], database_url: str | None, *, warm_start: bool
) -> None:
    store = {"database_url": database_url} if database_url else {}
    runner = open_runner(warm_start=warm_start, **store)
    submitted = runner.submit(JobSpec(name="first", labels={"run": "7"}))
    assert (submitted.status, submitted.attempt, submitted.engine) == (JobStatus.PENDING, 1, "mock")
    job = runner.ended(submitted)
    assert (job.status, job.reason) == (JobStatus.COMPLETED, Reason.EXITED_ZERO)
    assert (job.exit_code, job.exit_signal, job.error_message) == (0, None, None)
    assert job.progress == Progress(total=5, done=5)
    assert job.started_at is not None
    assert job.completed_at is not None
    assert job.created_at <= job.started_at <= job.completed_at
    assert job.usage is not None
    assert job.usage.cpu_s > 0
    assert b"5 of 5 steps (100%) done" in runner.log(job)


@pytest.mark.parametrize("code", [1, 2, 42, 127, 137, 255])
def test_a_failing_exit_code_is_kept_exactly(runner: RunningRunner, code: int) -> None:
    job = runner.ended(runner.submit(exit_code=code))
    assert (job.status, job.reason, job.exit_code) == (JobStatus.FAILED, Reason.EXITED_NONZERO, code)
    assert job.exit_signal is None
    assert job.error_message


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_from_elsewhere_is_kept_exactly(runner: RunningRunner, number: int) -> None:
    job = runner.ended(runner.submit(signal=int(number)))
    assert (job.status, job.reason) == (JobStatus.FAILED, Reason.KILLED_BY_SIGNAL)
    assert (job.exit_code, job.exit_signal) == (None, number)


def test_a_failed_rule_is_named_with_the_last_lines_of_its_log(runner: RunningRunner) -> None:
    job = runner.ended(runner.submit(fail_rule="checksum", stderr_text="checksum does not match"))
    assert job.status is JobStatus.FAILED
    assert job.error_message is not None
    assert "checksum" in job.error_message
    assert "At least one job did not complete" not in job.error_message
    assert job.progress is not None
    assert job.progress.failed == 1


def test_a_missing_engine_is_a_failed_launch_that_says_what_to_do(
    open_runner: Callable[..., RunningRunner], tmp_path: Path
) -> None:
    runner = open_runner(engine="snakemake", snakemake=str(tmp_path / "missing"))
    readiness = runner.service.readiness()
    assert not readiness.ready
    job = runner.ended(runner.submit())
    assert (job.status, job.reason) == (JobStatus.FAILED, Reason.LAUNCH_FAILED)
    assert (job.exit_code, job.exit_signal) == (None, None)
    assert job.error_message is not None
    assert "SNAKELINE_SNAKEMAKE" in job.error_message


def test_a_job_over_its_time_is_ended_and_says_so(runner: RunningRunner, hold: Hold) -> None:
    job = runner.ended(runner.submit(JobSpec(timeout_s=0.4), hold=hold.path))
    assert (job.status, job.reason) == (JobStatus.FAILED, Reason.TIMED_OUT)
    assert job.error_message == "Stopped after 0.4 s, the job's timeout."
    assert job.started_at is not None
    assert job.completed_at is not None
    assert job.completed_at - job.started_at >= timedelta(seconds=0.4)


def test_the_default_timeout_is_given_to_jobs_that_name_none(
    open_runner: Callable[..., RunningRunner],
) -> None:
    runner = open_runner(default_timeout_s=30.0)
    assert runner.submit().spec.timeout_s == 30
    assert runner.submit(JobSpec(timeout_s=5)).spec.timeout_s == 5


def test_a_job_beyond_a_maximum_is_refused_with_every_field(
    open_runner: Callable[..., RunningRunner],
) -> None:
    runner = open_runner(max_timeout_s=60.0, max_memory_mb=64, max_job_cores=2)
    with pytest.raises(InvalidSpec) as refused:
        runner.submit(JobSpec(timeout_s=61, memory_mb=65, cores=3))
    assert [error.pointer for error in refused.value.errors] == ["/cores", "/timeout_s", "/memory_mb"]
    spec = runner.ended(runner.submit(JobSpec(cores=2))).spec
    assert (spec.timeout_s, spec.memory_mb) == (60, 64)


# ---------------------------------------------------------------- cancelling


def test_a_pending_job_is_cancelled_at_once(open_runner: Callable[..., RunningRunner], hold: Hold) -> None:
    runner = open_runner(max_cores=1)
    running = runner.submit(hold=hold.path)
    runner.wait_for(running, JobStatus.RUNNING)
    job = runner.service.cancel(runner.submit().id)
    assert (job.status, job.reason) == (JobStatus.CANCELLED, Reason.CANCEL_REQUESTED)
    assert job.completed_at is not None
    hold.release()
    runner.ended(running)
    assert not runner.job_dir(job).exists()


@pytest.mark.parametrize("ignore_term", [False, True])
def test_a_running_job_is_cancelled_when_its_last_process_is_gone(
    runner: RunningRunner, hold: Hold, *, ignore_term: bool
) -> None:
    job = runner.submit(hold=hold.path, spawn_children=2, setsid_children=1, ignore_term=ignore_term)
    runner.wait_for(job, JobStatus.RUNNING)
    work = str(runner.work_dir(job))

    def processes() -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.cwd().startswith(work) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    wait_until(lambda: len(processes()) >= 4, what="the job and its children run")
    asked = runner.service.cancel(job.id)
    assert asked.status is JobStatus.RUNNING
    assert asked.cancel_requested_at is not None
    again = runner.service.cancel(job.id)
    assert again.cancel_requested_at == asked.cancel_requested_at
    job = runner.ended(job)
    assert processes() == []
    assert (job.status, job.reason) == (JobStatus.CANCELLED, Reason.CANCEL_REQUESTED)
    with pytest.raises(InvalidTransition):
        runner.service.cancel(job.id)


def test_a_cancel_right_after_the_start_is_never_forgotten(runner: RunningRunner, hold: Hold) -> None:
    jobs = [runner.submit(JobSpec(cores=1), hold=hold.path) for _ in range(12)]
    for job in jobs:
        with contextlib.suppress(InvalidTransition):
            runner.service.cancel(job.id)
    assert {runner.ended(job).status for job in jobs} == {JobStatus.CANCELLED}


# ---------------------------------------------------------------- retries


def test_a_retry_is_a_new_attempt_in_the_same_directory_with_a_log_of_its_own(runner: RunningRunner) -> None:
    job = runner.ended(runner.submit(fail_times=1))
    assert job.status is JobStatus.FAILED
    (runner.work_dir(job) / "kept").write_text("still here")
    pending = runner.service.retry(job.id)
    assert (pending.status, pending.attempt, pending.exit_code) == (JobStatus.PENDING, 2, None)
    assert (pending.started_at, pending.completed_at, pending.error_message, pending.reason) == (None,) * 4
    job = runner.ended(job)
    assert (job.status, job.attempt) == (JobStatus.COMPLETED, 2)
    assert (runner.work_dir(job) / "kept").read_text() == "still here"
    assert runner.log(job, 1) != runner.log(job, 2)
    with pytest.raises(InvalidTransition):
        runner.service.retry(job.id)
    with pytest.raises(LogNotFound):
        runner.service.log(job.id, 3)


def test_failures_are_retried_by_themselves_up_to_the_number_asked_for(runner: RunningRunner) -> None:
    lucky = runner.ended(runner.submit(JobSpec(max_retries=3), fail_times=2))
    assert (lucky.status, lucky.attempt) == (JobStatus.COMPLETED, 3)
    unlucky = runner.ended(runner.submit(JobSpec(max_retries=2), exit_code=3))
    assert (unlucky.status, unlucky.attempt, unlucky.exit_code) == (JobStatus.FAILED, 3, 3)


def test_between_automatic_attempts_a_job_is_never_seen_as_failed(runner: RunningRunner) -> None:
    seen: list[tuple[Change, JobStatus]] = []
    runner.service.watch(lambda event: seen.append((event.kind, event.status)))
    runner.ended(runner.submit(JobSpec(max_retries=1), exit_code=1))
    steps = [step for step in seen if step[0] is not Change.PROGRESSED]
    assert steps == [
        (Change.SUBMITTED, JobStatus.PENDING),
        (Change.CLAIMED, JobStatus.RUNNING),
        (Change.RETRIED, JobStatus.PENDING),
        (Change.CLAIMED, JobStatus.RUNNING),
        (Change.ENDED, JobStatus.FAILED),
    ]


def test_a_cancelled_job_is_not_retried_by_itself(runner: RunningRunner, hold: Hold) -> None:
    job = runner.submit(JobSpec(max_retries=5), hold=hold.path)
    runner.wait_for(job, JobStatus.RUNNING)
    runner.service.cancel(job.id)
    job = runner.ended(job)
    assert (job.status, job.attempt) == (JobStatus.CANCELLED, 1)
    again = runner.service.retry(job.id)
    assert again.retries_left == 5
    runner.wait_for(job, JobStatus.RUNNING)
    hold.release()
    assert runner.ended(job).status is JobStatus.COMPLETED


# ---------------------------------------------------------------- deleting


def test_a_deleted_job_leaves_neither_row_nor_file(runner: RunningRunner) -> None:
    job = runner.ended(runner.submit())
    assert runner.job_dir(job).exists()
    runner.service.delete(job.id)
    assert not runner.job_dir(job).exists()
    for question in (runner.service.get, runner.service.delete, runner.service.log):
        with pytest.raises(JobNotFound):
            question(job.id)
    assert runner.service.list(JobQuery()).total == 0


def test_a_job_that_has_not_ended_cannot_be_deleted(runner: RunningRunner, hold: Hold) -> None:
    job = runner.submit(hold=hold.path)
    runner.wait_for(job, JobStatus.RUNNING)
    with pytest.raises(InvalidTransition):
        runner.service.delete(job.id)
    hold.release()
    runner.ended(job)


# ---------------------------------------------------------------- restarts


def test_jobs_outlive_a_restart_and_their_results_are_learnt(runner: RunningRunner, tmp_path: Path) -> None:
    gates = [Hold(tmp_path, f"hold-{i}") for i in range(3)]
    jobs = [runner.submit(hold=gate.path, exit_code=10 + i) for i, gate in enumerate(gates)]
    for job in jobs:
        runner.wait_for(job, JobStatus.RUNNING)
        wait_until(lambda job=job: runner.log(job), what="its first output")  # type: ignore[misc]
    runner.close()
    gates[0].release()  # ends while nobody watches
    files = AttemptFiles.of(runner.settings.data_dir, jobs[0].id, 1)
    wait_until(lambda: os.path.exists(files.exit), what="the unwatched record")
    runner._runner = type(runner)(runner.settings)._runner
    gates[1].release()
    runner.service.cancel(jobs[2].id)
    first, second, third = (runner.ended(job) for job in jobs)
    assert (first.status, first.exit_code) == (JobStatus.FAILED, 10)
    assert (second.status, second.exit_code) == (JobStatus.FAILED, 11)
    assert third.status is JobStatus.CANCELLED
    assert (first.attempt, second.attempt, third.attempt) == (1, 1, 1)


def test_a_claimed_job_that_was_never_launched_is_launched_after_a_restart(runner: RunningRunner) -> None:
    """As when the service dies between the claim's commit and the launch."""
    job = runner.ended(runner.submit(exit_code=1))
    runner.service.retry(job.id)
    job = runner.ended(job)
    pending = runner.settings.data_dir / "jobs" / job.id / "attempts" / "2"
    assert pending.exists()
    runner.close()
    with contextlib.closing(_rewound(runner, job)) as again:
        ended = again.wait_for(job, lambda j: j.status.is_terminal)
    assert (ended.status, ended.attempt, ended.exit_code) == (JobStatus.FAILED, 2, 1)
    runner._runner = type(runner)(runner.settings)._runner


def _rewound(runner: RunningRunner, job: Job) -> RunningRunner:
    """The store and files as they were right after the claim of attempt 2."""
    shutil.rmtree(runner.job_dir(job) / "attempts" / "2")
    with contextlib.closing(sqlite3.connect(runner.settings.data_dir / "snakeline.db")) as store:
        store.execute("UPDATE jobs SET status='running', reason=NULL, exit_code=NULL, completed_at=NULL")
        store.commit()
    return RunningRunner(runner.settings)


def test_two_services_never_share_a_data_directory(runner: RunningRunner) -> None:
    with pytest.raises(DataDirUnusable, match="in use by another service"):
        RunningRunner(runner.settings)


# ---------------------------------------------------------------- what is told meanwhile


def test_progress_and_usage_are_told_while_a_job_runs(
    open_runner: Callable[..., RunningRunner],
) -> None:
    runner = open_runner(mock=MockSettings(min_s=8, max_s=8, success_rate=1))
    job = runner.submit()
    job = runner.wait_for(job, lambda j: j.progress is not None and j.progress.running == 1)
    assert job.status is JobStatus.RUNNING
    job = runner.wait_for(job, lambda j: j.usage is not None)
    assert job.usage is not None
    assert job.usage.max_rss_bytes > 2**20
    runner.service.cancel(job.id)
    runner.ended(job)

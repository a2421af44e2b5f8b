"""A job's memory limit, kept by a control group where there is one and by its shim elsewhere."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from runner.jobs import JobSpec, JobStatus, Reason
from tests.support.runners import Hold, RunningRunner, settings_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIMIT_MB = 64


@pytest.fixture(params=["auto", "off"])
def isolation(request: pytest.FixtureRequest) -> str:
    level: str = request.param
    return level


@pytest.fixture
def runner(tmp_path: Path, isolation: str) -> Iterator[RunningRunner]:
    settings = settings_for(tmp_path / "data", isolation=isolation, stop_grace_s=30.0)
    with contextlib.closing(RunningRunner(settings)) as runner:
        yield runner


@pytest.fixture
def hold(tmp_path: Path) -> Hold:
    return Hold(tmp_path)


def test_a_job_that_needs_more_than_its_memory_is_ended_at_once_and_told_so(
    runner: RunningRunner, hold: Hold
) -> None:
    # It never ends by itself, and ignores what it could ignore: the grace is not waited for.
    job = runner.submit(JobSpec(memory_mb=LIMIT_MB), memory_mb=200, hold=hold.path, ignore_term=True)
    job = runner.ended(job)
    assert (job.status, job.reason) == (JobStatus.FAILED, Reason.OUT_OF_MEMORY)
    assert (job.exit_code, job.exit_signal) == (None, 9)
    assert job.error_message is not None
    assert job.error_message.startswith(f"The job needs more than its {LIMIT_MB} MiB of memory. It took ")
    assert "Give it a larger memory_mb." in job.error_message


def test_a_job_within_its_memory_does_not_notice(runner: RunningRunner) -> None:
    job = runner.ended(runner.submit(JobSpec(memory_mb=LIMIT_MB), memory_mb=10, seconds=0.6))
    assert (job.status, job.error_message) == (JobStatus.COMPLETED, None)


def test_a_timeout_keeps_its_reason_with_a_memory_limit(runner: RunningRunner, hold: Hold) -> None:
    timed = runner.submit(JobSpec(memory_mb=LIMIT_MB, timeout_s=0.6), hold=hold.path)
    assert runner.ended(timed).reason is Reason.TIMED_OUT


@pytest.mark.root
def test_a_rule_that_the_kernel_killed_is_told_where_the_engine_survived_it(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "data")
    with contextlib.closing(RunningRunner(settings)) as runner:
        if "memory_limit" not in runner.service.readiness().isolation.protections:
            pytest.skip("no control group keeps memory limits here")
        job = runner.ended(runner.submit(JobSpec(memory_mb=LIMIT_MB), rule_memory_mb=200))
    assert (job.reason, job.exit_code, job.exit_signal) == (Reason.OUT_OF_MEMORY, 1, None)
    assert job.error_message is not None
    assert "the kernel killed a process" in job.error_message
    assert "its command was ended by SIGKILL" in job.error_message

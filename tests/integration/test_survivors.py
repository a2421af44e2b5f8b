"""A process that cannot be killed is told of, and its cores stay taken for as long as it lives."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from runner.jobs import JobSpec, JobStatus
from tests.support import groups, job_processes
from tests.support.runners import RunningRunner, settings_for
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runner.jobs import Job

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes control groups")


@pytest.fixture(params=["auto", pytest.param("off", marks=pytest.mark.soak)])
def runner(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[RunningRunner]:
    settings = settings_for(tmp_path, max_cores=2, isolation=request.param, stop_grace_s=0.2)
    running = RunningRunner(settings)
    yield running
    running.close()


def frozen_child(runner: RunningRunner, freezer: groups.Freezer) -> Job:
    """A job of two cores with a child that nothing can end."""
    job = runner.submit(JobSpec(cores=2), seconds=300, spawn_children=1)
    shown = runner.wait_for(job, JobStatus.RUNNING)

    def child() -> int | None:
        found = [p for p in job_processes.by_job().get(job.id, []) if "sleep" in job_processes.title_of(p)]
        return found[0] if found else None

    pid = wait_until(child, timeout_s=30, what="the job's child")
    assert pid is not None
    freezer.freeze(pid)
    return shown


def test_a_survivor_is_told_of_and_keeps_its_cores_until_it_is_gone(runner: RunningRunner) -> None:
    with groups.freezer("cores") as freezer:
        job = frozen_child(runner, freezer)
        runner.service.cancel(job.id)
        ended = runner.ended(job, timeout_s=20)
        assert ended.status is JobStatus.CANCELLED
        assert "1 processes of the job could not be killed and still run" in str(ended.error_message)
        waiting = runner.submit(JobSpec(cores=1))
        runner.restart()
        assert runner.service.get(waiting.id).status is JobStatus.PENDING
        assert freezer.members()
        freezer.thaw()
        assert runner.ended(waiting).status is JobStatus.COMPLETED
        assert not freezer.members()
        assert not os.listdir(runner.settings.data_dir / "survivors")


@pytest.mark.parametrize("runner", ["auto"], indirect=True)
def test_a_retry_waits_for_the_survivors_of_the_attempt_before(runner: RunningRunner) -> None:
    with groups.freezer("retry") as freezer:
        job = frozen_child(runner, freezer)
        runner.service.cancel(job.id)
        runner.ended(job, timeout_s=20)
        runner.restart(max_cores=4)
        runner.service.retry(job.id)
        runner.wait_for(job, lambda j: j.status is JobStatus.RUNNING and j.attempt == 2)
        wait_until(lambda: runner.service.figures().launches_postponed, what="the launch to be postponed")
        assert not (runner.job_dir(job) / "attempts" / "2" / "started").exists()
        runner.service.cancel(job.id)
        assert runner.ended(job).status is JobStatus.CANCELLED
        freezer.thaw()

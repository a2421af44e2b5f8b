"""What the runner takes into its queue, and who of it may start."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from runner.errors import (
    IdempotencyMismatch,
    InvalidSpec,
    QueueFull,
    ShuttingDown,
    StorageFull,
    WorkflowNotFound,
)
from runner.job_store import JobQuery
from runner.jobs import JobSpec, JobStatus
from tests.support.runners import Hold, RunningRunner

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


# ---------------------------------------------------------------- the queue


def test_jobs_start_by_priority_then_age_within_the_free_cores(
    open_runner: Callable[..., RunningRunner], tmp_path: Path
) -> None:
    runner = open_runner(max_cores=1)
    first_hold = Hold(tmp_path, "first")
    first = runner.submit(hold=first_hold.path)
    runner.wait_for(first, JobStatus.RUNNING)
    low = [runner.submit(JobSpec(priority=-1)), runner.submit(JobSpec(priority=-1))]
    high = [runner.submit(JobSpec(priority=5)), runner.submit(JobSpec(priority=5))]
    first_hold.release()
    ended = [runner.ended(job) for job in (first, *high, *low)]
    starts = [job.started_at for job in ended]
    assert starts == sorted(starts, key=lambda at: at.timestamp() if at else 0)
    for before, after in pairwise(ended):
        assert before.completed_at is not None
        assert after.started_at is not None
        assert before.completed_at <= after.started_at


def test_running_jobs_never_take_more_cores_than_there_are(
    open_runner: Callable[..., RunningRunner], tmp_path: Path
) -> None:
    runner = open_runner(max_cores=3)
    holds = [Hold(tmp_path, f"hold-{i}") for i in range(3)]
    two = runner.submit(JobSpec(cores=2), hold=holds[0].path)
    runner.wait_for(two, JobStatus.RUNNING)
    also_two = runner.submit(JobSpec(cores=2), hold=holds[1].path)
    one = runner.submit(JobSpec(cores=1), hold=holds[2].path)
    runner.wait_for(one, JobStatus.RUNNING)
    assert runner.service.get(also_two.id).status is JobStatus.PENDING
    holds[0].release()
    runner.wait_for(also_two, JobStatus.RUNNING)
    for hold in holds[1:]:
        hold.release()
    runner.ended(also_two)
    runner.ended(one)


def test_a_large_job_is_overtaken_for_a_while_and_then_kept_free_for(
    open_runner: Callable[..., RunningRunner], hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.core_queue.RESERVE_AFTER_S", 0.0)
    runner = open_runner(max_cores=2)
    holding = runner.submit(hold=hold.path)
    runner.wait_for(holding, JobStatus.RUNNING)
    large = runner.submit(JobSpec(cores=2))
    small = runner.submit()
    assert runner.service.get(small.id).status is JobStatus.PENDING
    hold.release()
    large, small = runner.ended(large), runner.ended(small)
    assert large.completed_at is not None
    assert small.started_at is not None
    assert large.completed_at <= small.started_at


def test_a_full_queue_refuses_more(open_runner: Callable[..., RunningRunner], hold: Hold) -> None:
    runner = open_runner(max_cores=1, max_pending=2)
    running = runner.submit(hold=hold.path)
    runner.wait_for(running, JobStatus.RUNNING)
    waiting = [runner.submit(), runner.submit()]
    with pytest.raises(QueueFull):
        runner.submit()
    hold.release()
    for job in waiting:
        runner.ended(job)
    runner.ended(runner.submit())


def test_a_job_that_could_never_start_is_refused(runner: RunningRunner) -> None:
    with pytest.raises(InvalidSpec) as refused:
        runner.submit(JobSpec(cores=5))
    assert [error.pointer for error in refused.value.errors] == ["/cores"]


# ---------------------------------------------------------------- submitting


def test_the_same_key_and_body_make_one_job(runner: RunningRunner) -> None:
    spec = JobSpec(name="once", labels={"sample": "3"})
    first = runner.service.submit(spec, idempotency_key="k1").result()
    second = runner.service.submit(spec, idempotency_key="k1").result()
    assert (first.replayed, second.replayed) == (False, True)
    assert first.job.id == second.job.id
    with pytest.raises(IdempotencyMismatch):
        runner.service.submit(replace(spec, name="twice"), idempotency_key="k1").result()
    runner.ended(first.job)


def test_unknown_workflows_and_bad_parameters_are_refused_before_acceptance(runner: RunningRunner) -> None:
    with pytest.raises(WorkflowNotFound, match="demo"):
        runner.submit(JobSpec(workflow="nope"))
    bad = JobSpec(targets=("--snakefile=/tmp/x", "a/../b"), options={"jobscript": "x"})
    with pytest.raises(InvalidSpec) as refused:
        runner.submit(bad, exit_code=300)
    pointers = {error.pointer for error in refused.value.errors}
    assert {"/targets/0", "/targets/1", "/options/jobscript", "/parameters/mock/exit_code"} <= pointers
    assert runner.service.list(JobQuery()).total == 0


def test_a_full_disk_is_refused_before_acceptance(open_runner: Callable[..., RunningRunner]) -> None:
    runner = open_runner(min_free_bytes=2**62)
    with pytest.raises(StorageFull):
        runner.submit()
    assert runner.service.list(JobQuery()).total == 0
    assert not runner.service.readiness().ready


def test_a_draining_service_takes_nothing_new(runner: RunningRunner) -> None:
    job = runner.ended(runner.submit(exit_code=1))
    runner.service.drain()
    with pytest.raises(ShuttingDown):
        runner.submit()
    with pytest.raises(ShuttingDown):
        runner.service.retry(job.id)
    assert not runner.service.readiness().ready

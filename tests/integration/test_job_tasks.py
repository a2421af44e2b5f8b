"""Tasks of jobs that really ran: by attempt, after every kind of end, and for nobody else."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

import pytest

from runner.access import Caller, Scope
from runner.errors import JobNotFound, OutputNotFound, TaskNotFound
from runner.jobs import JobSpec, JobStatus, Progress, Reason
from runner.tasks import RuleCounts, TaskQuery, TaskStatus
from tests.support.runners import Hold, RunningRunner, settings_for
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runner.jobs import Job

FOREVER_S = 600
STRANGER = Caller("eve", "elsewhere", frozenset({Scope.READ}))


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRunner]:
    settings = settings_for(tmp_path_factory.mktemp("runner") / "data", isolation="off")
    runner = RunningRunner(settings)
    yield runner
    runner.close()


def statuses(runner: RunningRunner, job: Job, attempt: int | None = None) -> dict[str, str]:
    page = runner.service.runs.tasks(job.id, TaskQuery(attempt=attempt))
    return {task.rule: task.status.value for task in page.items}


def running_rule(runner: RunningRunner, job: Job) -> str | None:
    page = runner.service.runs.tasks(job.id, TaskQuery(statuses=(TaskStatus.RUNNING,)))
    return page.items[0].rule if page.items else None


def test_every_attempt_keeps_its_own_tasks(runner: RunningRunner) -> None:
    job = runner.ended(runner.submit(fail_rule="checksum", fail_times=1, stderr_text="it does not match"))
    assert job.status is JobStatus.FAILED
    assert str(job.error_message).startswith("Rule checksum failed")
    assert "it does not match" in str(job.error_message)
    first = {
        "numbers": "completed",
        "shuffle": "completed",
        "checksum": "failed",
        "report": "cancelled",
        "all": "cancelled",
    }
    assert statuses(runner, job) == first
    job = runner.ended(runner.service.retry(job.id))
    assert (job.status, job.attempt) == (JobStatus.COMPLETED, 2)
    assert job.progress is not None
    assert (job.progress.total, job.progress.done, job.progress.up_to_date) == (3, 3, 2)
    assert statuses(runner, job) == {"checksum": "completed", "report": "completed", "all": "completed"}
    assert statuses(runner, job, attempt=1) == first
    counts = {node.rule: node.counts for node in runner.service.runs.graph(job.id).nodes}
    assert counts["numbers"] == RuleCounts(up_to_date=1)
    assert counts["all"] == RuleCounts(completed=1)
    failed = runner.service.runs.tasks(job.id, TaskQuery(attempt=1, statuses=(TaskStatus.FAILED,))).items[0]
    told = runner.service.runs.task(job.id, failed.number, 1)
    assert told.error is not None
    assert (told.error.is_root, told.error.log_lines) == (True, ("it does not match",))
    assert [task.number for task in runner.service.runs.each_task(job.id)] == sorted(
        task.number for task in runner.service.runs.tasks(job.id, TaskQuery()).items
    )
    for ask in (
        lambda: runner.service.runs.task(job.id, 999),
        lambda: runner.service.runs.task(job.id, failed.number, 3),
        lambda: runner.service.runs.graph(job.id, 0),
        lambda: runner.service.runs.tasks(job.id, TaskQuery(attempt=3)),
    ):
        with pytest.raises(TaskNotFound):
            ask()
    with pytest.raises(JobNotFound):
        runner.service.runs.tasks(job.id, TaskQuery(), caller=STRANGER)
    with pytest.raises(JobNotFound):
        runner.service.runs.open_task_log(job.id, failed.number, caller=STRANGER)


def test_a_tasks_log_is_opened_and_nothing_else(runner: RunningRunner) -> None:
    job = runner.ended(runner.submit(fail_rule="numbers", stderr_text="no numbers"))
    task = runner.service.runs.tasks(job.id, TaskQuery(rules=("numbers",))).items[0]
    with runner.service.runs.open_task_log(job.id, task.number) as log:
        assert log.read(0, 100) == b"no numbers\n"
    with pytest.raises(OutputNotFound):
        runner.service.runs.open_task_log(job.id, task.number, len(task.log))
    path = runner.work_dir(job) / task.log[0]
    path.unlink()
    path.symlink_to(runner.work_dir(job) / "Snakefile")
    with pytest.raises(OutputNotFound):
        runner.service.runs.open_task_log(job.id, task.number)
    error = runner.service.runs.task(job.id, task.number).error
    assert error is not None
    # What it wrote to the run's log.
    assert error.log_lines == ("no numbers", 'MockFailure in file "Snakefile":', "no numbers")


def test_a_task_that_runs_ends_with_its_job(runner: RunningRunner) -> None:
    late = runner.submit(JobSpec(timeout_s=1.5), seconds=FOREVER_S)
    cancelled = runner.submit(seconds=FOREVER_S)
    for job in (late, cancelled):
        rule = wait_until(partial(running_rule, runner, job), timeout_s=20, what="a task runs")
        runner.wait_for(job, lambda j: j.progress is not None and j.progress.running == 1)
    runner.service.cancel(cancelled.id)
    assert runner.ended(cancelled).progress == Progress(5)
    assert set(statuses(runner, cancelled).values()) == {"cancelled"}
    assert runner.ended(late).reason is Reason.TIMED_OUT
    assert statuses(runner, late) == {
        name: "failed" if name == rule else "cancelled" for name in statuses(runner, late)
    }
    stopped = runner.service.runs.tasks(late.id, TaskQuery(statuses=(TaskStatus.FAILED,))).items[0]
    assert stopped.error is not None
    assert "as long as it may" in stopped.error.message


def test_a_job_that_told_very_much_ends_when_it_has_been_read(runner: RunningRunner, tmp_path: Path) -> None:
    hold = Hold(tmp_path)
    job = runner.submit(hold=hold.path)
    events = runner.job_dir(job) / "attempts/1/events.jsonl"
    wait_until(lambda: events.exists() and events.stat().st_size > 0, what="the run has told something")
    with events.open("ab") as file:  # more than is read at once
        file.write(b'{"v":2,"event":"nothing of interest","t":1,"x":"%s"}\n' % (b"x" * 1000) * 3000)
    hold.release()
    job = runner.ended(job, timeout_s=30)
    assert (job.status, job.error_message) == (JobStatus.COMPLETED, None)
    assert job.progress == Progress(5, 5)
    index = events.with_name("tasks.index")
    wait_until(index.exists, timeout_s=20, what="its tasks are kept")
    os.utime(index, ns=(1, 1))
    runner.restart()
    assert set(statuses(runner, job).values()) == {"completed"}
    assert index.stat().st_mtime_ns == 1  # it was good enough

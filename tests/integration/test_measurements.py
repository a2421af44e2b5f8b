"""What the runner measures of itself, by what has really happened to jobs."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING

from runner.jobs import JobSpec, JobStatus, Reason
from tests.support.mounts import small_disk
from tests.support.runners import Hold, RunningRunner
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runner.measurements import Measurements
    from runner.settings import RunnerSettings


def all_counted(runner: RunningRunner, ended: int) -> Measurements:
    """Once so many ends are counted: that is after they are stored."""
    measured = runner.service.measurements
    wait_until(lambda: sum(measured.ended.read().values()) >= ended, what=f"{ended} ends to be counted")
    return measured


def test_each_end_is_counted_once_by_workflow_and_reason(
    open_runner: Callable[..., RunningRunner], hold: Hold
) -> None:
    runner = open_runner(max_cores=1)
    held = runner.submit(hold=hold.path)
    runner.wait_for(held, JobStatus.RUNNING)
    queued = runner.submit()
    wait_until(lambda: runner.service.figures().used_cores == 1, what="its core to be taken")
    figures = runner.service.figures()
    assert figures.cores == 1
    assert figures.jobs == {("demo", JobStatus.RUNNING): 1, ("demo", JobStatus.PENDING): 1}
    since = runner.service.get(queued.id).updated_at
    waited = runner.service.figures().pending_for_s
    assert waited is not None
    assert 0 < waited < timedelta(minutes=5).total_seconds()
    assert since == queued.created_at
    runner.service.cancel(queued.id)
    assert runner.service.figures().pending_for_s == 0
    hold.release()
    runner.ended(held)
    runner.ended(runner.submit(JobSpec(max_retries=1), exit_code=3))
    other = runner.ended(runner.submit(JobSpec(workflow="wordcount"), exit_code=0))
    measured = all_counted(runner, 4)
    assert measured.submitted.read() == {"demo": 3, "wordcount": 1}
    assert measured.ended.read() == {
        ("demo", Reason.CANCEL_REQUESTED): 1,
        ("demo", Reason.EXITED_ZERO): 1,
        ("demo", Reason.EXITED_NONZERO): 1,
        ("wordcount", Reason.EXITED_ZERO): 1,
    }
    assert measured.requeued.read() == {("demo", Reason.EXITED_NONZERO): 1}
    assert measured.launches.read() == {"asked": 4}
    run_time = measured.run_time.read()
    assert {workflow: found.count for workflow, found in run_time.items()} == {"demo": 3, "wordcount": 1}
    for histogram in (measured.launch_latency, measured.exit_detection, measured.queue_wait):
        assert histogram.read().count == 4
        assert 0 < histogram.read().sum_s < 60
    wrote = measured.log_bytes.read()
    assert wrote["wordcount"] == len(runner.log(other))
    assert wrote["demo"] > 0
    assert measured.store.commits.read().count > 0
    wait_until(lambda: runner.service.figures().used_cores == 0, what="all cores to be free")


def test_a_submission_that_was_replayed_is_no_second_job(runner: RunningRunner) -> None:
    for _ in range(3):
        runner.service.submit(JobSpec(), idempotency_key="once").result(10)
    assert runner.service.measurements.submitted.read() == {"demo": 1}


def test_an_end_that_came_while_the_service_was_away_is_counted_and_was_not_seen_late(
    settings: RunnerSettings, hold: Hold
) -> None:
    with closing(RunningRunner(settings)) as runner:
        job = runner.submit(hold=hold.path)
        wait_until(lambda: runner.log(job), what="the engine to have begun")
        exit_file = runner.job_dir(job) / "attempts/1/exit.json"
    hold.release()
    wait_until(exit_file.exists, what="the attempt's end")
    with closing(RunningRunner(settings)) as runner:
        measured = all_counted(runner, 1)
        assert measured.ended.read() == {("demo", Reason.EXITED_ZERO): 1}
        assert measured.run_time.read()["demo"].count == 1
        assert measured.exit_detection.read().count == 0
        assert measured.launch_latency.read().count == 0


def test_a_launch_that_fails_is_told_from_one_that_is_put_off(
    open_runner: Callable[..., RunningRunner], tmp_path: Path
) -> None:
    runner = open_runner(engine="snakemake", snakemake=str(tmp_path / "missing"))
    runner.submit()
    measured = all_counted(runner, 1)
    assert measured.launches.read() == {"failed": 1}
    assert measured.ended.read() == {("demo", Reason.LAUNCH_FAILED): 1}
    assert measured.run_time.read() == {}


def test_a_launch_without_room_is_put_off_and_counted_so(runner: RunningRunner, hold: Hold) -> None:
    everything = runner.submit(JobSpec(cores=4), hold=hold.path)
    runner.wait_for(everything, JobStatus.RUNNING)
    stuck = runner.submit()
    directory = runner.job_dir(stuck) / "attempts" / "1"
    directory.mkdir(parents=True)
    measured = runner.service.measurements
    with small_disk(directory, options="size=4k"):
        hold.release()
        wait_until(lambda: measured.launches.read().get("postponed", 0) >= 2, what="two tries to fail")
        wait_until(lambda: runner.service.figures().launches_postponed == 1, what="it to wait for another")
        assert measured.launch_latency.read().count == 1
    runner.ended(stuck)
    assert all_counted(runner, 2).launches.read()["asked"] == 2
    assert measured.launch_latency.read().count == 2

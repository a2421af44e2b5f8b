"""The tasks of many attempts: how each has ended, and no more of them in memory than there is room for."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runner.attempt_files import ExitRecord
from runner.attempt_tasks import AttemptTasks
from runner.engines.told_tasks import ToldTasks
from runner.jobs import Job, JobSpec, JobStatus, Reason
from runner.tasks import TaskQuery
from tests.support.event_files import EventsFile

if TYPE_CHECKING:
    from runner.attempt_files import AttemptFiles

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
RECORD = ExitRecord(
    exit_code=1,
    exit_signal=None,
    launch_error=None,
    stopped=None,
    started_at=NOON.timestamp() - 60,
    ended_at=NOON.timestamp(),
    cpu_s=1.0,
    max_rss_bytes=0,
    read_bytes=0,
    written_bytes=0,
    log_bytes=0,
)


class Readers:
    """Counts how often an events file is begun to be read."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, files: AttemptFiles) -> ToldTasks:
        self.made += 1
        return ToldTasks(files)


def job(job_id: str = "job", status: JobStatus = JobStatus.RUNNING, **fields: Any) -> Job:
    return Job(job_id, JobSpec(), status, "mock", NOON, NOON, **fields)


def status_of(tasks: AttemptTasks, of: Job, attempt: int = 1) -> str:
    return tasks.page(of, attempt, TaskQuery()).items[0].status.value


def test_a_run_that_goes_on_is_read_on_with_each_question_and_not_anew(tmp_path: Path) -> None:
    readers, events = Readers(), EventsFile(tmp_path)
    tasks = AttemptTasks(tmp_path, readers)
    assert tasks.page(job(), 1, TaskQuery()).items == ()
    events.run_task(1, "a")
    assert status_of(tasks, job()) == "running"
    events.tell("job_finished", jobid=1)
    assert status_of(tasks, job()) == "completed"
    events.run_task(2, "a")
    ended = job(status=JobStatus.FAILED, reason=Reason.EXITED_NONZERO, completed_at=NOON)
    second = tasks.task(ended, 1, 2)
    assert second is not None
    assert (second.status.value, second.ended_at) == ("failed", NOON)
    assert readers.made == 1


def test_a_long_run_that_was_asked_about_while_it_went_on_is_taken_from_its_index(tmp_path: Path) -> None:
    events = EventsFile(tmp_path)
    tasks = AttemptTasks(tmp_path, ToldTasks)
    events.run_task(100_000, "a")
    assert status_of(tasks, job()) == "running"
    events.tell_long_run(3_000)
    by_the_follower = ToldTasks(events.files)
    by_the_follower.advance()
    by_the_follower.keep()
    index = Path(events.files.directory, "tasks.index")
    written_ns = index.stat().st_mtime_ns
    ended = job(status=JobStatus.FAILED, reason=Reason.EXITED_NONZERO, completed_at=NOON)
    assert tasks.page(ended, 1, TaskQuery()).total == 3_001
    assert index.stat().st_mtime_ns == written_ns


@pytest.mark.parametrize(
    ("record", "status"),
    [
        (replace(RECORD, exit_code=1), "failed"),
        (replace(RECORD, exit_code=0), "completed"),
        (replace(RECORD, exit_code=None, exit_signal=15, stopped="cancel"), "cancelled"),
        (replace(RECORD, exit_code=1, stopped="interrupt"), "cancelled"),
        (replace(RECORD, exit_code=1, stopped="timeout"), "failed"),
        (None, "failed"),
    ],
)
def test_an_earlier_attempt_has_ended_as_its_record_says(
    tmp_path: Path, record: ExitRecord | None, status: str
) -> None:
    events = EventsFile(tmp_path)
    events.run_task(1, "a")
    if record is not None:
        with open(events.files.exit, "wb") as file:
            file.write(record.dump())
    tasks = AttemptTasks(tmp_path, ToldTasks)
    task = tasks.task(job(attempt=2), 1, 1)
    assert task is not None
    assert (task.status.value, task.ended_at) == (status, NOON if record is not None else None)


def test_what_fails_once_a_job_is_to_be_stopped_is_not_to_blame(tmp_path: Path) -> None:
    events = EventsFile(tmp_path)
    for number, at in ((1, NOON - timedelta(seconds=1)), (2, NOON)):
        events.run_task(number, "a")
        events.tell("job_error", t=at.timestamp(), jobid=number, rule="a", exit_code=143)
    tasks = AttemptTasks(tmp_path, ToldTasks)
    for stopped in (
        job(status=JobStatus.CANCELLED, reason=Reason.CANCEL_REQUESTED, cancel_requested_at=NOON),
        replace(
            job(status=JobStatus.FAILED, reason=Reason.TIMED_OUT, started_at=NOON - timedelta(seconds=9)),
            spec=JobSpec(timeout_s=9.0),
        ),
    ):
        errors = [task.error for task in tasks.each(stopped, 1)]
        assert [error is not None and error.is_root for error in errors] == [True, False]


@pytest.mark.parametrize("stopped", ["cancel", "timeout", "memory", "interrupt", None])
def test_what_a_signal_ended_in_an_earlier_attempt_that_was_stopped_is_not_to_blame(
    tmp_path: Path, stopped: str | None
) -> None:
    events = EventsFile(tmp_path)
    for number, how in enumerate(({"exit_code": 1}, {"exit_code": 143}, {"exit_signal": 9}, {})):
        events.run_task(number, "a")
        events.tell("job_error", jobid=number, rule="a", **how)
    Path(events.files.exit).write_bytes(replace(RECORD, stopped=stopped).dump())
    tasks = list(AttemptTasks(tmp_path, ToldTasks).each(job(attempt=2), 1))
    by_signal = "cancelled" if stopped in ("cancel", "interrupt") else "failed"
    assert [task.status.value for task in tasks] == ["failed", by_signal, by_signal, "failed"]
    blamed = [task.error is not None and task.error.is_root for task in tasks]
    assert blamed == [True, stopped is None, stopped is None, True]


def test_a_dry_run_that_has_ended_keeps_what_there_would_be_to_do(tmp_path: Path) -> None:
    events = EventsFile(tmp_path)
    events.tell("job_info", jobid=1, rule="a")
    tasks = AttemptTasks(tmp_path, ToldTasks)
    fields: dict[str, Any] = {
        "completed_at": NOON,
        "status": JobStatus.COMPLETED,
        "reason": Reason.EXITED_ZERO,
    }
    dry = replace(job(), spec=JobSpec(options={"dry_run": True}), **fields)
    assert status_of(tasks, dry) == "pending"
    assert status_of(tasks, replace(job(), **fields)) == "cancelled"


def test_no_more_is_kept_than_there_is_room_for(tmp_path: Path) -> None:
    readers = Readers()
    jobs = [job(f"job{number}") for number in range(12)]
    for each in jobs:
        EventsFile(tmp_path, each.id).tell_long_run(300)
    tasks = AttemptTasks(tmp_path, readers, max_tasks=1_500)
    for each in jobs:
        assert tasks.page(each, 1, TaskQuery()).total == 300
        assert tasks._weight <= 1_500
    assert readers.made == 12
    assert [task.number for task in tasks.each(jobs[-1], 1)] == list(range(300))
    assert readers.made == 12
    assert tasks.page(jobs[0], 1, TaskQuery()).total == 300
    assert readers.made == 13
    huge = job("huge")
    EventsFile(tmp_path, "huge").tell_long_run(2_000)
    assert tasks.page(huge, 1, TaskQuery()).total == 2_000
    assert list(tasks._kept) == [tasks._kept.popitem()[0]]

"""Pages of a run of 10,000 tasks: how long one takes, and what many such runs leave in memory."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from benchmarks.rows import Row, limited
from runner.attempt_tasks import AttemptTasks
from runner.engines.told_tasks import ToldTasks
from runner.jobs import Job, JobSpec, JobStatus, Reason
from runner.tasks import TaskQuery
from tests.support.event_files import EventsFile

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.rows import Options

_TASKS: Final = 10_000
_PAGE: Final = TaskQuery(limit=50)
_LAST_PAGE: Final = TaskQuery(limit=50, after=_TASKS - 51)
_LARGEST_PAGE: Final = TaskQuery(limit=500, rules=("align",))


def run(options: Options) -> list[Row]:
    runs = 64 if options.quick else 120
    jobs = [_ended(number) for number in range(runs)]
    size = _tell(options.directory, jobs[0])
    for job in jobs[1:]:
        _copy(options.directory, jobs[0], job)
    unread_s = _first_page_s(options.directory, jobs[0])  # and leaves the index
    kept_s = min(_first_page_s(options.directory, jobs[0]) for _ in range(5))
    tasks = AttemptTasks(options.directory, ToldTasks)
    tasks.page(jobs[0], 1, _PAGE)
    warm_s = min(_page_s(tasks, jobs[0], _LAST_PAGE) for _ in range(5))
    largest_s = min(_page_s(tasks, jobs[0], _LARGEST_PAGE) for _ in range(5))
    grown = _memory_of(options.directory, jobs)
    what = f"of a run of {_TASKS:,} tasks ({size / 1e6:.1f} MB of events)"
    return [
        limited(f"the first page {what}, cold", kept_s * 1000, "ms", at_most=50),
        Row(f"the first page {what}, cold, its index lost", unread_s * 1000, "ms"),
        Row("its last page, once it is known", warm_s * 1000, "ms"),
        Row("500 of one of its rules, once it is known", largest_s * 1000, "ms"),
        limited(
            f"memory that {runs} such runs leave beyond the first {runs // 2}", grown / 1e6, "MB", at_most=2
        ),
    ]


def _ended(number: int) -> Job:
    now = datetime.now(UTC)
    return Job(
        f"job{number:03}",
        JobSpec(),
        JobStatus.COMPLETED,
        "bench",
        now,
        now,
        reason=Reason.EXITED_ZERO,
        completed_at=now,
    )


def _tell(data_dir: Path, job: Job) -> int:
    events = EventsFile(data_dir, job.id)
    events.tell_long_run(_TASKS)
    return os.stat(events.files.events).st_size


def _copy(data_dir: Path, source: Job, target: Job) -> None:
    with open(EventsFile(data_dir, source.id).files.events, "rb") as file:
        EventsFile(data_dir, target.id).append(file.read())


def _first_page_s(data_dir: Path, job: Job) -> float:
    return _page_s(AttemptTasks(data_dir, ToldTasks), job, _PAGE)


def _page_s(tasks: AttemptTasks, job: Job, query: TaskQuery) -> float:
    begun = time.perf_counter()
    page = tasks.page(job, 1, query)
    seconds = time.perf_counter() - begun
    if len(page.items) != query.limit:
        raise RuntimeError(f"a page of {len(page.items)} tasks")
    return seconds


def _memory_of(data_dir: Path, jobs: list[Job]) -> int:
    """How much more memory this process takes after all of the runs than after half of them."""
    tasks = AttemptTasks(data_dir, ToldTasks)
    half = len(jobs) // 2
    for job in jobs[:half]:
        tasks.page(job, 1, _PAGE)
    before = _resident_bytes()
    for job in jobs[half:]:
        tasks.page(job, 1, _PAGE)
    return max(0, _resident_bytes() - before)


def _resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

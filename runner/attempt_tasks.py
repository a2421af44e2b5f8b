"""The tasks of jobs' attempts: read from their events files, as many kept in memory as there is room for."""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from runner.attempt_files import AttemptFiles, ExitRecord, InvalidRecord
from runner.job_files import open_in_job
from runner.jobs import JobStatus, Reason
from runner.outcomes import reason_of
from runner.ports import Handle
from runner.tasks import RunEnd, TaskQuery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from runner.jobs import Job
    from runner.ports import TaskReader
    from runner.tasks import RuleGraph, Task, TaskPage

MAX_KEPT_TASKS: Final = 300_000
_AT_A_TIME: Final = 500
_RECORD_BYTES: Final = 64 * 2**10


@dataclass(slots=True)
class _Kept:
    reader: TaskReader
    lock: threading.Lock = field(default_factory=threading.Lock)
    is_read: bool = False  # all of it: the run had ended
    weight: int = 0


class AttemptTasks:
    """Answers about the tasks of any attempt. Thread-safe.

    Those asked for last are kept, `max_tasks` in all; others are read anew when somebody asks.
    """

    def __init__(
        self,
        data_dir: Path,
        make_reader: Callable[[AttemptFiles], TaskReader],
        *,
        max_tasks: int = MAX_KEPT_TASKS,
    ) -> None:
        self._data_dir = data_dir
        self._make_reader = make_reader
        self._max_tasks = max_tasks
        self._kept: OrderedDict[Handle, _Kept] = OrderedDict()  # the one asked for last is last
        self._weight = 0
        self._lock = threading.Lock()

    def page(self, job: Job, attempt: int, query: TaskQuery) -> TaskPage:
        with self._read(job, attempt) as (reader, end):
            return reader.page(query, end, attempt=attempt)

    def task(self, job: Job, attempt: int, number: int) -> Task | None:
        with self._read(job, attempt) as (reader, end):
            return reader.task(number, end)

    def each(self, job: Job, attempt: int) -> Iterator[Task]:
        """All tasks in the order of their numbers, some hundreds read at a time."""
        query = TaskQuery(limit=_AT_A_TIME)
        while True:
            page = self.page(job, attempt, query)
            yield from page.items
            if not page.has_more:
                return
            query = TaskQuery(limit=_AT_A_TIME, after=page.items[-1].number)

    def graph(self, job: Job, attempt: int) -> RuleGraph:
        with self._read(job, attempt) as (reader, end):
            return reader.graph(end, attempt=attempt)

    @contextmanager
    def _read(self, job: Job, attempt: int) -> Iterator[tuple[TaskReader, RunEnd | None]]:
        handle = Handle(job.id, attempt)
        end = self._end_of(job, handle)
        kept = self._known(handle)
        with kept.lock:
            self._read_on(handle, kept, has_ended=end is not None)
            yield kept.reader, end

    def _known(self, handle: Handle) -> _Kept:
        with self._lock:
            kept = self._kept.get(handle)
            if kept is None:
                kept = self._kept[handle] = _Kept(self._make_reader(self._files(handle)))
            self._kept.move_to_end(handle)
            return kept

    def _read_on(self, handle: Handle, kept: _Kept, *, has_ended: bool) -> None:
        if kept.is_read:
            return
        if not (has_ended and kept.reader.restore()):
            kept.reader.advance()
            if has_ended:
                kept.reader.keep()
        kept.is_read = has_ended
        self._weigh(handle, kept)

    def _weigh(self, handle: Handle, kept: _Kept) -> None:
        """Forget those asked for longest ago, as many as are too many."""
        with self._lock:
            if self._kept.get(handle) is not kept:
                return
            self._weight += kept.reader.weight - kept.weight
            kept.weight = kept.reader.weight
            while self._weight > self._max_tasks and len(self._kept) > 1:
                _, forgotten = self._kept.popitem(last=False)
                self._weight -= forgotten.weight

    def _files(self, handle: Handle) -> AttemptFiles:
        return AttemptFiles.of(self._data_dir, handle.job_id, handle.attempt)

    # ------------------------------------------------------------ how it has ended

    def _end_of(self, job: Job, handle: Handle) -> RunEnd | None:
        end = self._known_end(job, handle)
        if end is not None and end.reason is Reason.EXITED_ZERO and job.spec.options.get("dry_run") is True:
            return None  # its tasks are what there would be to do
        return end

    def _known_end(self, job: Job, handle: Handle) -> RunEnd | None:
        if handle.attempt < job.attempt:
            return self._recorded_end(handle)
        if not job.status.is_terminal:
            return None
        if job.status is JobStatus.CANCELLED:
            return RunEnd(job.reason, job.completed_at, stopped_at=job.cancel_requested_at)
        stopped_at = None
        if job.reason is Reason.TIMED_OUT and job.started_at is not None and job.spec.timeout_s is not None:
            stopped_at = job.started_at + timedelta(seconds=job.spec.timeout_s)
        return RunEnd(job.reason, job.completed_at, stopped_at=stopped_at)

    def _recorded_end(self, handle: Handle) -> RunEnd:
        """Of an earlier attempt: the store knows the latest alone, but each has left its record."""
        files = self._files(handle)
        try:
            with open(open_in_job(files, files.exit), "rb", buffering=0) as file:
                record = ExitRecord.load(file.read(_RECORD_BYTES))
        except (OSError, InvalidRecord):
            return RunEnd(Reason.LOST)
        reason = reason_of(record, cancel_requested=record.stopped == "cancel")
        ended_at = datetime.fromtimestamp(record.ended_at, UTC)
        return RunEnd(
            reason,
            ended_at,
            was_stopped=record.stopped is not None,
            is_interrupted=record.stopped == "interrupt",
        )

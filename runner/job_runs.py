"""What the runs of jobs consist of and use, for people who ask: tasks, their logs, the graph of rules."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from runner.access import OPERATOR
from runner.attempt_files import AttemptFiles
from runner.engine_version import told_version
from runner.errors import OutputNotFound, TaskNotFound
from runner.log_store import end_of
from runner.plain_text import last_lines
from runner.tasks import is_of_inner_run
from runner.usage_history import history_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runner.access import Caller
    from runner.attempt_tasks import AttemptTasks
    from runner.job_files import JobFiles, OpenedFile
    from runner.job_store import JobStore
    from runner.jobs import Job
    from runner.log_store import LogStore
    from runner.ports import Engine
    from runner.tasks import RuleGraph, Task, TaskPage, TaskQuery
    from runner.usage_history import UsageHistory


_MAX_LOGS: Final = 16
_LOG_BYTES: Final = 32 * 2**10
_RUN_LOG_BYTES: Final = 256 * 2**10


class JobRuns:
    """Tasks, graphs and the use of jobs' attempts. Thread-safe; every method may wait for the disk.

    `attempt` None is the latest. All raise JobNotFound, and TaskNotFound for an attempt that there is not. An
    attempt that has told nothing yet has no tasks and no rules.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        store: JobStore,
        tasks: AttemptTasks,
        files: JobFiles,
        logs: LogStore,
        engine: Engine,
    ) -> None:
        self._data_dir = data_dir
        self._logs = logs
        self._engine = engine
        self._store = store
        self._tasks = tasks
        self._files = files

    def tasks(self, job_id: str, query: TaskQuery, *, caller: Caller = OPERATOR) -> TaskPage:
        return self._tasks.page(*self._attempt(job_id, query.attempt, caller), query)

    def each_task(
        self, job_id: str, attempt: int | None = None, *, caller: Caller = OPERATOR
    ) -> Iterator[Task]:
        """All tasks in the order of their numbers, each read when it is asked for."""
        return self._tasks.each(*self._attempt(job_id, attempt, caller))

    def task(
        self, job_id: str, number: int, attempt: int | None = None, *, caller: Caller = OPERATOR
    ) -> Task:
        """One task, with the last lines of its log if it has failed.

        Raises TaskNotFound when the attempt has told of none with this number.
        """
        job, at = self._attempt(job_id, attempt, caller)
        task = self._tasks.task(job, at, number)
        if task is None:
            raise TaskNotFound(f"Attempt {at} of job {job_id} has no task {number}: see its list of tasks.")
        return self._with_log_lines(job, at, task)

    def _with_log_lines(self, job: Job, attempt: int, task: Task) -> Task:
        """A failed task with the last lines of its log, or of what it wrote to the run's."""
        if task.error is None:
            return task
        lines = next(filter(None, (self._end_of(job.id, task, path) for path in task.log[:_MAX_LOGS])), "")
        if not lines:
            tail = end_of(self._logs.open(job.id, attempt), _RUN_LOG_BYTES)
            lines = self._engine.written_by(task, tail).replace(f"{self._work(job.id)}/", "")
        return replace(task, error=replace(task.error, log_lines=tuple(lines.splitlines())))

    def _end_of(self, job_id: str, task: Task, path: str) -> str:
        below = self._below_work(job_id, path)
        if below is None:
            return ""
        try:
            with self._files.open(job_id, below) as file:
                data = file.read(max(0, file.size_bytes - _LOG_BYTES), _LOG_BYTES)
        except (OSError, OutputNotFound):
            return ""
        inside = self._engine.written_by(task, data) if is_of_inner_run(path) else ""
        return inside.replace(f"{self._work(job_id)}/", "") or last_lines(data.decode("utf-8", "replace"))

    def graph(self, job_id: str, attempt: int | None = None, *, caller: Caller = OPERATOR) -> RuleGraph:
        return self._tasks.graph(*self._attempt(job_id, attempt, caller))

    def engine_version(
        self, job_id: str, attempt: int | None = None, *, caller: Caller = OPERATOR
    ) -> str | None:
        """That of the Snakemake that ran it; None where it has not told of one, as the stand-in does."""
        job, number = self._attempt(job_id, attempt, caller)
        return told_version(AttemptFiles.of(self._data_dir, job.id, number))

    def usage(self, job_id: str, attempt: int | None = None, *, caller: Caller = OPERATOR) -> UsageHistory:
        """What it used of the machine as time went by; nothing of an attempt that was not looked at."""
        job, number = self._attempt(job_id, attempt, caller)
        return history_of(job, number, AttemptFiles.of(self._data_dir, job.id, number))

    def open_task_log(
        self,
        job_id: str,
        number: int,
        index: int = 0,
        attempt: int | None = None,
        *,
        caller: Caller = OPERATOR,
    ) -> OpenedFile:
        """The `log:` file with this index, as it is now: a later attempt may have written it anew.

        Raises as `task` does, and OutputNotFound when there is no such file.
        """
        task = self.task(job_id, number, attempt, caller=caller)
        path = self._below_work(job_id, task.log[index]) if 0 <= index < len(task.log) else None
        if path is None:
            raise OutputNotFound(job_id)
        return self._files.open(job_id, path)

    def _below_work(self, job_id: str, path: str) -> bytes | None:
        """The path from the job's working directory down; None when it does not lead there."""
        below = path.removeprefix(self._work(job_id) + "/")
        names = [name for name in below.split("/") if name not in ("", ".")]
        return None if below.startswith("/") or not names else os.fsencode("/".join(names))

    def _work(self, job_id: str) -> str:
        return f"{os.fspath(self._data_dir)}/jobs/{job_id}/work"

    def _attempt(self, job_id: str, attempt: int | None, caller: Caller) -> tuple[Job, int]:
        job = self._store.get(job_id, tenant=caller.visible_tenant)
        number = job.attempt if attempt is None else attempt
        if not 1 <= number <= job.attempt:
            raise TaskNotFound(f"Job {job_id} has no attempt {number}; its attempts are 1 to {job.attempt}.")
        return job, number

"""What Snakemake and its stand-in have in common: one command line, and one form of events."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from runner.engines import command, error_text
from runner.engines.run_events import EventsReader
from runner.engines.told_tasks import ToldTasks

if TYPE_CHECKING:
    from runner.attempt_files import AttemptFiles
    from runner.jobs import Job, JobSpec
    from runner.ports import Command, RunState, Workflow
    from runner.tasks import Task


class SnakemakeDialect(ABC):
    """The part of an `Engine` that is the same for whatever takes Snakemake's arguments and tells events."""

    @abstractmethod
    def _command(
        self, job: Job, workflow: Workflow, files: AttemptFiles, *, report_to: str | None = None
    ) -> Command: ...

    def command(self, job: Job, workflow: Workflow, files: AttemptFiles) -> Command:
        return self._command(job, workflow, files)

    def plan(self, job: Job, workflow: Workflow, files: AttemptFiles) -> Command:
        return self._command(command.for_plan(job), workflow, files)

    def report(self, job: Job, workflow: Workflow, files: AttemptFiles) -> Command:
        return self._command(command.for_report(job), workflow, files, report_to=files.report_draft)

    def reader(self, files: AttemptFiles) -> EventsReader:
        return EventsReader(files)

    def tasks(self, files: AttemptFiles) -> ToldTasks:
        return ToldTasks(files)

    def explain(self, state: RunState, log_tail: bytes) -> str | None:
        return error_text.explain(state, log_tail)

    def written_by(self, task: Task, log_tail: bytes) -> str:
        return error_text.written_by(task, log_tail)

    def remark(self, spec: JobSpec, state: RunState, log_tail: bytes) -> str | None:
        if spec.options.get("dry_run") or self._is_foreign():
            return None
        return error_text.unfinished(state, log_tail)

    def _is_foreign(self) -> bool:
        """Whether it is a program that tells no events and writes what it likes."""
        return False

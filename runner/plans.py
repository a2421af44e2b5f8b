"""Plans: what a job would do, asked of the engine by a dry run, without a job."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from runner.attempt_files import AttemptFiles
from runner.disk_trouble import telling_trouble
from runner.empty_attachments import empty_attachments
from runner.errors import BackendUnavailable
from runner.jobs import Job, JobStatus
from runner.ports import Handle
from runner.side_answers import explained, record_of, request_for
from runner.side_files import new_id
from runner.tasks import TaskQuery

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from runner.attempt_files import ExitRecord
    from runner.jobs import JobSpec
    from runner.log_store import LogStore
    from runner.ports import Engine, PinnedWorkflow
    from runner.settings import RunnerSettings
    from runner.side_runs import SideRuns
    from runner.tasks import MissingInput, RuleGraph, TaskPage

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a job would do in a fresh working directory.

    Not `ok`: the engine could not plan it, `errors` say why in its own words, and the rest is what it has
    told until then. `rules` count the tasks to be done.
    """

    workflow: str
    version: str
    ok: bool
    tasks: TaskPage
    graph: RuleGraph
    errors: tuple[str, ...] = ()
    missing_input: tuple[MissingInput, ...] = ()

    @property
    def rules(self) -> Mapping[str, int]:
        counts = {node.rule: node.counts.total - node.counts.up_to_date for node in self.graph.nodes}
        return {rule: count for rule, count in counts.items() if count}

    @property
    def up_to_date(self) -> int:
        return sum(node.counts.up_to_date for node in self.graph.nodes)


class Plans:
    """Thread-safe. Nothing of a plan is kept."""

    def __init__(
        self,
        *,
        settings: RunnerSettings,
        engine: Engine,
        pin: Callable[[str], PinnedWorkflow],
        logs: LogStore,
        side_runs: SideRuns,
    ) -> None:
        self._settings = settings
        self._pin = pin
        self._engine = engine
        self._logs = logs
        self._side_runs = side_runs

    def make(self, spec: JobSpec, *, limit: int, attachments: Sequence[str] = ()) -> Plan:
        """Plan a job of this spec, which is valid; with the first `limit` of its tasks.

        `attachments` are paths of files that would come with the job: they are there, and empty. Raises
        InvalidSpec for one that would not be taken, WorkflowNotFound, EngineUnavailable, BackendUnavailable,
        ShuttingDown, StorageFull.
        """
        pinned = self._pin(spec.workflow)
        now = datetime.now(UTC)
        job = Job(
            id=new_id(),
            spec=spec,
            status=JobStatus.PENDING,
            engine=self._engine.name,
            created_at=now,
            updated_at=now,
        )
        files = AttemptFiles.of(self._settings.data_dir, job.id, job.attempt)
        timeout_s = self._settings.plan_timeout_s
        empty = empty_attachments(attachments, pinned.workflow.attachments, files)
        command = self._engine.plan(job, pinned.workflow, files)
        command = replace(command, files={**command.files, **empty})
        folder = pinned.workflow.folder
        request = request_for(Handle(job.id, job.attempt), command, folder, spec, timeout_s)
        with (
            telling_trouble("the plan's files", BackendUnavailable),
            self._side_runs.run(request, timeout_s) as end,
        ):
            record = record_of(end)
            _log.info("plan.made", workflow=spec.workflow, exit_code=record.exit_code)
            return self._read(files, record, pinned, limit)

    def _read(self, files: AttemptFiles, record: ExitRecord, pinned: PinnedWorkflow, limit: int) -> Plan:
        tasks = self._engine.tasks(files)
        tasks.advance()  # as much as a run of honest engines writes in all
        run = self._engine.reader(files)
        run.advance()
        told = run.ended()
        errors = told.errors
        if record.exit_code != 0 and (record.stopped is not None or not errors):
            timeout = ("SNAKELINE_PLAN_TIMEOUT_S", self._settings.plan_timeout_s)
            errors = (explained(self._engine, self._logs, files, record, timeout),)
        return Plan(
            workflow=pinned.workflow.name,
            version=pinned.version,
            ok=record.exit_code == 0,
            tasks=tasks.page(TaskQuery(limit=limit), None, attempt=1),
            graph=tasks.graph(None, attempt=1),
            errors=errors,
            missing_input=told.missing_input,
        )

"""`CallersJobs`: the jobs as one caller may see and change them; all that a request gets of the service."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from runner.access import Scope
from runner.job_store import JobPage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from concurrent.futures import Future

    from runner.access import Caller
    from runner.file_listing import FileQuery, ListedFile
    from runner.job_files import OpenedFile
    from runner.job_news import NewsPage
    from runner.job_outputs import OutputPage, OutputQuery
    from runner.job_store import JobQuery, Submitted
    from runner.jobs import Job, JobEvent, JobSpec, JobStatus
    from runner.log_store import Log
    from runner.plans import Plan
    from runner.ports import PinnedWorkflow, Workflow
    from runner.service import JobService
    from runner.tasks import RuleGraph, Task, TaskPage, TaskQuery
    from runner.uploads import Upload
    from runner.usage_history import UsageHistory


class CallersJobs:
    """The methods of `JobService`, each limited to the caller's tenant and to its scopes.

    A job of another tenant is answered as one that does not exist, by the same query. What the caller
    changes leaves an audit record in the same commit. Every method raises Forbidden without its scope:
    `read` to look, `submit` to change. Made by `JobService.acting_for`.
    """

    def __init__(self, service: JobService, caller: Caller) -> None:
        self._service = service
        self._caller = caller

    @property
    def caller(self) -> Caller:
        return self._caller

    # ------------------------------------------------------------ changes

    def submit(
        self, spec: JobSpec, *, workflow: PinnedWorkflow | None = None, idempotency_key: str | None = None
    ) -> Future[Submitted]:
        """As `JobService.submit`; raises Forbidden at once."""
        self._caller.require(Scope.SUBMIT)
        return self._service.submit(
            spec, workflow=workflow, idempotency_key=idempotency_key, caller=self._caller
        )

    def pinned(self, name: str) -> PinnedWorkflow | None:
        self._caller.require(Scope.SUBMIT)
        return self._service.pinned(name)

    def pin(self, name: str) -> PinnedWorkflow:
        self._caller.require(Scope.SUBMIT)
        return self._service.pin(name)

    def begin_upload(self, spec: JobSpec) -> Upload:
        self._caller.require(Scope.SUBMIT)
        return self._service.begin_upload(spec, caller=self._caller)

    def submit_upload(
        self, spec: JobSpec, upload: Upload, *, idempotency_key: str | None = None
    ) -> Submitted:
        self._caller.require(Scope.SUBMIT)
        return self._service.submit_upload(spec, upload, idempotency_key=idempotency_key, caller=self._caller)

    def cancel(self, job_id: str) -> Job:
        self._caller.require(Scope.SUBMIT)
        return self._service.cancel(job_id, caller=self._caller)

    def retry(self, job_id: str) -> Job:
        self._caller.require(Scope.SUBMIT)
        return self._service.retry(job_id, caller=self._caller)

    def plan(self, spec: JobSpec, limit: int, attachments: Sequence[str] = ()) -> Plan:
        """As `JobService.plan`. It needs the scope of who submits: it runs the workflow's code."""
        self._caller.require(Scope.SUBMIT)
        return self._service.plan(spec, limit=limit, attachments=attachments)

    def make_report(self, job_id: str) -> OpenedFile:
        """As `Reports.make`; it runs the workflow's code, too."""
        self._caller.require(Scope.SUBMIT)
        return self._service.reports.make(job_id, caller=self._caller)

    def open_report(self, job_id: str) -> OpenedFile:
        self._caller.require(Scope.READ)
        return self._service.reports.open(job_id, caller=self._caller)

    def delete(self, job_id: str) -> None:
        self._caller.require(Scope.SUBMIT)
        self._service.delete(job_id, caller=self._caller)

    # ------------------------------------------------------------ questions

    def get(self, job_id: str) -> Job:
        self._caller.require(Scope.READ)
        return self._service.get(job_id, caller=self._caller)

    def list(self, query: JobQuery) -> JobPage:
        """As `JobService.list`, of the jobs that the caller may see: of another tenant there are none."""
        self._caller.require(Scope.READ)
        own = self._caller.visible_tenant
        if own is not None and query.tenant not in (None, own):
            return JobPage((), 0, total_is_exact=True, has_more=False)
        return self._service.list(query if own is None else replace(query, tenant=own))

    def queue_places(self, jobs: Sequence[Job]) -> Mapping[str, int]:
        """As `JobService.queue_places`, of jobs that this caller has been answered."""
        self._caller.require(Scope.READ)
        return self._service.queue_places(jobs)

    def counts(self) -> Mapping[JobStatus, int]:
        self._caller.require(Scope.READ)
        return self._service.counts(caller=self._caller)

    def log(self, job_id: str, attempt: int | None = None) -> tuple[Job, int, Log]:
        self._caller.require(Scope.READ)
        return self._service.log(job_id, attempt, caller=self._caller)

    def tasks(self, job_id: str, query: TaskQuery) -> TaskPage:
        self._caller.require(Scope.READ)
        return self._service.runs.tasks(job_id, query, caller=self._caller)

    def each_task(self, job_id: str, attempt: int | None = None) -> Iterator[Task]:
        self._caller.require(Scope.READ)
        return self._service.runs.each_task(job_id, attempt, caller=self._caller)

    def task(self, job_id: str, number: int, attempt: int | None = None) -> Task:
        self._caller.require(Scope.READ)
        return self._service.runs.task(job_id, number, attempt, caller=self._caller)

    def graph(self, job_id: str, attempt: int | None = None) -> RuleGraph:
        self._caller.require(Scope.READ)
        return self._service.runs.graph(job_id, attempt, caller=self._caller)

    def engine_version(self, job_id: str, attempt: int | None = None) -> str | None:
        self._caller.require(Scope.READ)
        return self._service.runs.engine_version(job_id, attempt, caller=self._caller)

    def usage(self, job_id: str, attempt: int | None = None) -> UsageHistory:
        self._caller.require(Scope.READ)
        return self._service.runs.usage(job_id, attempt, caller=self._caller)

    def open_task_log(
        self, job_id: str, number: int, index: int = 0, attempt: int | None = None
    ) -> OpenedFile:
        """As `JobRuns.open_task_log`."""
        self._caller.require(Scope.READ)
        return self._service.runs.open_task_log(job_id, number, index, attempt, caller=self._caller)

    def outputs(self, job_id: str, query: OutputQuery) -> OutputPage:
        self._caller.require(Scope.READ)
        return self._service.outputs.page(job_id, query, caller=self._caller)

    def every_output(
        self, job_id: str, query: FileQuery
    ) -> Iterator[tuple[ListedFile, Callable[[], OpenedFile]]]:
        self._caller.require(Scope.READ)
        return self._service.outputs.every(job_id, query, caller=self._caller)

    def open_output(self, job_id: str, path: bytes) -> OpenedFile:
        self._caller.require(Scope.READ)
        return self._service.outputs.open(job_id, path, caller=self._caller)

    def workflows(self) -> tuple[Workflow, ...]:
        self._caller.require(Scope.READ)
        return self._service.workflows()

    def workflow(self, name: str) -> Workflow:
        self._caller.require(Scope.READ)
        return self._service.workflow(name)

    def workflow_version(self, workflow: Workflow) -> str | None:
        self._caller.require(Scope.READ)
        return self._service.workflow_version(workflow)

    def news(self, after_seq: int, *, job_id: str | None = None, limit: int = 200) -> NewsPage:
        self._caller.require(Scope.READ)
        return self._service.news.page(after_seq, job_id=job_id, limit=limit, caller=self._caller)

    def newest_event(self) -> int:
        self._caller.require(Scope.READ)
        return self._service.news.newest(caller=self._caller)

    def watch(self, callback: Callable[[JobEvent], None], *, job_id: str | None = None) -> Callable[[], None]:
        """As `JobService.watch`, for changes of jobs that the caller may see."""
        self._caller.require(Scope.READ)
        return self._service.watch(callback, job_id=job_id, caller=self._caller)

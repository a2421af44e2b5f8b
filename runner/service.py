"""`JobService`: the API's only door to the runner."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from runner.access import OPERATOR, Action, audit_of
from runner.callers_jobs import CallersJobs
from runner.errors import InvalidTransition, JobBusy, LogNotFound, ShuttingDown
from runner.job_news import JobNews
from runner.job_store import Update
from runner.jobs import Change, Job, JobStatus, cancel_asked, retried

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Future

    from runner.access import AuditRecord, Caller
    from runner.health import Figures, Readiness, ServiceHealth
    from runner.job_outputs import JobOutputs
    from runner.job_runs import JobRuns
    from runner.job_store import Admission, JobPage, JobQuery, JobStore, Submitted
    from runner.jobs import JobEvent, JobSpec
    from runner.log_store import Log, LogStore
    from runner.measurements import Measurements
    from runner.plans import Plan, Plans
    from runner.ports import Engine, EventBus, PinnedWorkflow, Workflow, WorkflowPins, WorkflowRegistry
    from runner.removal import JobRemoval
    from runner.reports import Reports
    from runner.side_runs import SideRuns
    from runner.submissions import Submissions
    from runner.uploads import Upload


class JobService:
    """Submit, get, list, cancel, retry, delete. Thread-safe.

    Every method but `submit`, `watch` and `drain` may wait for the disk. `caller` says whose jobs there
    are and who is put on record: by default the operator, who sees every tenant.
    """

    def __init__(
        self,
        *,
        store: JobStore,
        workflows: WorkflowRegistry,
        pins: WorkflowPins,
        engine: Engine,
        logs: LogStore,
        submissions: Submissions,
        outputs: JobOutputs,
        runs: JobRuns,
        side_runs: SideRuns,
        plans: Plans,
        reports: Reports,
        bus: EventBus,
        removal: JobRemoval,
        health: ServiceHealth,
        measurements: Measurements,
    ) -> None:
        self._store = store
        self._workflows = workflows
        self._pins = pins
        self._engine = engine
        self._logs = logs
        self._submissions = submissions
        self.outputs = outputs
        self.runs = runs
        self.news = JobNews(store)
        self._side_runs = side_runs
        self._plans = plans
        self.reports = reports
        self._bus = bus
        self._removal = removal
        self._health = health
        self.measurements = measurements
        self._draining = False

    @property
    def engine_name(self) -> str:
        return self._engine.name

    def acting_for(self, caller: Caller) -> CallersJobs:
        """The jobs as `caller` may see and change them: the only way to them for a request."""
        return CallersJobs(self, caller)

    # ------------------------------------------------------------ changes

    def submit(
        self,
        spec: JobSpec,
        *,
        workflow: PinnedWorkflow | None = None,
        idempotency_key: str | None = None,
        caller: Caller = OPERATOR,
    ) -> Future[Submitted]:
        """Accept a job of the caller's tenant; the future resolves once it is durably stored.

        `workflow` is what `pinned` or `pin` has just answered for `spec.workflow`; without it this call may
        have to read all of the workflow's folder.

        Raises at once: ShuttingDown, WorkflowNotFound, WorkflowUnavailable, InvalidSpec, StorageFull. In the
        future: IdempotencyMismatch, QueueFull, StoreUnavailable, StorageFull, and for the tenant's quota
        InvalidSpec, TenantQueueFull, StorageQuotaExceeded.
        """
        self._require_accepting()
        return self._submissions.submit(
            spec, workflow=workflow, idempotency_key=idempotency_key, caller=caller
        )

    def pinned(self, name: str) -> PinnedWorkflow | None:
        """The workflow at the version that `submit` takes, if that takes no time; else None: ask `pin`."""
        return self._pins.pinned(name)

    def pin(self, name: str) -> PinnedWorkflow:
        """Raises WorkflowNotFound, WorkflowUnavailable, StorageFull."""
        return self._submissions.pin(name)

    def begin_upload(self, spec: JobSpec, *, caller: Caller = OPERATOR) -> Upload:
        """Where to put the files that come with a job, for `submit_upload`.

        Raises what `submit` raises at once, TooManyUploads, StoreUnavailable.
        """
        self._require_accepting()
        return self._submissions.begin_upload(spec, caller=caller)

    def submit_upload(
        self,
        spec: JobSpec,
        upload: Upload,
        *,
        idempotency_key: str | None = None,
        caller: Caller = OPERATOR,
    ) -> Submitted:
        """As `submit`, with files; returns once the job is durably stored, and they are.

        Raises what `submit` and its future raise, UploadTooLarge.
        """
        self._require_accepting()
        return self._submissions.submit_upload(spec, upload, idempotency_key=idempotency_key, caller=caller)

    def cancel(self, job_id: str, *, caller: Caller = OPERATOR) -> Job:
        """Cancel a pending job now, or ask a running one to end; asking twice is one request.

        Raises JobNotFound, InvalidTransition when it has ended.
        """
        change = (Change.CANCEL_REQUESTED, Action.JOB_CANCELLED)
        job = self._change(job_id, caller, *change, cancel_asked)
        if job.status is JobStatus.CANCELLED:
            self.measurements.job_cancelled_in_queue(job)
        return job

    def retry(self, job_id: str, *, caller: Caller = OPERATOR) -> Job:
        """Queue a failed or cancelled job for another attempt in the same working directory.

        Raises JobNotFound, InvalidTransition for any other status, ShuttingDown; for what must not wait as
        well QueueFull and what the tenant's quota says, as `submit` does.
        """
        self._require_accepting()
        change = (Change.RETRIED, Action.JOB_RETRIED)
        return self._change(job_id, caller, *change, retried, admission=self._submissions.admission)

    def delete(self, job_id: str, *, caller: Caller = OPERATOR) -> None:
        """Remove an ended job with its files.

        Raises JobNotFound, InvalidTransition before its end, JobBusy while a report of it is made.
        """
        while True:
            job = self._store.get(job_id, tenant=caller.visible_tenant)
            if not job.status.is_terminal:
                raise InvalidTransition(job.id, job.status.value, "deleted")
            if self._removal.remove(job, why="asked for", audit=lambda job: _deleted(job, caller)):
                return
            if self._side_runs.are_in(job_id):
                raise JobBusy(job_id)

    def _change(
        self,
        job_id: str,
        caller: Caller,
        kind: Change,
        action: Action,
        step: Callable[[Job, datetime], Job],
        *,
        admission: Callable[[Job], Admission | None] = lambda _job: None,
    ) -> Job:
        while True:
            before = self._store.get(job_id, tenant=caller.visible_tenant)
            now = datetime.now(UTC)
            after = step(before, now)
            if after is before:
                return before
            audit = audit_of(caller, action, before.id, tenant=before.tenant, at=now, attempt=after.attempt)
            update = Update(before, after, kind, audit=audit, admission=admission(before))
            stored = self._store.update([update]).result()[0]
            if stored is not None:
                return stored

    # ------------------------------------------------------------ questions

    def get(self, job_id: str, *, caller: Caller = OPERATOR) -> Job:
        return self._store.get(job_id, tenant=caller.visible_tenant)

    def list(self, query: JobQuery) -> JobPage:
        return self._store.list(query)

    def queue_places(self, jobs: Sequence[Job]) -> Mapping[str, int]:
        """As `JobStore.queue_places`. It tells nothing of tenants but those of these jobs."""
        return self._store.queue_places(jobs)

    def counts(self, *, caller: Caller = OPERATOR) -> Mapping[JobStatus, int]:
        return self._store.counts(tenant=caller.visible_tenant)

    def log(
        self, job_id: str, attempt: int | None = None, *, caller: Caller = OPERATOR
    ) -> tuple[Job, int, Log]:
        """The log of one attempt, by default the current one. Raises JobNotFound, LogNotFound."""
        job = self._store.get(job_id, tenant=caller.visible_tenant)
        number = job.attempt if attempt is None else attempt
        if not 1 <= number <= job.attempt:
            raise LogNotFound(f"Job {job_id} has no attempt {number}; its attempts are 1 to {job.attempt}.")
        return job, number, self._logs.open(job_id, number)

    def plan(self, spec: JobSpec, *, limit: int, attachments: Sequence[str] = ()) -> Plan:
        """What a job of this spec would do, with the first `limit` of its tasks. Waits for the engine.

        `attachments` as in `Plans.make`.

        Raises what `submit` raises at once, EngineUnavailable, BackendUnavailable.
        """
        self._require_accepting()
        spec = self._submissions.prepared(spec, self._workflows.get(spec.workflow))
        self._submissions.require_room()
        return self._plans.make(spec, limit=limit, attachments=attachments)

    def workflows(self) -> tuple[Workflow, ...]:
        return tuple(self._workflows.get(name) for name in self._workflows.names())

    def workflow_names(self) -> tuple[str, ...]:
        """Of all that are registered and can be used."""
        return self._workflows.names()

    def workflow(self, name: str) -> Workflow:
        return self._workflows.get(name)

    def workflow_version(self, workflow: Workflow) -> str | None:
        """What a job submitted now would run of it; None while its folder cannot be read."""
        return self._pins.version(workflow)

    def watch(
        self,
        callback: Callable[[JobEvent], None],
        *,
        job_id: str | None = None,
        caller: Caller = OPERATOR,
    ) -> Callable[[], None]:
        """Call back, on another thread, after every stored change; returns the function that ends it."""
        tenant = caller.visible_tenant
        if tenant is None:
            return self._bus.subscribe(callback, job_id=job_id)

        def call_back(event: JobEvent) -> None:
            if event.tenant == tenant:
                callback(event)

        return self._bus.subscribe(call_back, job_id=job_id)

    # ------------------------------------------------------------ condition

    def drain(self) -> None:
        """From now on no new work is accepted, and what runs beside jobs is ended."""
        self._draining = True
        self._side_runs.close(0)

    def readiness(self) -> Readiness:
        """Whether a job submitted now would be accepted and run, and what is missing if not."""
        return self._health.readiness(is_accepting=not self._draining)

    def figures(self) -> Figures:
        """As `ServiceHealth.figures`."""
        return self._health.figures()

    def _require_accepting(self) -> None:
        """Raises ShuttingDown."""
        if self._draining:
            raise ShuttingDown


def _deleted(job: Job, caller: Caller) -> AuditRecord:
    told = {"name": job.spec.name, "status": job.status.value}
    return audit_of(caller, Action.JOB_DELETED, job.id, tenant=job.tenant, at=datetime.now(UTC), **told)

"""Takes submissions: what is asked for is checked, completed, and stored as a pending job."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from runner import job_limits
from runner.access import Action, audit_of
from runner.disk_trouble import telling_trouble
from runner.errors import (
    FieldError,
    InvalidSpec,
    JobFilesGone,
    JobNotFound,
    StorageFull,
    StoreUnavailable,
    WorkflowNotFound,
)
from runner.folder_version import version_of
from runner.health import require_room
from runner.job_spans import SUBMIT
from runner.job_store import Admission, IdempotencyKey
from runner.jobs import CORES_NOT_NAMED, UPLOADED, Job, JobSpec, JobStatus
from runner.ports import PinnedWorkflow
from runner.trace_context import JobTrace, trace_id_of
from runner.workflow_folder import UnusableWorkflow, read_brought_workflow

if sys.version_info >= (3, 14):
    from uuid import uuid7
else:
    from uuid_utils import uuid7

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from runner.access import Caller
    from runner.job_store import JobStore, Submitted
    from runner.measurements import Measurements
    from runner.ports import Engine, Workflow, WorkflowPins, WorkflowRegistry
    from runner.settings import RunnerSettings
    from runner.spans import SpanExporter
    from runner.uploads import Upload, Uploads

_NOT_SENT = "has to come with the job, as the part `workflow` of multipart/form-data"
_NOT_TAKEN = "is not taken: workflows of callers are switched off here (SNAKELINE_WORKFLOW_UPLOADS)"
_NO_FILES = "is not taken: the workflow has no [attachments] in its snakeline.toml, or they are switched off"


class Submissions:
    """Thread-safe."""

    def __init__(
        self,
        *,
        settings: RunnerSettings,
        store: JobStore,
        workflows: WorkflowRegistry,
        pins: WorkflowPins,
        uploads: Uploads,
        engine: Engine,
        tenant_bytes: Callable[[str], int | None],
        measurements: Measurements,
        spans: SpanExporter | None = None,
    ) -> None:
        """`tenant_bytes` tells what the files of a tenant's jobs take; None while nobody knows.

        `spans` decides which traces are told; without one none are.
        """
        self._settings = settings
        self._store = store
        self._workflows = workflows
        self._pins = pins
        self._uploads = uploads
        self._engine = engine
        self._tenant_bytes = tenant_bytes
        self._measurements = measurements
        self._spans = spans

    def submit(
        self, spec: JobSpec, *, workflow: PinnedWorkflow | None, idempotency_key: str | None, caller: Caller
    ) -> Future[Submitted]:
        """As `JobService.submit`."""
        if spec.workflow == UPLOADED:
            raise InvalidSpec((FieldError("/workflow", self._uploaded_is_not_there()),))
        key = _key(idempotency_key, spec)
        pinned = workflow or self.pin(spec.workflow)
        spec = self.prepared(spec, pinned.workflow)
        self.require_room()
        return self._add(str(uuid7()), spec, pinned, key, caller, more_bytes=0)

    def pin(self, name: str) -> PinnedWorkflow:
        """As `WorkflowPins.pin`, unless there is no room: then that is told, and nothing copied."""
        self.require_room()
        return self._pins.pin(name)

    def begin_upload(self, spec: JobSpec, *, caller: Caller) -> Upload:
        """As `JobService.begin_upload`."""
        self.require_room()
        if spec.workflow == UPLOADED:
            if not self._settings.workflow_uploads:
                raise InvalidSpec((FieldError("/workflow", _NOT_TAKEN),))
            return self._uploads.begin(str(uuid7()), caller.tenant)
        workflow = self._workflows.get(spec.workflow)
        self.prepared(spec, workflow)
        rules = workflow.attachments
        if rules is None:
            return self._uploads.begin(str(uuid7()), caller.tenant, takes_no_files=_NO_FILES)
        return self._uploads.begin(str(uuid7()), caller.tenant, max_bytes=rules.max_bytes)

    def submit_upload(
        self, spec: JobSpec, upload: Upload, *, idempotency_key: str | None, caller: Caller
    ) -> Submitted:
        """As `JobService.submit_upload`."""
        pinned = self._workflow_of(spec, upload)
        attachments = upload.attachments()
        rules = pinned.workflow.attachments
        if attachments and rules is None:
            raise InvalidSpec((FieldError("/files", _NO_FILES),))
        spec = replace(spec, attachments=attachments)
        is_own = spec.workflow == UPLOADED
        key = _key(idempotency_key, spec, pinned.version if is_own else None)
        spec = self.prepared(spec, pinned.workflow)
        if attachments and rules is not None:
            upload.place_attachments(rules, pinned.workflow.folder)
        if attachments or is_own:
            upload.sync()
        future = self._add(upload.job_id, spec, pinned, key, caller, more_bytes=upload.size_bytes)
        try:
            submitted = future.result()
        except (StoreUnavailable, StorageFull):
            if self._may_be_stored(upload.job_id):
                upload.leave()
            raise
        if not submitted.replayed:
            self._settle(upload, submitted.job)
        return submitted

    def require_room(self) -> None:
        """Raises StorageFull when there is no room for another job."""
        require_room(self._settings)

    def admission(self, job: Job) -> Admission:
        """What a job that is there already has to keep to become pending again."""
        used_bytes = self._tenant_bytes(job.tenant)
        return Admission(self._settings.max_pending, self._settings.tenant_quota, used_bytes)

    def prepared(self, spec: JobSpec, workflow: Workflow) -> JobSpec:
        """With the operator's defaults, and those of the workflow's parameters. Raises InvalidSpec."""
        spec = job_limits.with_defaults(spec, self._settings)
        own = {}
        parameters = dict(spec.parameters)
        if self._engine.name == "mock" and "mock" in parameters:
            own["mock"] = parameters.pop("mock")  # the stand-in's own, checked by its engine
        errors = []
        if workflow.rules is not None:
            parameters = workflow.rules.completed(parameters)
            errors = workflow.rules.errors(parameters)
        spec = replace(spec, parameters={**parameters, **own})
        errors = [*self._engine.validate(spec), *job_limits.beyond(spec, self._settings), *errors]
        if errors:
            raise InvalidSpec(tuple(errors))
        return spec

    def _workflow_of(self, spec: JobSpec, upload: Upload) -> PinnedWorkflow:
        """Raises InvalidSpec, and what `WorkflowPins.pin` and `Upload.unpack_workflow` raise."""
        if spec.workflow != UPLOADED:
            if upload.has_workflow:
                detail = f'must be "{UPLOADED}" where the workflow comes with the job'
                raise InvalidSpec((FieldError("/workflow", detail),))
            return self._pins.pin(spec.workflow)
        if not upload.has_workflow:
            raise InvalidSpec((FieldError("/workflow", _NOT_SENT),))
        folder = upload.unpack_workflow()
        try:
            with telling_trouble("the job's files", StoreUnavailable):
                workflow = read_brought_workflow(UPLOADED, folder, max_bytes=upload.max_bytes)
                version = version_of(str(folder), set())
        except UnusableWorkflow as error:
            raise InvalidSpec((FieldError("/workflow", f"{error.file}: {error}"),)) from None
        if workflow is None:
            raise WorkflowNotFound(UPLOADED, ())
        return PinnedWorkflow(workflow, version)

    def _uploaded_is_not_there(self) -> str:
        return _NOT_SENT if self._settings.workflow_uploads else _NOT_TAKEN

    def _add(
        self,
        job_id: str,
        spec: JobSpec,
        pinned: PinnedWorkflow,
        key: IdempotencyKey | None,
        caller: Caller,
        *,
        more_bytes: int,
    ) -> Future[Submitted]:
        now = datetime.now(UTC)
        job = Job(
            id=job_id,
            spec=spec,
            status=JobStatus.PENDING,
            engine=self._engine.name,
            created_at=now,
            updated_at=now,
            owner=caller.name,
            tenant=caller.tenant,
            retries_left=spec.max_retries,
            workflow_version=pinned.version,
            workflow_commit=pinned.workflow.commit,
            trace=self._trace(job_id, caller, now),
        )
        used_bytes = self._tenant_bytes(job.tenant)
        future = self._store.add(
            job,
            key=key,
            max_pending=self._settings.max_pending,
            quota=self._settings.tenant_quota,
            used_bytes=None if used_bytes is None else used_bytes + more_bytes,
            audit=audit_of(caller, Action.JOB_SUBMITTED, job.id, tenant=job.tenant, at=now),
        )
        future.add_done_callback(self._count)
        return future

    def _count(self, future: Future[Submitted]) -> None:
        if not future.cancelled() and future.exception() is None and not future.result().replayed:
            self._measurements.submitted.add(future.result().job.spec.workflow)

    def _trace(self, job_id: str, caller: Caller, now: datetime) -> JobTrace | None:
        if self._spans is None:
            return None if caller.trace is None else JobTrace.handed_on(caller.trace)
        trace_id = caller.trace.trace_id if caller.trace is not None else trace_id_of(job_id)
        is_sampled = self._spans.is_sampled(trace_id, caller.trace, SUBMIT)
        return JobTrace.begun(job_id, caller.trace, is_sampled=is_sampled, asked_at=caller.asked_at or now)

    def _may_be_stored(self, job_id: str) -> bool:
        """A commit that was denied may have been done all the same."""
        try:
            self._store.get(job_id)
        except JobNotFound:
            return False
        except StoreUnavailable:
            return True
        return True

    def _settle(self, upload: Upload, job: Job) -> None:
        """The files of a stored job become the job's; of one that is deleted by now nothing is to be left."""
        try:
            self._uploads.settle(job)
            self._store.get(job.id)
        except JobNotFound:
            self._uploads.drop_settled(job.id)
        except (OSError, StoreUnavailable, JobFilesGone):
            upload.leave()  # whoever launches the job tries again


def _key(key: str | None, spec: JobSpec, version: str | None = None) -> IdempotencyKey | None:
    """What the caller named, with what it asked for; `version` is that of a workflow which came with it."""
    return None if key is None else IdempotencyKey(key, _fingerprint(spec, version))


def _fingerprint(spec: JobSpec, version: str | None = None) -> str:
    fields: dict[str, Any] = {name: getattr(spec, name) for name in JobSpec.__dataclass_fields__}
    for name in ("parameters", "options", "labels"):
        fields[name] = dict(fields[name])
    fields["attachments"] = [asdict(each) for each in spec.attachments]
    # Newer than the keys in some stores: a body that does not name them is the same as before.
    if not spec.retry_lost:
        del fields["retry_lost"]
    if spec.memory_mb is None:
        del fields["memory_mb"]
    if not spec.attachments:
        del fields["attachments"]
    if version is not None:
        fields["workflow_version"] = version
    if spec.cores == CORES_NOT_NAMED:
        fields["cores"] = 1
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()

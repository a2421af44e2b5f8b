"""`JobService`: the API's only door to the runner."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from runner.errors import (
    EngineUnavailable,
    FieldError,
    InvalidSpec,
    InvalidTransition,
    LogNotFound,
    ShuttingDown,
    StorageFull,
    StoreUnavailable,
)
from runner.jobs import Change, Job, JobStatus, cancel_asked, retried
from runner.ports import EngineInfo, IdempotencyKey, Update

if sys.version_info >= (3, 14):
    from uuid import uuid7
else:
    from uuid_utils import uuid7

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Future

    from runner.jobs import JobEvent, JobSpec
    from runner.ports import (
        Engine,
        EventBus,
        JobPage,
        JobQuery,
        JobStore,
        Log,
        LogStore,
        Submitted,
        Workflow,
        WorkflowRegistry,
    )
    from runner.removal import JobRemoval
    from runner.settings import RunnerSettings


@dataclass(frozen=True, slots=True)
class Check:
    """One thing the service needs, whether it is there, and what to do when it is not."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Readiness:
    ready: bool
    checks: tuple[Check, ...]
    engine: EngineInfo | None
    isolation: str


@dataclass(frozen=True, slots=True)
class Figures:
    """What there is to count; None where it cannot be told just now."""

    jobs: Mapping[JobStatus, int] | None
    launches_postponed: int
    files_bytes: int | None  # all jobs' files; None as well while nothing limits them
    free_bytes: int | None


class JobService:
    """Submit, get, list, cancel, retry, delete. Thread-safe.

    Every method but `submit`, `watch` and `drain` may wait for the disk.
    """

    def __init__(
        self,
        *,
        settings: RunnerSettings,
        store: JobStore,
        workflows: WorkflowRegistry,
        engine: Engine,
        logs: LogStore,
        bus: EventBus,
        removal: JobRemoval,
        isolation: str,
        supervisor_alive: Callable[[], bool],
        launches_postponed: Callable[[], int],
        files_bytes: Callable[[], int | None],
    ) -> None:
        self._settings = settings
        self._store = store
        self._workflows = workflows
        self._engine = engine
        self._logs = logs
        self._bus = bus
        self._removal = removal
        self._isolation = isolation
        self._supervisor_alive = supervisor_alive
        self._launches_postponed = launches_postponed
        self._files_bytes = files_bytes
        self._draining = False

    @property
    def engine_name(self) -> str:
        return self._engine.name

    # ------------------------------------------------------------ changes

    def submit(self, spec: JobSpec, *, idempotency_key: str | None = None) -> Future[Submitted]:
        """Accept a job; the future resolves once it is durably stored.

        Raises at once: ShuttingDown, WorkflowNotFound, InvalidSpec, StorageFull. In the future:
        IdempotencyMismatch, QueueFull, StoreUnavailable, StorageFull.
        """
        if self._draining:
            raise ShuttingDown
        key = IdempotencyKey(idempotency_key, _fingerprint(spec)) if idempotency_key is not None else None
        if spec.timeout_s is None and self._settings.default_timeout_s is not None:
            spec = replace(spec, timeout_s=self._settings.default_timeout_s)
        self._validate(spec)
        self._require_room()
        now = datetime.now(UTC)
        job = Job(
            id=str(uuid7()),
            spec=spec,
            status=JobStatus.PENDING,
            engine=self._engine.name,
            created_at=now,
            updated_at=now,
            retries_left=spec.max_retries,
        )
        return self._store.add(job, key=key, max_pending=self._settings.max_pending)

    def cancel(self, job_id: str) -> Job:
        """Cancel a pending job now, or ask a running one to end; asking twice is one request.

        Raises JobNotFound, InvalidTransition when it has ended.
        """
        return self._change(job_id, Change.CANCEL_REQUESTED, lambda job: cancel_asked(job, datetime.now(UTC)))

    def retry(self, job_id: str) -> Job:
        """Queue a failed or cancelled job for another attempt in the same working directory.

        Raises JobNotFound, InvalidTransition for any other status, ShuttingDown.
        """
        if self._draining:
            raise ShuttingDown
        return self._change(job_id, Change.RETRIED, lambda job: retried(job, datetime.now(UTC)))

    def delete(self, job_id: str) -> None:
        """Remove an ended job with its files. Raises JobNotFound, InvalidTransition before its end."""
        while True:
            job = self._store.get(job_id)
            if not job.status.is_terminal:
                raise InvalidTransition(job.id, job.status.value, "deleted")
            if self._removal.remove(job, why="asked for"):
                return

    def _change(self, job_id: str, kind: Change, step: Callable[[Job], Job]) -> Job:
        while True:
            before = self._store.get(job_id)
            after = step(before)
            if after is before:
                return before
            stored = self._store.update([Update(before, after, kind)]).result()[0]
            if stored is not None:
                return stored

    # ------------------------------------------------------------ questions

    def get(self, job_id: str) -> Job:
        return self._store.get(job_id)

    def list(self, query: JobQuery) -> JobPage:
        return self._store.list(query)

    def counts(self) -> Mapping[JobStatus, int]:
        return self._store.counts()

    def log(self, job_id: str, attempt: int | None = None) -> tuple[Job, int, Log]:
        """The log of one attempt, by default the current one. Raises JobNotFound, LogNotFound."""
        job = self._store.get(job_id)
        number = job.attempt if attempt is None else attempt
        if not 1 <= number <= job.attempt:
            raise LogNotFound(f"Job {job_id} has no attempt {number}; its attempts are 1 to {job.attempt}.")
        return job, number, self._logs.open(job_id, number)

    def workflows(self) -> tuple[Workflow, ...]:
        return tuple(self._workflows.get(name) for name in self._workflows.names())

    def workflow(self, name: str) -> Workflow:
        return self._workflows.get(name)

    def watch(self, callback: Callable[[JobEvent], None], *, job_id: str | None = None) -> Callable[[], None]:
        """Call back, on another thread, after every stored change; returns the function that ends it."""
        return self._bus.subscribe(callback, job_id=job_id)

    # ------------------------------------------------------------ condition

    def drain(self) -> None:
        """From now on no new work is accepted."""
        self._draining = True

    def readiness(self) -> Readiness:
        """Whether a job submitted now would be accepted and run, and what is missing if not."""
        engine, engine_check = check_engine(self._engine)
        alive = self._supervisor_alive()
        checks = (
            check_store(self._store),
            check_disk(self._settings),
            engine_check,
            Check("supervisor", alive, "running" if alive else "stopped: restart the service"),
            Check("accepting", not self._draining, "stopping" if self._draining else "taking jobs"),
        )
        return Readiness(all(c.ok for c in checks), checks, engine, self._isolation)

    def figures(self) -> Figures:
        """For metrics. Takes no scan, whatever the number of jobs; never raises."""
        try:
            jobs: Mapping[JobStatus, int] | None = self._store.counts()
        except StoreUnavailable:
            jobs = None
        try:
            stat = os.statvfs(self._settings.data_dir)
            free: int | None = stat.f_bavail * stat.f_frsize
        except OSError:
            free = None
        return Figures(jobs, self._launches_postponed(), self._files_bytes(), free)

    # ------------------------------------------------------------ validation

    def _validate(self, spec: JobSpec) -> None:
        workflow = self._workflows.get(spec.workflow)
        errors = list(self._engine.validate(spec))
        if spec.cores > self._settings.max_cores:
            most = self._settings.max_cores
            errors.append(
                FieldError("/cores", f"at most {most} here (SNAKELINE_MAX_CORES): it could never start")
            )
        parameters = dict(spec.parameters)
        if self._engine.name == "mock":
            parameters.pop("mock", None)  # the stand-in's own, checked by its engine
        errors.extend(self._workflows.validate(workflow, parameters))
        if errors:
            raise InvalidSpec(tuple(errors))

    def _require_room(self) -> None:
        check = check_disk(self._settings)
        if not check.ok:
            raise StorageFull(f"The job was not accepted: {check.detail}.")


def _fingerprint(spec: JobSpec) -> str:
    fields = asdict(spec)
    if not spec.retry_lost:  # newer than the keys in some stores: what does not name it is the same as before
        del fields["retry_lost"]
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


def check_store(store: JobStore) -> Check:
    try:
        store.check()
    except (StoreUnavailable, StorageFull) as error:
        return Check("store", ok=False, detail=str(error))
    return Check("store", ok=True, detail="can be read and written")


def check_disk(settings: RunnerSettings) -> Check:
    """Whether the data directory's file system takes another job: writable, with bytes and inodes left."""
    try:
        stat = os.statvfs(settings.data_dir)
    except OSError as error:
        return Check("disk", ok=False, detail=f"{settings.data_dir} cannot be read: {error.strerror}")
    if stat.f_flag & os.ST_RDONLY:
        detail = f"{settings.data_dir} is mounted read-only: look at the kernel's log, and remount it"
        return Check("disk", ok=False, detail=detail)
    if stat.f_files and not stat.f_favail:  # file systems without a fixed number of inodes say 0 for both
        return Check("disk", ok=False, detail="no inodes left for the data directory: remove files there")
    free = stat.f_bavail * stat.f_frsize
    least = settings.min_free_bytes
    if free < least:
        return Check(
            "disk",
            ok=False,
            detail=f"{free >> 20} MiB free for the data directory, {least >> 20} MiB needed: make room there",
        )
    return Check("disk", ok=True, detail=f"{free >> 20} MiB free")


def check_engine(engine: Engine) -> tuple[EngineInfo | None, Check]:
    try:
        info = engine.check()
    except EngineUnavailable as error:
        return None, Check("engine", ok=False, detail=str(error))
    kind = "the bundled stand-in, no real pipelines run" if info.is_mock else f"Snakemake {info.version}"
    return info, Check("engine", ok=True, detail=f"{info.name}: {kind}")

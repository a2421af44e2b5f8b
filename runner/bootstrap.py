"""From settings to a wired runner; what names concrete classes is here, and in `checkup.py`."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from runner.attempt_tasks import AttemptTasks
from runner.backends.local import LocalBackend
from runner.ballast import Ballast
from runner.data_dir import DataDir, has_jobs, is_in_use
from runner.engines.choice import engine_of
from runner.errors import DataDirUnusable, StorageFull, StoreUnavailable
from runner.events import EventBus
from runner.health import ServiceHealth
from runner.held_jobs import HeldJobs
from runner.isolation.current import CurrentIsolation
from runner.isolation.descriptors import raise_limit
from runner.isolation_choice import find_isolation
from runner.job_files import JobFiles, LocalJobFolders
from runner.job_outputs import JobOutputs
from runner.job_runs import JobRuns
from runner.job_traces import JobTraces
from runner.logs import SegmentLogStore
from runner.measurements import Measurements
from runner.monitored_files import MonitoredJobFolders
from runner.network_mounts import ADVICE, network_file_system
from runner.output_producers import OutputProducers
from runner.plans import Plans
from runner.quotas import CoreQuotas
from runner.removal import JobRemoval
from runner.reports import Reports
from runner.retention import Retention
from runner.service import JobService
from runner.side_runs import SideRuns
from runner.stores.memory import MemoryStore
from runner.stores.sql.store import SqlStore
from runner.submissions import Submissions
from runner.supervisor import Supervisor
from runner.tracing import exporter_of
from runner.uploads import Uploads
from runner.workflow_pins import FolderPins
from runner.workflow_versions import WorkflowVersions
from runner.workflows import FolderRegistry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runner.access_store import AccessStore
    from runner.isolation_choice import Isolated
    from runner.job_files import JobFolders
    from runner.jobs import JobEvent
    from runner.monitor import Monitor
    from runner.settings import RunnerSettings

_log = structlog.get_logger(__name__)

MEMORY_URL = "memory://"
Store = MemoryStore | SqlStore


class Runner:
    """A wired runner: `service` is its door. Made by `build_runner`."""

    def __init__(
        self,
        *,
        settings: RunnerSettings,
        service: JobService,
        supervisor: Supervisor,
        store: Store,
        data_dir: DataDir,
        retention: Retention,
        traces: JobTraces | None = None,
        monitor: Monitor | None = None,
    ) -> None:
        self.settings = settings
        self.service = service
        self.retention = retention
        self.monitor = monitor
        self._supervisor = supervisor
        self._traces = traces
        self.access: AccessStore = store
        self._store = store
        self._data_dir = data_dir

    def start(self) -> None:
        """Recover what ran before, then supervise. Raises StoreUnavailable, BackendUnavailable."""
        if self._traces is not None:
            self._traces.start()
        self._supervisor.start()
        self.retention.start()

    def wind_down(self) -> bool:
        """Take no new jobs and deal with those that run as `on_shutdown` says; true once that is done.

        Returns at once, so ask again; it is done within `shutdown_s`, less what `close` needs.
        """
        self.service.drain()
        return self._supervisor.wind_down()

    def close(self) -> None:
        """Take no new jobs and let go; running jobs go on and are found again at the next start."""
        self.service.drain()
        self.retention.close()
        self._supervisor.close()
        if self._traces is not None:
            self._traces.close()
        self._store.close()
        self._data_dir.close()
        if self.monitor is not None:
            self.monitor.close()


def build_runner(
    settings: RunnerSettings, isolated: Isolated | None = None, *, first_sweep_after_s: float = 300.0
) -> Runner:
    """Take the data directory, open the store and wire everything; nothing runs yet.

    Without `isolated` this process stays who it is. The first deletion of old jobs comes
    `first_sweep_after_s` after the start: see runner/retention.py.
    Raises DataDirUnusable, StoreUnavailable, TracesUnavailable.
    """
    if isolated is not None and isolated.monitor is not None:
        # What stays root takes orders for the folder itself, and not for a link to it.
        real = Path(os.path.realpath(settings.data_dir))
        settings = settings.model_copy(update={"data_dir": real})
    spans = exporter_of(settings)
    data_dir = DataDir(settings.data_dir)
    if (kind := network_file_system(settings.data_dir)) is not None:
        _log.warning("data.on_network", kind=kind, detail=ADVICE)
    measurements = Measurements()
    try:
        found = isolated.isolation if isolated is not None else find_isolation(settings)
        bus = EventBus()
        store = _open_store(settings, bus.publish, measurements)
    except BaseException:
        data_dir.close()
        raise
    monitor = isolated.monitor if isolated is not None else None
    # Without root nothing could be found anew.
    isolation = CurrentIsolation(found, None if monitor is not None else lambda: find_isolation(settings))
    engine = engine_of(settings)
    logs = SegmentLogStore(settings.data_dir)
    workflows = registry(settings)
    versions = WorkflowVersions(settings.data_dir)
    pins = FolderPins(settings.data_dir, workflows, versions)
    uploads = Uploads(
        settings.data_dir,
        max_bytes=settings.max_attachment_bytes,
        min_free_bytes=settings.min_free_bytes,
    )
    uploads.sweep(store.get)
    folders: JobFolders = LocalJobFolders(settings.data_dir)
    if monitor is not None:
        folders = MonitoredJobFolders(settings.data_dir, monitor)
    backend = LocalBackend(
        data_dir=os.fspath(settings.data_dir),
        python=settings.python,
        warm=engine.warm_spec if settings.warm_start else lambda: None,
        log_limit_bytes=settings.log_limit_bytes,
        stop_grace_s=settings.stop_grace_s,
        open_files=raise_limit(),
        measures=isolation.measures,
        max_processes=settings.max_processes,
        monitor=monitor,
        launch_latency=measurements.launch_latency,
    )
    held = HeldJobs()
    side_runs = SideRuns(settings.data_dir, backend, held, stop_grace_s=settings.stop_grace_s)
    supervisor = Supervisor(
        settings=settings,
        store=store,
        quotas=CoreQuotas(store, settings.tenant_quota, settings.max_cores),
        backend=backend,
        engine=engine,
        pins=pins,
        uploads=uploads,
        logs=logs,
        bus=bus,
        isolation=lambda: isolation.level.label,
        side_runs=side_runs,
        held=held,
        measurements=measurements,
    )
    removal = JobRemoval(settings.data_dir, store, held)
    retention = Retention(
        data_dir=settings.data_dir,
        store=store,
        removal=removal,
        retention_s=settings.retention_s,
        max_data_bytes=settings.max_data_bytes,
        access=store,
        tenant_quota=settings.tenant_quota,
        audit_s=settings.audit_s,
        sweep_versions=lambda rest: versions.sweep(
            lambda version: version in pins.held() or store.has_workflow_version(version), rest
        ),
        first_after_s=first_sweep_after_s,
    )
    files = JobFiles(folders)
    tasks = AttemptTasks(settings.data_dir, engine.tasks)
    plans = Plans(settings=settings, engine=engine, pin=pins.pin, logs=logs, side_runs=side_runs)
    reports = Reports(
        settings=settings,
        store=store,
        engine=engine,
        workflow_of=pins.of,
        logs=logs,
        side_runs=side_runs,
        grown=retention.grown,
    )
    submissions = Submissions(
        settings=settings,
        store=store,
        workflows=workflows,
        pins=pins,
        uploads=uploads,
        engine=engine,
        tenant_bytes=retention.bytes_of_tenant,
        measurements=measurements,
        spans=spans,
    )
    health = ServiceHealth(
        settings=settings,
        store=store,
        engine=engine,
        isolation=lambda: isolation.level,
        supervisor_alive=supervisor.is_alive,
        launches_postponed=lambda: supervisor.launches_postponed,
        used_cores=lambda: supervisor.used_cores,
        files_bytes=lambda: retention.used_bytes,
    )
    service = JobService(
        store=store,
        workflows=workflows,
        pins=pins,
        engine=engine,
        logs=logs,
        submissions=submissions,
        outputs=JobOutputs(store, files, OutputProducers(settings.data_dir, tasks.each)),
        runs=JobRuns(settings.data_dir, store=store, tasks=tasks, files=files, logs=logs, engine=engine),
        side_runs=side_runs,
        plans=plans,
        reports=reports,
        bus=bus,
        removal=removal,
        health=health,
        measurements=measurements,
    )
    return Runner(
        settings=settings,
        service=service,
        supervisor=supervisor,
        store=store,
        data_dir=data_dir,
        retention=retention,
        traces=None if spans is None else JobTraces(settings.data_dir, store, bus, spans),
        monitor=monitor,
    )


def open_access(settings: RunnerSettings) -> AccessStore:
    """Keys, quotas and the audit, for the command line; also while a service runs on the same data.

    Made or upgraded only while no service runs. Raises StoreUnavailable, DataDirUnusable.
    """
    if settings.database_url == MEMORY_URL:
        raise StoreUnavailable("memory:// has no keys beside the service's own: set SNAKELINE_DATABASE_URL.")
    if not is_in_use(settings.data_dir):
        with suppress(DataDirUnusable):  # a service may have been faster; what else ails it is said below
            data_dir = DataDir(settings.data_dir)
            try:
                return SqlStore.open(settings.database_url, may_be_new=not has_jobs(settings.data_dir))
            finally:
                data_dir.close()
    return SqlStore.open(settings.database_url, may_upgrade=False)


def registry(settings: RunnerSettings) -> FolderRegistry:
    return FolderRegistry(
        settings.workflows_dir,
        settings.data_dir / "workflows" / "git",
        max_attachment_bytes=settings.max_attachment_bytes,
    )


def _open_store(
    settings: RunnerSettings,
    on_commit: Callable[[Sequence[JobEvent]], None],
    measurements: Measurements,
) -> Store:
    if settings.database_url == MEMORY_URL:
        return MemoryStore(on_commit=on_commit)
    may_be_new = not has_jobs(settings.data_dir)
    ballast = Ballast(settings.data_dir)

    def opened() -> SqlStore:
        store = SqlStore.open(
            settings.database_url,
            on_commit=on_commit,
            may_be_new=may_be_new,
            measurements=measurements.store,
        )
        if store.copy_before_upgrade is not None:
            _log.info("store.upgraded", copy=store.copy_before_upgrade)
        return store

    try:
        return opened()
    except StoreUnavailable:
        if not ballast.is_needed():
            raise
        with ballast.released():  # a service that can't start on a full disk could not empty it either
            store = opened()
            try:
                store.check()  # takes the room that it needs to work in
            except (StoreUnavailable, StorageFull) as error:
                store.close()
                raise StoreUnavailable(str(error)) from error
            return store

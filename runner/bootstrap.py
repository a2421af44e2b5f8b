"""From settings to a wired runner; the only place that names concrete classes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from runner.backends.local import LocalBackend
from runner.ballast import Ballast
from runner.data_dir import DataDir, has_jobs, is_in_use
from runner.engines.mock import MockEngine
from runner.engines.snakemake import SnakemakeEngine
from runner.errors import StorageFull, StoreUnavailable
from runner.events import EventBus
from runner.isolation.descriptors import raise_limit
from runner.isolation.probe import probe
from runner.logs import SegmentLogStore
from runner.removal import JobRemoval
from runner.retention import Retention
from runner.service import Check, JobService, check_disk, check_engine
from runner.stores.memory import MemoryStore
from runner.stores.sql.store import SqlStore
from runner.supervisor import Supervisor
from runner.workflows import FolderRegistry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runner.jobs import JobEvent
    from runner.ports import Engine, JobStore
    from runner.settings import RunnerSettings

MEMORY_URL = "memory://"


class Runner:
    """A wired runner: `service` is its door. Made by `build_runner`."""

    def __init__(
        self,
        *,
        settings: RunnerSettings,
        service: JobService,
        supervisor: Supervisor,
        store: JobStore,
        data_dir: DataDir,
        retention: Retention,
    ) -> None:
        self.settings = settings
        self.service = service
        self.retention = retention
        self._supervisor = supervisor
        self._store = store
        self._data_dir = data_dir

    def start(self) -> None:
        """Recover what ran before, then supervise. Raises StoreUnavailable, BackendUnavailable."""
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
        self._store.close()
        self._data_dir.close()


def build_runner(settings: RunnerSettings, *, first_sweep_after_s: float = 300.0) -> Runner:
    """Take the data directory, open the store and wire everything; nothing runs yet.

    The first deletion of old jobs comes `first_sweep_after_s` after the start: see runner/retention.py.
    Raises DataDirUnusable, StoreUnavailable.
    """
    data_dir = DataDir(settings.data_dir)
    try:
        bus = EventBus()
        store = _open_store(settings, bus.publish)
    except BaseException:
        data_dir.close()
        raise
    engine = _engine(settings)
    logs = SegmentLogStore(settings.data_dir)
    workflows = FolderRegistry(settings.workflows_dir)
    backend = LocalBackend(
        data_dir=os.fspath(settings.data_dir),
        python=settings.python,
        warm=engine.warm_spec if settings.warm_start else lambda: None,
        log_limit_bytes=settings.log_limit_bytes,
        stop_grace_s=settings.stop_grace_s,
        open_files=raise_limit(),
    )
    supervisor = Supervisor(
        settings=settings,
        store=store,
        backend=backend,
        engine=engine,
        workflows=workflows,
        logs=logs,
        bus=bus,
    )
    removal = JobRemoval(settings.data_dir, store)
    retention = Retention(
        data_dir=settings.data_dir,
        store=store,
        removal=removal,
        retention_s=settings.retention_s,
        max_data_bytes=settings.max_data_bytes,
        first_after_s=first_sweep_after_s,
    )
    service = JobService(
        settings=settings,
        store=store,
        workflows=workflows,
        engine=engine,
        logs=logs,
        bus=bus,
        removal=removal,
        isolation=probe().name,
        supervisor_alive=supervisor.is_alive,
        launches_postponed=lambda: supervisor.launches_postponed,
        files_bytes=lambda: retention.used_bytes,
    )
    return Runner(
        settings=settings,
        service=service,
        supervisor=supervisor,
        store=store,
        data_dir=data_dir,
        retention=retention,
    )


def check(settings: RunnerSettings) -> tuple[Check, ...]:
    """What is there and what is missing, without disturbing a service that runs on the same data.

    Makes and changes nothing: what does not exist yet is said to be made at the first start.
    """
    level = probe()
    isolation = Check("isolation", level.name != "none", f"{level.name}: {level.detail}")
    _, engine = check_engine(_engine(settings))
    return (*_check_data(settings), engine, _check_workflows(settings), isolation)


def _check_data(settings: RunnerSettings) -> list[Check]:
    directory = settings.data_dir
    if not directory.exists():
        parent = next(p for p in directory.absolute().parents if p.exists())
        if os.access(parent, os.W_OK | os.X_OK):
            return [Check("data", ok=True, detail=f"{directory} will be made at the first start")]
        return [Check("data", ok=False, detail=f"{directory} cannot be made: {parent} is not writable")]
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        return [Check("data", ok=False, detail=f"{directory} is not writable for this user")]
    return [Check("data", ok=True, detail=f"{directory}"), check_disk(settings), _check_store(settings)]


def _check_store(settings: RunnerSettings) -> Check:
    if is_in_use(settings.data_dir):
        return Check("store", ok=True, detail="in use by a running service: ask its /readyz")
    if settings.database_url == MEMORY_URL:
        return Check("store", ok=True, detail="in memory: jobs are forgotten when the service stops")
    try:
        may_be_new = not has_jobs(settings.data_dir)
        return Check("store", ok=True, detail=SqlStore.examine(settings.database_url, may_be_new=may_be_new))
    except (StoreUnavailable, OSError) as error:
        return Check("store", ok=False, detail=str(error))


def _check_workflows(settings: RunnerSettings) -> Check:
    names = FolderRegistry(settings.workflows_dir).names()
    if not names:
        return Check(
            "workflows", ok=False, detail=f"none in {settings.workflows_dir}: SNAKELINE_WORKFLOWS_DIR"
        )
    return Check("workflows", ok=True, detail=", ".join(names))


def _engine(settings: RunnerSettings) -> Engine:
    return MockEngine(settings) if settings.engine == "mock" else SnakemakeEngine(settings)


def _open_store(settings: RunnerSettings, on_commit: Callable[[Sequence[JobEvent]], None]) -> JobStore:
    if settings.database_url == MEMORY_URL:
        return MemoryStore(on_commit=on_commit)
    may_be_new = not has_jobs(settings.data_dir)
    ballast = Ballast(settings.data_dir)
    try:
        return SqlStore.open(settings.database_url, on_commit=on_commit, may_be_new=may_be_new)
    except StoreUnavailable:
        if not ballast.is_needed():
            raise
        with ballast.released():  # a service that can't start on a full disk could not empty it either
            store = SqlStore.open(settings.database_url, on_commit=on_commit, may_be_new=may_be_new)
            try:
                store.check()  # takes the room that it needs to work in
            except (StoreUnavailable, StorageFull) as error:
                store.close()
                raise StoreUnavailable(str(error)) from error
            return store

"""What the service needs, whether it is there, and what there is to count."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from runner.errors import EngineUnavailable, StorageFull, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from runner.isolation.probe import IsolationLevel
    from runner.job_store import JobStore
    from runner.jobs import JobStatus
    from runner.ports import Engine, EngineInfo
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
    isolation: IsolationLevel


@dataclass(frozen=True, slots=True)
class DiskRoom:
    """The data directory's file system; both numbers of inodes are 0 where it has no fixed one."""

    size_bytes: int
    free_bytes: int
    inodes: int
    free_inodes: int


@dataclass(frozen=True, slots=True)
class Figures:
    """What there is to count; None where it cannot be told just now."""

    jobs: Mapping[tuple[str, JobStatus], int] | None  # by workflow, those of which there are any
    pending_for_s: float | None  # the one that has waited longest; 0 when none does
    launches_postponed: int
    cores: int
    used_cores: int
    files_bytes: int | None  # all jobs' files; None as well while nothing limits them
    disk: DiskRoom | None
    least_free_bytes: int  # with less nothing is accepted


class ServiceHealth:
    """Thread-safe; every method but the constructor waits for the disk."""

    def __init__(
        self,
        *,
        settings: RunnerSettings,
        store: JobStore,
        engine: Engine,
        isolation: Callable[[], IsolationLevel],
        supervisor_alive: Callable[[], bool],
        launches_postponed: Callable[[], int],
        used_cores: Callable[[], int],
        files_bytes: Callable[[], int | None],
    ) -> None:
        self._settings = settings
        self._store = store
        self._engine = engine
        self._isolation = isolation
        self._supervisor_alive = supervisor_alive
        self._launches_postponed = launches_postponed
        self._used_cores = used_cores
        self._files_bytes = files_bytes

    def readiness(self, *, is_accepting: bool) -> Readiness:
        """Whether a job submitted now would be accepted and run, and what is missing if not."""
        engine, engine_check = check_engine(self._engine)
        alive = self._supervisor_alive()
        checks = (
            check_store(self._store),
            check_disk(self._settings),
            engine_check,
            Check("supervisor", alive, "running" if alive else "stopped: restart the service"),
            Check("accepting", is_accepting, "taking jobs" if is_accepting else "stopping"),
        )
        return Readiness(all(c.ok for c in checks), checks, engine, self._isolation())

    def figures(self) -> Figures:
        """For metrics. Takes no scan, whatever the number of jobs; never raises."""
        jobs: Mapping[tuple[str, JobStatus], int] | None = None
        pending_for_s: float | None = None
        with suppress(StoreUnavailable):
            jobs = self._store.counts_by_workflow()
            since = self._store.pending_since()
            pending_for_s = 0.0 if since is None else max(0.0, (datetime.now(UTC) - since).total_seconds())
        return Figures(
            jobs=jobs,
            pending_for_s=pending_for_s,
            launches_postponed=self._launches_postponed(),
            cores=self._settings.max_cores,
            used_cores=self._used_cores(),
            files_bytes=self._files_bytes(),
            disk=_room(self._settings.data_dir),
            least_free_bytes=self._settings.min_free_bytes,
        )


def _room(data_dir: Path) -> DiskRoom | None:
    try:
        stat = os.statvfs(data_dir)
    except OSError:
        return None
    return DiskRoom(
        size_bytes=stat.f_blocks * stat.f_frsize,
        free_bytes=stat.f_bavail * stat.f_frsize,
        inodes=stat.f_files,
        free_inodes=stat.f_favail,
    )


def require_room(settings: RunnerSettings) -> None:
    """Raises StorageFull when `check_disk` finds that there is none."""
    check = check_disk(settings)
    if not check.ok:
        raise StorageFull(f"Nothing is accepted just now: {check.detail}.")


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

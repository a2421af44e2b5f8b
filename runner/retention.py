"""Deletes ended jobs that are too old, or the oldest while all jobs' files take too much room."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from runner.access import RETENTION_NAME, Action, AuditRecord, Quota
from runner.disk_usage import DiskUsage
from runner.errors import JobNotFound, StorageFull, StoreUnavailable
from runner.pace import Pace, Stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from runner.access_store import AccessStore
    from runner.job_store import EndedJob, JobStore
    from runner.jobs import Job
    from runner.removal import JobRemoval

_log = structlog.get_logger(__name__)

_AT_ONCE: Final = 5  # rows deleted in one commit: so long may a submission have to wait
_COUNTING_SHARE: Final = 0.02
_DELETING_SHARE: Final = 0.25
_JUMP_S: Final = 60.0
_AFTER_A_JUMP_S: Final = 3600.0
_RECORDS_AT_ONCE: Final = 200
_LOW_MARK: Final = 0.95  # once over the limit, down to this part of it
_NO_QUOTA: Final = Quota()


class Clock(Protocol):
    def read(self) -> tuple[float, float]:
        """Seconds since the epoch, and of a clock that nobody can set and no suspend stops."""


class SystemClock:
    def read(self) -> tuple[float, float]:
        return time.time(), time.clock_gettime(time.CLOCK_BOOTTIME)


class Retention:
    """One thread: it counts what jobs take on the disk, and deletes what the two limits call for.

    Only jobs that have ended are deleted, each by a compare-and-set on the version it was seen with. Age
    counts from `completed_at`. Where the wall clock has moved against the steady one by more than a
    minute since the last look, nothing is deleted for an hour: jobs that look old then may be young.
    Records of the audit go by their age, too.
    Trouble of the store or the disk puts things off to the next sweep.
    """

    def __init__(
        self,
        *,
        data_dir: Path,
        store: JobStore,
        removal: JobRemoval,
        retention_s: float | None,
        max_data_bytes: int | None,
        access: AccessStore | None = None,
        tenant_quota: Quota = _NO_QUOTA,
        audit_s: float | None = None,
        sweep_versions: Callable[[Callable[[], None]], None] | None = None,
        clock: Clock | None = None,
        first_after_s: float = 300.0,
        every_s: float = 600.0,
        count_every_s: float = 60.0,
    ) -> None:
        """Times in seconds: the first sweep after `start`, between sweeps, and between countings.

        `sweep_versions` is called with what is to be called often: workflows that no job has go as well.
        The first sweep waits until a clock that was wrong at boot has been set.
        """
        self._store = store
        self._removal = removal
        self._retention_s = retention_s
        self._max_data_bytes = max_data_bytes
        self._access = access
        self._tenant_quota = tenant_quota
        self._audit_s = audit_s
        self._sweep_versions = sweep_versions
        self._clock = clock or SystemClock()
        self._every_s = every_s
        self._count_every_s = count_every_s
        self._usage = DiskUsage(data_dir, store)
        self._stopping = threading.Event()
        self._counting = Pace(_COUNTING_SHARE, self._stopping)
        self._deleting = Pace(_DELETING_SHARE, self._stopping)
        self._wall_s, self._steady_s = self._clock.read()  # at the last look
        self._due_s = self._not_before_s = self._limit_due_s = self._steady_s + first_after_s
        self._is_warned = False
        self._thread = threading.Thread(target=self._run, name="retention", daemon=True)

    @property
    def used_bytes(self) -> int | None:
        """What the files of all jobs take on the disk; None until counted once, and without a limit.

        Up to some minutes old, with a million jobs.
        """
        return self._usage.used_bytes

    def bytes_of_tenant(self, tenant: str) -> int | None:
        """As `used_bytes`, of the files of one tenant's jobs."""
        return self._usage.bytes_of_tenant(tenant)

    def grown(self, job_id: str) -> None:
        """Something was added to an ended job's files."""
        self._usage.grown(job_id)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop; a deletion that is going on is completed at the next start. Safe to repeat."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    # ------------------------------------------------------------ the thread

    def _run(self) -> None:
        self._guarded(self._finish)
        while not self._stopping.is_set():
            self._guarded(self._turn)
            self._stopping.wait(self._count_every_s)

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Stopped:
            pass
        except (StoreUnavailable, StorageFull) as error:
            _log.warning("retention.put_off", detail=str(error))
        except OSError as error:
            _log.warning("retention.put_off", detail=error.strerror, file=error.filename)
        except Exception:  # noqa: BLE001 - the thread must live
            _log.exception("retention.failed")

    def _turn(self) -> None:
        self._sweep()
        if self._max_data_bytes is None and not self._limits_tenants():
            return  # nothing asks how much there is: no disk is kept busy with it
        self._counting.begin()
        for _ in self._usage.count(self._counting.rest):
            self._sweep()
            self._counting.begin()
        self._sweep()

    def _limits_tenants(self) -> bool:
        if self._tenant_quota.max_bytes is not None:
            return True
        quotas = {} if self._access is None else self._access.quotas()
        return any(quota.max_bytes is not None for quota in quotas.values())

    def _finish(self) -> None:
        self._deleting.begin()
        self._removal.finish(self._deleting.rest)

    # ------------------------------------------------------------ sweeping

    def _sweep(self) -> None:
        """Delete what is to be deleted, if it is time for that."""
        self._deleting.begin()
        if not self._may_delete():
            return
        if self._steady_s >= self._due_s:
            self._due_s = self._steady_s + self._every_s
            self._limit_due_s = self._steady_s
            self._finish()
            if self._retention_s is not None:
                self._delete_older_than(timedelta(seconds=self._retention_s))
            if self._access is not None and self._audit_s is not None:
                self._forget_audit(self._access, timedelta(seconds=self._audit_s))
            if self._sweep_versions is not None:
                self._sweep_versions(self._deleting.rest)
        limit = self._max_data_bytes
        if limit is not None and self._steady_s >= self._limit_due_s and not self._keep_within(limit):
            self._limit_due_s = self._steady_s + self._every_s

    def _may_delete(self) -> bool:
        """Look at both clocks: once they have moved against each other, nothing is deleted for a while."""
        wall_s, steady_s = self._clock.read()
        moved_s = (wall_s - self._wall_s) - (steady_s - self._steady_s)
        self._wall_s, self._steady_s = wall_s, steady_s
        if abs(moved_s) > _JUMP_S:
            self._not_before_s = max(self._not_before_s, steady_s + _AFTER_A_JUMP_S)
            _log.warning(
                "retention.clock_jumped",
                by_s=round(moved_s),
                detail=f"No job is deleted for {_AFTER_A_JUMP_S:g} s: look at the machine's clock.",
            )
        return steady_s >= self._not_before_s

    def _delete_older_than(self, age: timedelta) -> None:
        after: EndedJob | None = None
        while self._may_delete():
            now = datetime.fromtimestamp(self._wall_s, UTC)
            page = self._store.ended(after=after, limit=_AT_ONCE)
            self._delete([job for job in page if _is_older(job, now, age)], why="too old")
            if len(page) < _AT_ONCE or page[-1].completed_at > now - age:
                return
            after = page[-1]

    def _forget_audit(self, access: AccessStore, age: timedelta) -> None:
        while self._may_delete():
            before = datetime.fromtimestamp(self._wall_s, UTC) - age
            if not access.forget_audit(before, limit=_RECORDS_AT_ONCE).result():
                return
            self._deleting.rest()

    def _keep_within(self, limit_bytes: int) -> bool:
        """Delete the oldest while there is too much; whether the limit is kept now."""
        usage = self._usage
        if usage.known_bytes > limit_bytes:
            self._delete_down_to(int(limit_bytes * _LOW_MARK))
        if usage.known_bytes <= limit_bytes:
            self._is_warned = False
            return True
        if usage.used_bytes is not None and not self._is_warned:
            self._is_warned = True
            _log.warning(
                "retention.limit_exceeded",
                used_bytes=usage.used_bytes,
                limit_bytes=limit_bytes,
                detail="No ended job is left whose deletion would help: cancel jobs, or raise the limit.",
            )
        return False

    def _delete_down_to(self, target_bytes: int) -> None:
        # The end of a job whose clock was wrong tells nothing of its age: such jobs come last.
        for doubtful in (False, True):
            after: EndedJob | None = None
            while self._usage.known_bytes > target_bytes and self._may_delete():
                page = self._store.ended(after=after, limit=_AT_ONCE)
                if not page:
                    break
                after = page[-1]
                alike = [job for job in page if (job.completed_at < job.created_ceiling) == doubtful]
                self._delete(self._enough_of(alike, target_bytes), why="too much data")

    def _enough_of(self, jobs: Sequence[EndedJob], target_bytes: int) -> list[EndedJob]:
        """As many of these, the first ones, as bring the files down to the target."""
        too_much = self._usage.known_bytes - target_bytes
        enough = []
        for job in jobs:
            size = self._usage.bytes_of(job)
            if size and too_much > 0:  # one that was not counted yet would not be missed
                enough.append(job)
                too_much -= size
        return enough

    def _delete(self, ended: Sequence[EndedJob], *, why: str) -> None:
        jobs = [job for short in ended if (job := self._unchanged(short))]
        if jobs:
            removed = self._removal.remove_all(
                jobs, why=why, rest=self._deleting.rest, audit=lambda job: _deleted(job, why)
            )
            gone = {job.id for job in removed}
            self._usage.forget([short for short in ended if short.id in gone])
        self._deleting.rest()

    def _unchanged(self, ended: EndedJob) -> Job | None:
        """The job, unless it has been retried since, or deleted."""
        try:
            job = self._store.get(ended.id)
        except JobNotFound:
            return None
        return job if job.status.is_terminal and job.completed_at == ended.completed_at else None


def _deleted(job: Job, why: str) -> AuditRecord:
    told = {"name": job.spec.name, "status": job.status.value, "why": why}
    return AuditRecord(datetime.now(UTC), RETENTION_NAME, job.tenant, Action.JOB_DELETED, job.id, data=told)


def _is_older(job: EndedJob, now: datetime, age: timedelta) -> bool:
    """Whether it ended longer ago than `age`.

    A job that says it ended before an earlier one was submitted had a wrong clock: that of the two
    which makes it younger counts, unless it lies in the future and so is the wrong one.
    """
    since = job.created_ceiling if job.completed_at < job.created_ceiling <= now else job.completed_at
    return since <= now - age

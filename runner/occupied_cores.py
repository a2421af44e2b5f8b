"""Cores of attempts that have ended and left processes nobody could kill: they stay taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from runner.errors import JobNotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.core_queue import CoreQueue
    from runner.job_store import JobStore
    from runner.jobs import Job
    from runner.ports import Handle

_log = structlog.get_logger(__name__)


class OccupiedCores:
    """Not thread-safe: it belongs to the supervisor's thread."""

    def __init__(self, store: JobStore, queue: CoreQueue) -> None:
        self._store = store
        self._queue = queue
        self._jobs: dict[Handle, Job] = {}

    def find_again(self, handles: Sequence[Handle]) -> None:
        """After a restart: take the cores of these attempts, as far as their jobs are still known."""
        for handle in handles:
            if handle not in self._jobs:
                try:
                    job = self._store.get(handle.job_id)
                except JobNotFound:
                    continue
                self._queue.take(job)
                self.keep(handle, job)

    def keep(self, handle: Handle, job: Job) -> None:
        """The attempt, whose cores are taken, has ended and left survivors."""
        self._jobs[handle] = job
        _log.error("job.survivors", job_id=handle.job_id, attempt=handle.attempt, cores=job.spec.cores)

    def release(self, handle: Handle, job: Job) -> None:
        """The attempt's end is recorded: its cores become free, unless it has survivors."""
        if handle not in self._jobs:
            self._queue.release(job)

    def vacate(self, handle: Handle, *, is_recorded: bool) -> bool:
        """Nothing is left of it; whether cores have become free."""
        job = self._jobs.pop(handle, None)
        if job is None or not is_recorded:
            return False
        _log.info("job.survivors_gone", job_id=handle.job_id, attempt=handle.attempt)
        self._queue.release(job)
        return True

    def holds(self, job_id: str) -> bool:
        """Whether an earlier attempt of the job may still write to its working directory."""
        return any(handle.job_id == job_id for handle in self._jobs)

"""The running jobs that are supervised here, one attempt of each, and the cores that they take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.ports import Handle

if TYPE_CHECKING:
    from runner.core_queue import CoreQueue
    from runner.jobs import Job
    from runner.occupied_cores import OccupiedCores


@dataclass(slots=True)
class ActiveJob:
    """A running job by the newest row that was seen of it."""

    job: Job
    handle: Handle


class ActiveJobs:
    """Not thread-safe: it belongs to the supervisor's thread."""

    def __init__(self, queue: CoreQueue, occupied: OccupiedCores) -> None:
        self._queue = queue
        self._occupied = occupied
        self._by_id: dict[str, ActiveJob] = {}

    def take(self, job: Job) -> Handle:
        """Supervise it from now on; its cores are taken."""
        handle = Handle(job.id, job.attempt)
        self._by_id[job.id] = ActiveJob(job, handle)
        self._queue.take(job)
        return handle

    def release(self, active: ActiveJob) -> None:
        """It runs no more; its cores are free, unless something of it could not be killed."""
        del self._by_id[active.job.id]
        self._occupied.release(active.handle, active.job)

    def find(self, handle: Handle) -> ActiveJob | None:
        """None for an attempt that does not run, whatever other attempt of the same job may."""
        active = self._by_id.get(handle.job_id)
        return active if active is not None and active.handle == handle else None

    def handles(self) -> list[Handle]:
        return [active.handle for active in self._by_id.values()]

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._by_id

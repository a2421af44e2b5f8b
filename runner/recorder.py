"""Stores how running jobs get on and how they ended."""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from runner.errors import JobNotFound, StorageFull, StoreUnavailable
from runner.job_store import Update
from runner.jobs import Change, JobStatus, progressed
from runner.outcomes import update_for
from runner.samples import latest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runner.active_jobs import ActiveJob, ActiveJobs
    from runner.job_store import JobStore
    from runner.jobs import Job, Outcome
    from runner.measurements import Measurements
    from runner.ports import Handle
    from runner.samples import Sample

_log = structlog.get_logger(__name__)


class Recorder:
    """`receive` is for any thread; everything else belongs to the supervisor's."""

    def __init__(
        self,
        store: JobStore,
        jobs: ActiveJobs,
        *,
        release: Callable[[ActiveJob], None],
        wake: Callable[[], None],
        measurements: Measurements,
    ) -> None:
        """`release` is told of each job that runs no more, `wake` when `write` has something to do."""
        self._store = store
        self._jobs = jobs
        self._release = release
        self._wake = wake
        self._measurements = measurements
        self._outcomes: list[tuple[Handle, Outcome]] = []
        self._samples: deque[Sample] = deque()

    def receive(self, samples: Sequence[Sample]) -> None:
        """Keep what is new of running attempts until the next `write`."""
        self._samples.extend(samples)
        self._wake()

    def end(self, handle: Handle, outcome: Outcome) -> None:
        """Keep how the attempt ended until the next `write`."""
        self._outcomes.append((handle, outcome))

    def write(self) -> None:
        """Store all of it in one transaction; what loses its race is kept, and stored from the new state.

        Raises StoreUnavailable or StorageFull: then, too, all is kept that was not stored.
        """
        samples = [(active, s) for s in latest(self._samples) if (active := self._jobs.find(s.handle))]
        outcomes = [(active, o) for handle, o in self._outcomes if (active := self._jobs.find(handle))]
        ended = {id(active) for active, _ in outcomes}
        sampled = [(active, s) for active, s in samples if id(active) not in ended]
        now = datetime.now(UTC)
        updates = [update_for(active.job, outcome) for active, outcome in outcomes]
        updates += [
            Update(a.job, progressed(a.job, now, s.progress, s.usage), Change.PROGRESSED) for a, s in sampled
        ]
        try:
            stored = self._store.update(updates).result() if updates else []
        except (StoreUnavailable, StorageFull):
            self._samples.extendleft(sample for _, sample in reversed(samples))
            raise
        self._outcomes.clear()
        overtaken = []
        for (active, outcome), job in zip(outcomes, stored, strict=False):
            if job is None:
                self._outcomes.append((active.handle, outcome))
                overtaken.append(active)
            else:
                log_end(job, outcome)
                self._measurements.attempt_ended(job, outcome)
                self._release(active)
        for (active, sample), job in zip(sampled, stored[len(outcomes) :], strict=True):
            if job is None:
                self._samples.appendleft(sample)
                overtaken.append(active)
            else:
                active.job = job
        for active in overtaken:
            self._refresh(active)
            self._wake()

    def _refresh(self, active: ActiveJob) -> None:
        """The row as it is now; a row that runs no more is not ours any longer."""
        try:
            active.job = self._store.get(active.job.id)
        except JobNotFound:
            self._release(active)
            return
        if active.job.status is not JobStatus.RUNNING:
            self._release(active)


def log_end(job: Job, outcome: Outcome) -> None:
    _log.info(
        "job.ended",
        job_id=job.id,
        status=job.status.value,
        reason=outcome.reason.value,
        exit_code=outcome.exit_code,
        exit_signal=outcome.exit_signal,
    )

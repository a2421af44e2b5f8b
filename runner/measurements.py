"""What the runner measures of itself, where it happens; `/metrics` reads it and nothing else does."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from runner.histograms import LONG_S, Histogram, Histograms, Tally
from runner.jobs import Reason
from runner.ports import Ended

if TYPE_CHECKING:
    from datetime import datetime

    from runner.jobs import Job, Outcome
    from runner.ports import Observation

LAUNCH_RESULTS: Final = ("asked", "failed", "postponed", "refused")
"""Every key of `Measurements.launches`."""
STORE_TROUBLES: Final = ("full", "unavailable")
"""Every key of `StoreMeasurements.failures`."""


class StoreMeasurements:
    """Thread-safe. `commits` are transactions, failed ones too; `writes` are changes that were committed."""

    def __init__(self) -> None:
        self.commits = Histogram()
        self.reads = Histogram()
        self.writes: Tally[None] = Tally()
        self.failures: Tally[str] = Tally()


class Measurements:
    """Thread-safe; a job adds to each at most a few microseconds.

    `launches` are by what came of them: `asked` of the backend, `refused` by it, `postponed` for trouble that
    passes, `failed` for good. `launch_latency` is from when the backend was asked until the
    attempt's process is known.
    """

    def __init__(self) -> None:
        self.store = StoreMeasurements()
        self.submitted: Tally[str] = Tally()  # by workflow
        self.ended: Tally[tuple[str, Reason]] = Tally()  # jobs, by workflow
        self.requeued: Tally[tuple[str, Reason]] = Tally()  # attempts that another one follows by itself
        self.queue_wait = Histogram(LONG_S)
        self.launches: Tally[str] = Tally()
        self.launch_latency = Histogram()
        self.exit_detection = Histogram()
        self.run_time: Histograms[str] = Histograms(LONG_S)  # of attempts, by workflow
        self.log_bytes: Tally[str] = Tally()  # of ended attempts, by workflow

    def job_claimed(self, before: Job, at: datetime) -> None:
        self.queue_wait.observe((at - before.updated_at).total_seconds())

    def end_seen(self, observation: Observation) -> None:
        """How long an attempt's end went unseen, if this is one; its shim says when it was."""
        if isinstance(observation, Ended):
            self.exit_detection.observe(time.time() - observation.record.ended_at)

    def attempt_ended(self, job: Job, outcome: Outcome) -> None:
        """`job` is what the outcome has made of it, stored."""
        workflow = job.spec.workflow
        (self.ended if job.status.is_terminal else self.requeued).add((workflow, outcome.reason))
        if outcome.reason is Reason.LAUNCH_FAILED or outcome.usage is None or outcome.started_at is None:
            return  # it has not run, or nobody knows for how long
        self.run_time.observe(workflow, (outcome.ended_at - outcome.started_at).total_seconds())

    def log_ended(self, job: Job, observation: Observation) -> None:
        if isinstance(observation, Ended):
            self.log_bytes.add(job.spec.workflow, observation.record.log_bytes)

    def job_cancelled_in_queue(self, job: Job) -> None:
        self.ended.add((job.spec.workflow, Reason.CANCEL_REQUESTED))

"""The supervisor thread: claim, launch, observe, record; and recovery at start, which is the same loop."""

from __future__ import annotations

import errno
import threading
import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, assert_never

import structlog

from runner.attempt_files import AttemptFiles
from runner.core_queue import CoreQueue
from runner.errors import (
    BackendUnavailable,
    EngineUnavailable,
    JobNotFound,
    StorageFull,
    StoreUnavailable,
    WorkflowNotFound,
)
from runner.jobs import (
    Change,
    Job,
    JobStatus,
    Outcome,
    claimed,
    progressed,
)
from runner.outcomes import cancelled_before_start, launch_failed, lost, outcome_of, update_for
from runner.ports import Ended, Handle, LaunchRequest, Lost, NotStarted, Running, RunState, Update
from runner.sampler import Sample, Sampler

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runner.jobs import JobEvent
    from runner.ports import (
        Backend,
        Engine,
        EventBus,
        JobStore,
        LogStore,
        Observation,
        WorkflowRegistry,
    )
    from runner.settings import RunnerSettings

_log = structlog.get_logger(__name__)

_RETRY_S = 1.0
"""How long to wait before asking a store or backend again that could not answer."""
_TAIL_BYTES = 65536
_PASSING = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN}
)
"""What ails the machine and not the job: it waits, and starts once that is over."""


@dataclass(slots=True)
class _Active:
    """A running job as the supervisor knows it: the newest row it has seen."""

    job: Job
    handle: Handle


class Supervisor:
    """Owns the backend and every running job. One thread; nothing is polled while nothing happens."""

    def __init__(
        self,
        *,
        settings: RunnerSettings,
        store: JobStore,
        backend: Backend,
        engine: Engine,
        workflows: WorkflowRegistry,
        logs: LogStore,
        bus: EventBus,
    ) -> None:
        self._settings = settings
        self._store = store
        self._backend = backend
        self._engine = engine
        self._workflows = workflows
        self._logs = logs
        self._bus = bus
        self._sampler = Sampler(self._receive_samples)
        self._active: dict[str, _Active] = {}
        self._queue = CoreQueue(store, settings.max_cores)
        self._outcomes: list[tuple[Handle, Outcome]] = []  # to be recorded
        self._unlaunched: list[Handle] = []  # claimed, to be launched
        self._retry_at: float | None = None
        # Filled by other threads; everything else belongs to the supervisor's.
        self._asked: deque[JobEvent] = deque()
        self._samples: deque[Sample] = deque()
        self._may_claim = True
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervisor")
        self._unsubscribe: Callable[[], None] = _nothing

    # ------------------------------------------------------------ from other threads

    def start(self) -> None:
        """Recover every running job, then supervise. Raises StoreUnavailable, BackendUnavailable."""
        self._backend.start()
        self._unsubscribe = self._bus.subscribe(self._hear)
        self._recover()
        self._sampler.start()
        self._thread.start()

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def close(self) -> None:
        """Stop supervising; jobs go on and are found again at the next start."""
        self._unsubscribe()
        self._stopping.set()
        self._backend.wake()
        if self._thread.is_alive():
            self._thread.join()
        self._sampler.close()
        self._backend.close()

    def _hear(self, event: JobEvent) -> None:
        """On the store's thread: only what the supervisor did not do itself is news."""
        match event.kind:
            case Change.SUBMITTED | Change.RETRIED:
                self._may_claim = True
                # Without a free core there is nothing to wake up for: the job that frees one will.
                if self._queue.has_room:
                    self._backend.wake()
            case Change.CANCEL_REQUESTED if event.status is JobStatus.RUNNING:
                self._asked.append(event)
                self._backend.wake()
            case _:
                pass

    def _receive_samples(self, samples: Sequence[Sample]) -> None:
        self._samples.extend(samples)
        self._backend.wake()

    # ------------------------------------------------------------ the loop

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._turn()
            except (StoreUnavailable, StorageFull) as error:
                _log.warning("supervisor.store_unavailable", detail=str(error))
                self._retry_later()
            except Exception:  # noqa: BLE001 - one job's trouble must not end the others' supervision
                _log.exception("supervisor.failed")
                self._retry_later()

    def _turn(self) -> None:
        for handle, observation in self._backend.wait(self._timeout_s()):
            self._observed(handle, observation)
            if isinstance(observation, NotStarted):
                self._retry_later()  # it could not be started just now
        if self._retry_at is not None and time.monotonic() >= self._retry_at:
            self._retry_at = None
            self._may_claim = True
        self._stop_cancelled()
        self._record()
        if self._may_claim and self._retry_at is None:
            self._claim()
        if self._retry_at is None:
            self._launch_claimed()

    def _timeout_s(self) -> float | None:
        if self._may_claim and self._retry_at is None:
            return 0.0
        return max(0.0, self._retry_at - time.monotonic()) if self._retry_at is not None else None

    def _retry_later(self) -> None:
        self._retry_at = time.monotonic() + _RETRY_S

    # ------------------------------------------------------------ recovery

    def _recover(self) -> None:
        """Take up every job the store calls running, by what its files say."""
        for job in self._store.running():
            handle = self._take(job)
            observation = self._backend.observe(handle)
            _log.info("job.recovered", job_id=job.id, attempt=job.attempt, found=type(observation).__name__)
            self._observed(handle, observation)
            if job.cancel_requested_at is not None:
                self._backend.stop(handle, force=False)

    def _take(self, job: Job) -> Handle:
        handle = Handle(job.id, job.attempt)
        self._active[job.id] = _Active(job, handle)
        self._queue.take(job)
        return handle

    def _release(self, active: _Active) -> None:
        del self._active[active.job.id]
        self._queue.release(active.job)
        self._may_claim = True

    def _known(self, handle: Handle) -> _Active | None:
        active = self._active.get(handle.job_id)
        return active if active is not None and active.handle == handle else None

    # ------------------------------------------------------------ observing

    def _observed(self, handle: Handle, observation: Observation) -> None:
        active = self._known(handle)
        if active is None:
            return
        match observation:
            case Running():
                self._watch(handle)
            case NotStarted():
                self._unlaunched.append(handle)
            case Ended(record):
                told, rss = self._finish(handle)
                explained = None
                if record.launch_error is None and record.exit_code != 0:
                    explained = self._explain(handle, told)
                outcome = outcome_of(
                    active.job,
                    record,
                    explained=explained,
                    progress=told.progress,
                    sampled_rss_bytes=rss,
                )
                self._outcomes.append((handle, outcome))
            case Lost(detail):
                told, _ = self._finish(handle)
                self._outcomes.append((handle, lost(active.job, detail, progress=told.progress)))
            case _:
                assert_never(observation)

    def _watch(self, handle: Handle) -> None:
        reader = self._engine.reader(self._files(handle))
        self._sampler.add(handle, reader, lambda: self._backend.top_pid(handle))

    def _finish(self, handle: Handle) -> tuple[RunState, int]:
        """What the run told of itself, read to its end, and the largest memory seen."""
        finished = self._sampler.finish(handle)
        try:
            reader, rss = finished if finished is not None else (self._engine.reader(self._files(handle)), 0)
            reader.advance()
        except Exception:  # noqa: BLE001 - written by the job: whatever it is, the result counts without it
            _log.exception("job.events_unreadable", job_id=handle.job_id, attempt=handle.attempt)
            return RunState(), 0
        return reader.state, rss

    def _explain(self, handle: Handle, told: RunState) -> str | None:
        try:
            log = self._logs.open(handle.job_id, handle.attempt)
            _, tail = log.read(max(0, log.size() - _TAIL_BYTES), _TAIL_BYTES)
            return self._engine.explain(told, tail)
        except Exception:  # noqa: BLE001 - as for events
            _log.exception("job.log_unreadable", job_id=handle.job_id, attempt=handle.attempt)
            return None

    # ------------------------------------------------------------ stopping

    def _stop_cancelled(self) -> None:
        while self._asked:
            event = self._asked[0]
            active = self._active.get(event.job_id)
            if active is not None and active.job.attempt == event.attempt:
                active.job = self._store.get(event.job_id)
                if active.handle in self._unlaunched:
                    self._unlaunched.remove(active.handle)
                    self._outcomes.append((active.handle, cancelled_before_start()))
                else:
                    self._backend.stop(active.handle, force=False)
            self._asked.popleft()

    # ------------------------------------------------------------ recording

    def _record(self) -> None:
        """Write down outcomes and samples in one transaction; what loses its race is written again."""
        samples = self._latest_samples()
        if not self._outcomes and not samples:
            return
        outcomes = [
            (active, outcome) for handle, outcome in self._outcomes if (active := self._known(handle))
        ]
        updates = [update_for(active.job, outcome) for active, outcome in outcomes]
        done = {id(active) for active, _ in outcomes}
        sampled = [(a, s) for a, s in samples if id(a) not in done]
        now = datetime.now(UTC)
        updates += [
            Update(a.job, progressed(a.job, now, s.progress, s.usage), Change.PROGRESSED) for a, s in sampled
        ]
        stored = self._store.update(updates).result()
        self._outcomes.clear()
        for (active, outcome), job in zip(outcomes, stored, strict=False):
            if job is None:
                self._refresh(active)
                self._outcomes.append((active.handle, outcome))
                self._backend.wake()
            else:
                self._log_end(job, outcome)
                self._release(active)
        for (active, _), job in zip(sampled, stored[len(outcomes) :], strict=True):
            if job is None:
                self._refresh(active)  # the next sample tells again
            else:
                active.job = job

    def _refresh(self, active: _Active) -> None:
        """After a lost race: the row as it is now; a row that runs no more is not ours any longer."""
        try:
            active.job = self._store.get(active.job.id)
        except JobNotFound:
            self._release(active)
            return
        if active.job.status is not JobStatus.RUNNING:
            self._release(active)

    def _latest_samples(self) -> list[tuple[_Active, Sample]]:
        latest: dict[Handle, Sample] = {}
        while self._samples:
            sample = self._samples.popleft()
            before = latest.get(sample.handle)
            if before is not None:
                sample = Sample(
                    sample.handle, sample.progress or before.progress, sample.usage or before.usage
                )
            latest[sample.handle] = sample
        return [(active, sample) for handle, sample in latest.items() if (active := self._known(handle))]

    def _log_end(self, job: Job, outcome: Outcome) -> None:
        _log.info(
            "job.ended",
            job_id=job.id,
            status=job.status.value,
            reason=outcome.reason.value,
            exit_code=outcome.exit_code,
            exit_signal=outcome.exit_signal,
        )

    # ------------------------------------------------------------ claiming

    def _claim(self) -> None:
        """Take what may start: claimed durably first, launched after."""
        self._may_claim = False
        chosen = self._queue.next()
        if not chosen:
            return
        now = datetime.now(UTC)
        updates = [Update(job, claimed(job, now), Change.CLAIMED) for job in chosen]
        for job in self._store.update(updates).result():
            if job is not None:  # else it was cancelled in between
                self._unlaunched.append(self._take(job))
        self._may_claim = True  # until nothing more fits

    # ------------------------------------------------------------ launching

    def _launch_claimed(self) -> None:
        waiting, self._unlaunched = self._unlaunched, []
        while waiting:
            handle = waiting.pop(0)
            active = self._known(handle)
            if active is None:
                continue
            try:
                self._launch(active)
            except BackendUnavailable as error:
                _log.warning("supervisor.backend_unavailable", detail=str(error))
                self._unlaunched.extend([handle, *waiting])
                self._retry_later()
                return
            except (EngineUnavailable, WorkflowNotFound) as error:
                self._fail_launch(handle, str(error))
            except OSError as error:
                if error.errno in _PASSING:
                    _log.warning("supervisor.launch_postponed", job_id=handle.job_id, error=error.strerror)
                    self._unlaunched.extend([handle, *waiting])
                    self._retry_later()
                    return
                self._fail_launch(handle, f"The job's files could not be written: {error.strerror}.")
            except Exception as error:  # noqa: BLE001 - one job's trouble must not keep the others waiting
                _log.exception("supervisor.launch_failed", job_id=handle.job_id)
                self._fail_launch(
                    handle, f"The job could not be launched: {error!r}; the service's log says more."
                )

    def _launch(self, active: _Active) -> None:
        job = active.job
        workflow = self._workflows.get(job.spec.workflow)
        command = self._engine.command(job, workflow, self._files(active.handle))
        request = LaunchRequest(active.handle, command, workflow.folder, job.spec.timeout_s)
        self._backend.launch(request)
        self._watch(active.handle)

    def _fail_launch(self, handle: Handle, detail: str) -> None:
        self._outcomes.append((handle, launch_failed(detail)))
        self._backend.wake()

    def _files(self, handle: Handle) -> AttemptFiles:
        return AttemptFiles.of(self._settings.data_dir, handle.job_id, handle.attempt)


def _nothing() -> None:
    """The subscription before there is one."""

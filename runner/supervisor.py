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
from runner.attempt_results import AttemptResults
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
from runner.launch_queue import LaunchQueue
from runner.outcomes import cancelled_before_start, launch_failed, update_for
from runner.ports import Ended, Handle, LaunchRequest, Lost, NotStarted, Running, Update
from runner.sampler import Sample, Sampler
from runner.wind_down import Step, WindDown

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

_ANY_CORES = 2**31 - 1
_RETRY_S = 1.0
"""How long to wait before asking a store or backend again that could not answer."""
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
        self._bus = bus
        self._sampler = Sampler(self._receive_samples)
        self._results = AttemptResults(
            data_dir=settings.data_dir,
            engine=engine,
            logs=logs,
            sampler=self._sampler,
            top_pid=backend.top_pid,
        )
        self._active: dict[str, _Active] = {}
        self._queue = CoreQueue(store, settings.max_cores)
        self._outcomes: list[tuple[Handle, Outcome]] = []  # to be recorded
        self._launches = LaunchQueue()  # claimed, to be launched
        self._retry_at: float | None = None
        self._in_doubt = False  # the store may have done what it said it had not
        self._wind_down: WindDown | None = None
        # Filled by other threads; everything else belongs to the supervisor's.
        self._asked: deque[JobEvent] = deque()
        self._samples: deque[Sample] = deque()
        self._may_claim = True
        self._stopping = threading.Event()
        self._winding_down = threading.Event()
        self._wound_down = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervisor")
        self._unsubscribe: Callable[[], None] = _nothing

    # ------------------------------------------------------------ from other threads

    def start(self) -> None:
        """Recover every running job, then supervise. Raises StoreUnavailable, BackendUnavailable."""
        self._backend.start()
        self._unsubscribe = self._bus.subscribe(self._hear)
        self._find_again()
        self._warn_of_too_large()
        self._sampler.start()
        self._thread.start()

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def wind_down(self) -> bool:
        """Start nothing more and deal with what runs, as the settings say; true once that is done.

        Returns at once, so ask again. The rest of the supervision goes on meanwhile.
        """
        if self._settings.on_shutdown == "detach" or not self._thread.is_alive():
            return True
        if not self._winding_down.is_set():
            self._winding_down.set()
            self._backend.wake()
        return self._wound_down.is_set()

    @property
    def launches_postponed(self) -> int:
        """How many claimed jobs could not be started yet and wait for their next try."""
        return self._launches.postponed

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
            case Change.SUBMITTED | Change.RETRIED | Change.INTERRUPTED:
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
                self._in_doubt = True
                self._retry_later()
            except Exception:  # noqa: BLE001 - one job's trouble must not end the others' supervision
                _log.exception("supervisor.failed")
                self._retry_later()

    def _turn(self) -> None:
        for handle, observation in self._backend.wait(self._timeout_s()):
            self._observed(handle, observation)
        if self._retry_at is not None and time.monotonic() >= self._retry_at:
            self._retry_at = None
            self._may_claim = True
        self._stop_cancelled()
        self._record()
        if self._winding_down.is_set():
            self._wind_down_on()
        elif self._retry_at is None:
            if self._in_doubt:
                self._find_again()
            if self._may_claim:
                self._claim()
            self._launch_claimed()

    def _timeout_s(self) -> float | None:
        if self._winding_down.is_set():
            at = self._wind_down.next_at() if self._wind_down is not None else 0.0
        elif self._retry_at is not None:
            at = self._retry_at
        else:
            at = 0.0 if self._may_claim else self._launches.next_at()
        return None if at is None else max(0.0, at - time.monotonic())

    def _retry_later(self) -> None:
        self._retry_at = time.monotonic() + _RETRY_S

    # ------------------------------------------------------------ winding down

    def _wind_down_on(self) -> None:
        if self._wind_down is None:
            how, within_s = self._settings.on_shutdown, self._settings.shutdown_s
            self._wind_down = WindDown(how, within_s=within_s, stop_grace_s=self._settings.stop_grace_s)
        step = self._wind_down.step()
        started = [a.handle for a in self._active.values() if a.handle not in self._launches]
        match step:
            case Step.WAIT:
                pass
            case Step.INTERRUPT | Step.FORCE:
                _log.info("supervisor.stopping_jobs", jobs=len(started), force=step is Step.FORCE)
                for handle in started:
                    self._backend.stop(handle, why="interrupt", force=step is Step.FORCE)
            case Step.GIVE_UP:
                _log.warning("supervisor.jobs_let_go", jobs=len(started))
            case _:
                assert_never(step)
        if not started or step is Step.GIVE_UP:
            self._wound_down.set()

    # ------------------------------------------------------------ recovery

    def _find_again(self) -> None:
        """Take up every job the store calls running and nobody here knows, by what its files say."""
        for job in self._store.running():
            if job.id in self._active:
                continue
            handle = self._take(job)
            observation = self._backend.observe(handle)
            _log.info("job.recovered", job_id=job.id, attempt=job.attempt, found=type(observation).__name__)
            if isinstance(observation, NotStarted) and job.cancel_requested_at is None:
                self._launches.add(handle)
                continue
            self._observed(handle, observation)
            if job.cancel_requested_at is not None and isinstance(observation, Running):
                self._backend.stop(handle, why="cancel")
        self._in_doubt = False

    def _warn_of_too_large(self) -> None:
        """Jobs accepted when there were more cores wait until there are again."""
        most = self._settings.max_cores
        waiting = self._store.pending(max_cores=_ANY_CORES, limit=1000)
        too_large = [job.id for job in waiting if job.spec.cores > most]
        if too_large:
            _log.warning("supervisor.jobs_too_large", jobs=len(too_large), first=too_large[0], max_cores=most)

    def _take(self, job: Job) -> Handle:
        handle = Handle(job.id, job.attempt)
        self._active[job.id] = _Active(job, handle)
        self._queue.take(job)
        return handle

    def _release(self, active: _Active) -> None:
        self._launches.discard(active.handle)
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
                self._results.watch(handle)
            case NotStarted() if active.job.cancel_requested_at is not None:
                self._results.forget(handle)
                self._outcomes.append((handle, cancelled_before_start()))
            case NotStarted():
                self._launches.postpone(handle)
            case Ended() | Lost():
                self._outcomes.append((handle, self._results.outcome(active.job, handle, observation)))
            case _:
                assert_never(observation)

    # ------------------------------------------------------------ stopping

    def _stop_cancelled(self) -> None:
        while self._asked:
            event = self._asked[0]
            active = self._active.get(event.job_id)
            if active is not None and active.job.attempt == event.attempt:
                active.job = self._store.get(event.job_id)
                if self._launches.discard(active.handle):
                    self._outcomes.append((active.handle, cancelled_before_start()))
                else:
                    self._backend.stop(active.handle, why="cancel")
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
                self._launches.add(self._take(job))
        self._may_claim = True  # until nothing more fits

    # ------------------------------------------------------------ launching

    def _launch_claimed(self) -> None:
        due = self._launches.take_due()
        while due:
            handle = due.pop(0)
            active = self._known(handle)
            if active is None:
                continue
            try:
                self._launch(active)
            except BackendUnavailable as error:
                _log.warning("supervisor.backend_unavailable", detail=str(error))
                for each in (handle, *due):
                    self._launches.add(each)
                self._retry_later()
                return
            except (EngineUnavailable, WorkflowNotFound) as error:
                self._fail_launch(handle, str(error))
            except OSError as error:
                if error.errno in _PASSING:
                    _log.warning("supervisor.launch_postponed", job_id=handle.job_id, error=error.strerror)
                    self._launches.postpone(handle)
                else:
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
        self._results.watch(active.handle)

    def _fail_launch(self, handle: Handle, detail: str) -> None:
        self._launches.discard(handle)
        self._results.forget(handle)
        self._outcomes.append((handle, launch_failed(detail)))
        self._backend.wake()

    def _files(self, handle: Handle) -> AttemptFiles:
        return AttemptFiles.of(self._settings.data_dir, handle.job_id, handle.attempt)


def _nothing() -> None:
    """The subscription before there is one."""

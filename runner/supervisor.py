"""The supervisor thread: claim, launch, observe, record; and recovery at start, which is the same loop."""

from __future__ import annotations

import threading
import time
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, assert_never

import structlog

from runner.active_jobs import ActiveJobs
from runner.attempt_results import AttemptResults
from runner.core_queue import CoreQueue
from runner.errors import BackendUnavailable, StorageFull, StoreUnavailable
from runner.job_store import Update
from runner.jobs import Change, JobStatus, claimed
from runner.launch_queue import LaunchQueue
from runner.launching import Launching
from runner.occupied_cores import OccupiedCores
from runner.outcomes import cancelled_before_start, launch_failed
from runner.ports import Ended, Handle, Lost, NotStarted, Running, Vacated
from runner.recorder import Recorder
from runner.recurring_trouble import RecurringTrouble
from runner.wind_down import Step, WindDown

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.active_jobs import ActiveJob
    from runner.held_jobs import HeldJobs
    from runner.job_store import JobStore
    from runner.jobs import JobEvent
    from runner.log_store import LogStore
    from runner.measurements import Measurements
    from runner.ports import Backend, Engine, EventBus, Observation, WorkflowPins
    from runner.quotas import CoreQuotas
    from runner.settings import RunnerSettings
    from runner.side_runs import SideRuns
    from runner.uploads import Uploads

_log = structlog.get_logger(__name__)

_ANY_CORES = 2**31 - 1
_RETRY_S = 1.0
"""How long to wait before asking a store or backend again that could not answer."""
_SIDE_RUNS_END_WITHIN_S = 2.0


class Supervisor:
    """Owns the backend and every running job. One thread; nothing is polled while nothing happens."""

    def __init__(
        self,
        *,
        settings: RunnerSettings,
        store: JobStore,
        quotas: CoreQuotas,
        backend: Backend,
        engine: Engine,
        pins: WorkflowPins,
        uploads: Uploads,
        logs: LogStore,
        bus: EventBus,
        isolation: Callable[[], str],
        side_runs: SideRuns,
        held: HeldJobs,
        measurements: Measurements,
    ) -> None:
        """`isolation` is what is told of a job that is started now."""
        self._settings = settings
        self._store = store
        self._backend = backend
        self._launching = Launching(
            settings.data_dir, engine=engine, backend=backend, pins=pins, uploads=uploads
        )
        self._bus = bus
        self._isolation = isolation
        self._side_runs = side_runs
        self._held = held
        self._measurements = measurements
        self._queue = CoreQueue(store, quotas, settings.max_cores)
        self._occupied = OccupiedCores(store, self._queue)
        self._jobs = ActiveJobs(self._queue, self._occupied)
        self._recorder = Recorder(
            store, self._jobs, release=self._release, wake=backend.wake, measurements=measurements
        )
        self._results = AttemptResults(
            data_dir=settings.data_dir,
            engine=engine,
            logs=logs,
            report=self._recorder.receive,
            wake=backend.wake,
            top_pid=backend.top_pid,
        )
        self._launches = LaunchQueue()  # claimed, to be launched
        self._retry_at: float | None = None
        self._store_trouble = RecurringTrouble()
        self._backend_trouble = RecurringTrouble()
        self._failures = RecurringTrouble()
        self._in_doubt = False  # the store may have done what it said it had not
        self._wind_down: WindDown | None = None
        # Filled by other threads; everything else belongs to the supervisor's.
        self._asked: deque[JobEvent] = deque()
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
        self._side_runs.find_again()
        self._find_again()
        self._warn_of_too_large()
        self._results.start()
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

    @property
    def used_cores(self) -> int:
        """The sum of the cores of running jobs, and of ended ones that left processes nobody could kill."""
        return self._queue.used

    def close(self) -> None:
        """Stop supervising; jobs go on and are found again at the next start."""
        self._unsubscribe()
        self._side_runs.close(_SIDE_RUNS_END_WITHIN_S)
        self._stopping.set()
        self._backend.wake()
        if self._thread.is_alive():
            self._thread.join()
        self._results.close()
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

    # ------------------------------------------------------------ the loop

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._turn()
            except (StoreUnavailable, StorageFull) as error:
                if times := self._store_trouble.came(str(error)):
                    _log.warning("supervisor.store_unavailable", detail=str(error), times=times)
                self._in_doubt = True
                self._retry_later()
            except Exception as error:  # noqa: BLE001 - one job's trouble must not end the others' supervision
                if times := self._failures.came(repr(error)):
                    _log.exception("supervisor.failed", times=times)
                self._retry_later()

    def _turn(self) -> None:
        for handle, observation in self._backend.wait(self._timeout_s()):
            if not self._side_runs.observed(handle, observation):
                self._measurements.end_seen(observation)
                self._observed(handle, observation)
        self._side_runs.turn()
        self._end_those_read()
        if self._retry_at is not None and time.monotonic() >= self._retry_at:
            self._retry_at = None
            self._may_claim = True
        self._stop_cancelled()
        self._recorder.write()
        if self._winding_down.is_set():
            self._wind_down_on()
        elif self._retry_at is None:
            if self._in_doubt:
                self._find_again()
            if self._may_claim:
                self._claim()
            if self._store_trouble.is_over():  # all that had failed has been tried again
                _log.info("supervisor.store_available")
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
        started = [handle for handle in self._jobs.handles() if handle not in self._launches]
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
            if job.id in self._jobs:
                continue
            handle = self._jobs.take(job)
            observation = self._backend.observe(handle)
            _log.info("job.recovered", job_id=job.id, attempt=job.attempt, found=type(observation).__name__)
            if isinstance(observation, NotStarted) and job.cancel_requested_at is None:
                self._launches.add(handle)
                continue
            self._observed(handle, observation)
            if job.cancel_requested_at is not None and isinstance(observation, Running):
                self._backend.stop(handle, why="cancel")
        self._occupied.find_again(self._backend.survivors())
        self._in_doubt = False

    def _warn_of_too_large(self) -> None:
        """Jobs accepted when there were more cores wait until there are again."""
        most = self._settings.max_cores
        waiting = self._store.pending(max_cores=_ANY_CORES, limit=50)  # each may be a megabyte
        too_large = [job.id for job in waiting if job.spec.cores > most]
        if too_large:
            _log.warning("supervisor.jobs_too_large", jobs=len(too_large), first=too_large[0], max_cores=most)

    def _release(self, active: ActiveJob) -> None:
        self._launches.discard(active.handle)
        self._jobs.release(active)
        self._may_claim = True

    # ------------------------------------------------------------ observing

    def _observed(self, handle: Handle, observation: Observation) -> None:
        active = self._jobs.find(handle)
        if isinstance(observation, Vacated) and self._occupied.vacate(handle, is_recorded=active is None):
            self._may_claim = True
        if active is None:
            return
        match observation:
            case Vacated():
                pass
            case Running():
                self._results.watch(handle)
            case NotStarted() if active.job.cancel_requested_at is not None:
                self._results.forget(handle)
                self._recorder.end(handle, cancelled_before_start())
            case NotStarted():
                self._measurements.launches.add("refused")
                self._launches.postpone(handle)
            case Ended() | Lost():
                if isinstance(observation, Ended) and observation.record.survivors:
                    self._occupied.keep(handle, active.job)
                self._end(active, observation)
            case _:
                assert_never(observation)

    def _end(self, active: ActiveJob, observation: Ended | Lost) -> None:
        """Take down how it ended: at once, or when all that it told has been read."""
        outcome = self._results.outcome(active.job, active.handle, observation)
        if outcome is not None:
            self._measurements.log_ended(active.job, observation)
            self._recorder.end(active.handle, outcome)

    def _end_those_read(self) -> None:
        for handle, observation in self._results.read_out():
            active = self._jobs.find(handle)
            if active is not None:
                self._end(active, observation)
            else:
                self._results.forget(handle)

    # ------------------------------------------------------------ stopping

    def _stop_cancelled(self) -> None:
        while self._asked:
            event = self._asked[0]
            active = self._jobs.find(Handle(event.job_id, event.attempt))
            if active is not None:
                active.job = self._store.get(event.job_id)
                if self._launches.discard(active.handle):
                    self._recorder.end(active.handle, cancelled_before_start())
                else:
                    self._backend.stop(active.handle, why="cancel")
            self._asked.popleft()

    # ------------------------------------------------------------ claiming

    def _claim(self) -> None:
        """Take what may start: claimed durably first, launched after."""
        self._may_claim = False
        chosen = self._queue.next()
        if not chosen:
            return
        now = datetime.now(UTC)
        updates = [Update(job, claimed(job, now, self._isolation()), Change.CLAIMED) for job in chosen]
        for job in self._store.update(updates).result():
            if job is not None:  # else it was cancelled in between
                self._launches.add(self._jobs.take(job))
        for job in chosen:
            if job.id in self._jobs:
                self._measurements.job_claimed(job, now)
        self._may_claim = True  # until nothing more fits

    # ------------------------------------------------------------ launching

    def _launch_claimed(self) -> None:
        due = self._launches.take_due()
        while due:
            handle = due.pop(0)
            active = self._jobs.find(handle)
            if active is None:
                continue
            if handle.job_id in self._held or self._occupied.holds(handle.job_id):
                self._launches.postpone(handle)
                continue
            try:
                self._launching.launch(active.job, handle)
            except BackendUnavailable as error:
                if times := self._backend_trouble.came(str(error)):
                    _log.warning("supervisor.backend_unavailable", detail=str(error), times=times)
                self._measurements.launches.add("postponed")
                for each in (handle, *due):
                    self._launches.add(each)
                self._retry_later()
                return
            except Exception as error:  # noqa: BLE001 - one job's trouble must not keep the others waiting
                detail = self._launching.failure(error, handle)
                self._measurements.launches.add("postponed" if detail is None else "failed")
                if detail is None:
                    self._launches.postpone(handle)
                else:
                    self._fail_launch(handle, detail)
            else:
                self._measurements.launches.add("asked")
                self._results.watch(handle)
                if self._backend_trouble.is_over():
                    _log.info("supervisor.backend_available")

    def _fail_launch(self, handle: Handle, detail: str) -> None:
        self._launches.discard(handle)
        self._results.forget(handle)
        self._recorder.end(handle, launch_failed(detail))
        self._backend.wake()


def _nothing() -> None:
    """The subscription before there is one."""

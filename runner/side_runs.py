"""Side runs: the engine asked a question beside the jobs, as for a plan or a report.

They are launched by the backend of the jobs, so that they are as isolated, as limited and as surely ended.
The store knows nothing of them, they take none of the jobs' cores, and nothing of them stays.
"""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from runner.errors import BackendUnavailable, JobBusy, ShuttingDown
from runner.ports import Ended, Lost, NotStarted, Running, Vacated
from runner.side_files import IN_A_JOB, SideFiles

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runner.held_jobs import HeldJobs
    from runner.ports import Backend, Handle, LaunchRequest, Observation

_log = structlog.get_logger(__name__)

_MARGIN_S: Final = 30.0
"""Beyond a run's own deadline and its grace: for a launcher that has to be started anew."""


@dataclass(frozen=True, slots=True)
class _Run:
    handle: Handle
    end: Future[Ended | Lost]
    request: LaunchRequest | None = None  # None: an earlier service has started it


class SideRuns:
    """`holding`, `run` and `close` are for any thread; everything else belongs to the supervisor's."""

    def __init__(self, data_dir: Path, backend: Backend, held: HeldJobs, *, stop_grace_s: float) -> None:
        self._backend = backend
        self._held = held
        self._stop_grace_s = stop_grace_s
        self._files = SideFiles(data_dir)
        self._runs: dict[Handle, _Run] = {}
        self._asked: deque[_Run] = deque()
        self._stops: deque[Handle] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._survivors: set[Handle] = set()  # of runs that have ended
        self._leaving: set[Handle] = set()  # their files are being removed, and nobody waits for that
        self._holders: set[str] = set()  # jobs within `holding`

    # ------------------------------------------------------------ from any thread

    @contextmanager
    def holding(self, job_id: str) -> Iterator[None]:
        """Within, no attempt of the job is started and its files are not removed: for a run in its folder.

        Raises JobBusy while another such run goes on, or the job is being deleted.
        """
        if not self._held.hold(job_id):
            raise JobBusy(job_id)
        with self._changed:
            self._holders.add(job_id)
        try:
            yield
        finally:
            with self._changed:
                self._holders.discard(job_id)
                self._release(job_id)

    def are_in(self, job_id: str) -> bool:
        """Whether the job is held, by such a run or by its own removal."""
        return job_id in self._held

    @contextmanager
    def run(self, request: LaunchRequest, timeout_s: float) -> Iterator[Ended | Lost]:
        """Start it and wait for its end; its files are there within, and removed after.

        `timeout_s` is the request's own. Raises ShuttingDown, BackendUnavailable, and OSError where its
        files could not be written.
        """
        run = _Run(request.handle, Future(), request)
        self._files.note(run.handle)
        try:
            yield self._end_of(run, timeout_s)
        finally:
            if run.handle not in self._survivors and run.handle not in self._runs:
                self._files.discard(run.handle)

    def _end_of(self, run: _Run, timeout_s: float) -> Ended | Lost:
        with self._changed:
            if self._is_closed:
                raise ShuttingDown
            self._runs[run.handle] = run
        self._asked.append(run)
        self._backend.wake()
        try:
            return run.end.result(timeout_s + self._stop_grace_s + _MARGIN_S)
        except FutureTimeout:
            run.end.cancel()
            self._stop(run.handle)
            _log.error("side_run.does_not_end", job_id=run.handle.job_id, attempt=run.handle.attempt)
            raise BackendUnavailable("The engine did not end when it was told to: try again later.") from None

    def close(self, within_s: float) -> None:
        """Take no more, and end those that run; returns when they have ended, or time is up."""
        with self._changed:
            self._is_closed = True
            running = list(self._runs)
        for handle in running:
            self._stop(handle)
        with self._changed:
            self._changed.wait_for(lambda: not self._runs, within_s)

    def _stop(self, handle: Handle) -> None:
        self._stops.append(handle)
        self._backend.wake()

    # ------------------------------------------------------------ the supervisor's thread

    def find_again(self) -> None:
        """At the start: end what an earlier service has left running, and remove what is at rest.

        A job in whose folder one still runs is held until that has ended.
        """
        for handle in self._files.noted():
            _log.info("side_run.found", job_id=handle.job_id, attempt=handle.attempt)
            if isinstance(self._backend.observe(handle), Running):
                if handle.attempt == IN_A_JOB:
                    self._held.hold(handle.job_id)
                self._runs[handle] = _Run(handle, Future())
                self._backend.stop(handle, why="interrupt", force=True)
            else:
                self._files.discard(handle, remove=False)

    def turn(self) -> None:
        """Stop and launch what was asked for; trouble is told to whoever has asked."""
        while self._stops:
            handle = self._stops.popleft()
            if handle in self._runs:
                self._backend.stop(handle, why="interrupt", force=True)
        while self._asked:
            run = self._asked.popleft()
            assert run.request is not None
            if self._is_closed:
                self._fail(run, ShuttingDown())
                continue
            try:
                self._backend.launch(run.request)
            except Exception as error:  # noqa: BLE001 - whatever it is, somebody waits for an answer
                self._fail(run, error)

    def observed(self, handle: Handle, observation: Observation) -> bool:
        """Take note of what the backend has seen; whether that was of a side run alone."""
        if isinstance(observation, Vacated):
            self._vacated(handle)
            return False  # cores of the job may have been taken for it
        run = self._runs.get(handle)
        if run is None:
            return False
        match observation:
            case Running():
                pass
            case NotStarted():
                self._fail(run, BackendUnavailable("The engine could not be started just now: try again."))
            case Ended() | Lost():
                if isinstance(observation, Ended) and observation.record.survivors:
                    self._survivors.add(handle)
                self._forget(run)
                with suppress(InvalidStateError):
                    run.end.set_result(observation)
        return True

    def _vacated(self, handle: Handle) -> None:
        if handle in self._survivors:
            self._clear(handle)
            self._survivors.discard(handle)

    def _fail(self, run: _Run, error: Exception) -> None:
        self._forget(run)
        with suppress(InvalidStateError):
            run.end.set_exception(error)

    def _forget(self, run: _Run) -> None:
        """It has ended, or never began. The files are the caller's to remove, if somebody waits for it."""
        nobody_waits = run.request is None or run.end.cancelled()
        if nobody_waits and run.handle not in self._survivors:
            self._clear(run.handle)
        with self._changed:
            del self._runs[run.handle]
            self._changed.notify_all()

    def _clear(self, handle: Handle) -> None:
        """Remove the files of a run that nobody waits for: a large tree must not hold up the jobs."""
        self._leaving.add(handle)
        threading.Thread(target=self._clear_now, args=(handle,), name="side run's files", daemon=True).start()

    def _clear_now(self, handle: Handle) -> None:
        self._files.discard(handle)
        with self._changed:
            self._leaving.discard(handle)
            self._release(handle.job_id)

    def _release(self, job_id: str) -> None:
        """Unless something in its folder goes on. With the condition's lock."""
        there = (*self._runs, *self._survivors, *self._leaving)
        if job_id not in self._holders and all(handle.job_id != job_id for handle in there):
            self._held.release(job_id)

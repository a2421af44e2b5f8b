"""Runs attempts on this machine, each under a shim of its own."""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import threading
import time
from typing import TYPE_CHECKING

import structlog

from runner.attempt_files import AttemptFiles, ExitRecord, InvalidRecord, lock_holder, segment_bytes
from runner.backends import lost_attempts
from runner.backends.launch_files import withdraw, write_request
from runner.backends.launcher_choice import LauncherChoice
from runner.backends.launches import Begun, BegunUnseen, Launches, NotBegun
from runner.backends.survivor_watch import SurvivorWatch
from runner.histograms import Histogram
from runner.isolation.confinement import Measures
from runner.ports import Ended, Handle, Lost, NotStarted, Observation, Running, Vacated

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.monitor import Monitor
    from runner.ports import LaunchRequest, StopReason, WarmSpec

_log = structlog.get_logger(__name__)

_LOOK_AGAIN_S = 1.0


class LocalBackend:
    """The filesystem is the protocol: see runner/attempt_files.py.

    `warm` tells which interpreter can run the engine without a new process image, and is asked again
    before each launch, so that an engine installed or replaced meanwhile is noticed. None means that
    engines are executed.
    """

    def __init__(
        self,
        *,
        data_dir: str,
        python: str,
        warm: Callable[[], WarmSpec | None],
        log_limit_bytes: int,
        stop_grace_s: float,
        open_files: int,
        measures: Callable[[], Measures] = Measures,
        max_processes: int | None = None,
        monitor: Monitor | None = None,
        nudge_every_s: float = 10.0,
        launcher_within_s: float = 10.0,
        launch_latency: Histogram | None = None,
    ) -> None:
        """`nudge_every_s`: how soon a shim that was stopped, by its own job or by mistake, is made to go on.

        `measures` tells what keeps jobs apart, and is asked again before each launch as `warm` is.
        `monitor` does what needs root, where the service is not root and jobs have users of their own.
        `launcher_within_s`: see `Launches`.
        """
        self._data_dir = data_dir
        self._log_segment_bytes = segment_bytes(log_limit_bytes)
        self._stop_grace_s = stop_grace_s
        self._max_processes = max_processes
        self._monitor = monitor
        self._nudge_every_s = nudge_every_s
        self._choice = LauncherChoice(
            python=python, warm=warm, open_files=open_files, measures=measures, monitor=monitor
        )
        self._epoll = select.epoll()
        self._launches = Launches(
            self._choice,
            self._epoll,
            launcher_within_s=launcher_within_s,
            latency=launch_latency or Histogram(),
            has_begun=lambda handle: not isinstance(self.observe(handle), NotStarted),
        )
        self._closing = threading.Lock()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake_fd, select.EPOLLIN)
        self._pidfds: dict[Handle, int] = {}
        self._pids: dict[Handle, int] = {}
        self._handles: dict[int, Handle] = {}  # by pidfd
        self._stops: dict[Handle, tuple[StopReason, bool]] = {}  # not yet ended; why, and whether forced
        self._unwatched: set[Handle] = set()  # runs, but the kernel would not name its process
        self._found: list[tuple[Handle, Observation]] = []
        self._survivors = SurvivorWatch(data_dir, self._epoll)
        self._nudge_at = 0.0

    # ------------------------------------------------------------ launching

    def start(self) -> None:
        self._choice.look()
        if self._monitor is None:
            lost_attempts.end_leftovers(self._data_dir, self._choice.measures)
        self._launches.new_launcher()

    def launch(self, request: LaunchRequest) -> None:
        files = self._files(request.handle)
        write_request(
            files,
            request,
            stop_grace_s=self._stop_grace_s,
            log_segment_bytes=self._log_segment_bytes,
            max_processes=self._max_processes,
        )
        self._launches.request(request.handle, files.directory)

    # ------------------------------------------------------------ observing

    def observe(self, handle: Handle) -> Observation:
        """An attempt whose files cannot be looked at just now counts as running: `wait` looks again."""
        try:
            return self._observe(handle)
        except OSError as error:
            if handle not in self._unwatched:  # else it was told, a second ago
                _log.warning("attempt.unreadable", job_id=handle.job_id, error=error.strerror)
            self._unwatched.add(handle)
            return Running()

    def _observe(self, handle: Handle) -> Observation:
        files = self._files(handle)
        while True:
            pid = lock_holder(files.lock)
            if pid is not None:
                if self._watch(handle, files, pid):
                    return Running()
                continue
            if not os.path.exists(files.started) and not os.path.exists(files.exit):
                if lost_attempts.were_removed(files):
                    return self._lost(handle, "its files were removed while it ran")
                return NotStarted()
            # Started: the shim held the lock from before that mark until after its record. Only an
            # answer given after the mark was seen decides.
            if lock_holder(files.lock) is None:
                return self._result(handle, files)

    def _watch(self, handle: Handle, files: AttemptFiles, pid: int) -> bool:
        """Get a pidfd of the lock's holder; false when the lock changed hands meanwhile: look again."""
        if handle in self._pidfds:
            self._unwatched.discard(handle)
            return True
        if pid <= 0:  # held from where the kernel cannot name it to us, another pid namespace
            self._unwatched.add(handle)
            return True
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        if lock_holder(files.lock) != pid:
            os.close(pidfd)
            return False
        self._keep(handle, pid, pidfd)
        return True

    def _keep(self, handle: Handle, pid: int, pidfd: int) -> None:
        self._unwatched.discard(handle)
        self._pidfds[handle] = pidfd
        self._pids[handle] = pid
        self._handles[pidfd] = handle
        self._epoll.register(pidfd, select.EPOLLIN)
        if handle in self._stops:  # kept: it may prove to be a shim that found the attempt taken
            self._signal(handle, *self._stops[handle])

    def _result(self, handle: Handle, files: AttemptFiles) -> Ended | Lost:
        self._stops.pop(handle, None)
        try:
            record = ExitRecord.load(lost_attempts.read_beginning(files, files.exit))
            if record.survivors and not self._survivors.add(handle):
                self._found.append((handle, Vacated()))
            return Ended(record)
        except FileNotFoundError:
            detail = "its supervising process ended without a record"
            detail += lost_attempts.last_words(files)
        except InvalidRecord as error:
            detail = str(error)
            _log.error("attempt.record_damaged", job_id=handle.job_id, attempt=handle.attempt, detail=detail)
            with contextlib.suppress(OSError):
                os.rename(files.exit, files.exit + ".damaged")
        except OSError as error:
            detail = f"exit.json cannot be read: {error.strerror}"
        return self._lost(handle, detail)

    def survivors(self) -> list[Handle]:
        return self._survivors.find()

    def _lost(self, handle: Handle, detail: str) -> Lost:
        self._stops.pop(handle, None)
        return Lost(detail + lost_attempts.end(handle, self._choice.measures, self._monitor))

    # ------------------------------------------------------------ stopping

    def stop(self, handle: Handle, *, why: StopReason, force: bool = False) -> None:
        first, forced = self._stops.get(handle, (why, False))
        self._stops[handle] = (first, forced or force)
        if handle in self._pidfds:
            self._signal(handle, *self._stops[handle])
        elif self._launches.still_waits(self._files(handle).directory):
            self._withdraw(handle, why)

    def _withdraw(self, handle: Handle, why: StopReason) -> None:
        """Stop an attempt that waits for a launcher: the start mark, once made, keeps every shim out."""
        files = self._files(handle)
        try:
            never = withdraw(files, why)
        except OSError:
            return  # it runs already, or the stop is sent when it does
        self._launches.withdraw(files.directory)
        del self._stops[handle]
        self._found.append((handle, Ended(never)))

    def _signal(self, handle: Handle, why: StopReason, forced: bool) -> None:  # noqa: FBT001 - as kept
        numbers = [signal.SIGTERM if why == "cancel" else signal.SIGUSR2]
        if forced:
            numbers.append(signal.SIGUSR1)
        with contextlib.suppress(ProcessLookupError):
            # A job may have stopped its own shim.
            for number in (*numbers, signal.SIGCONT):
                signal.pidfd_send_signal(self._pidfds[handle], number)

    def _nudge(self) -> None:
        """Let every shim go on that something has stopped: it keeps a deadline and a pipe that fills up.

        One that was not stopped does not notice: signal(7). One without the lock stays for survivors.
        """
        for pidfd, handle in list(self._handles.items()):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGCONT)
            with contextlib.suppress(OSError):
                files = self._files(handle)
                if os.path.exists(files.exit) and lock_holder(files.lock) is None:
                    self._exited(pidfd)

    # ------------------------------------------------------------ waiting

    def wait(self, timeout_s: float | None) -> list[tuple[Handle, Observation]]:
        for fd, _ in self._epoll.poll(self._timeout_s(timeout_s), maxevents=256):
            if fd == self._wake_fd:
                os.eventfd_read(fd)
            elif fd in self._handles:
                self._exited(fd)
            elif (handle := self._survivors.ended(fd)) is not None:
                self._found.append((handle, Vacated()))
            elif self._launches.is_launcher(fd):
                self._hear_launcher()
        for handle in list(self._unwatched):
            self._look_again(handle)
        now = time.monotonic()
        if now >= self._nudge_at:
            self._nudge_at = now + (min(self._nudge_every_s, 1.0) if self._stops else self._nudge_every_s)
            self._nudge()
        self._launches.end_overdue(now)
        found, self._found = self._found, []
        return found

    def _timeout_s(self, longest_s: float | None) -> float:
        """How long to wait; -1 for as long as it takes."""
        if self._found:
            return 0
        limits = [] if longest_s is None else [longest_s]
        if self._unwatched:
            limits.append(_LOOK_AGAIN_S)
        now = time.monotonic()
        if self._handles:
            limits.append(max(0.0, self._nudge_at - now))
        if (overdue_at := self._launches.overdue_at()) != math.inf:
            limits.append(max(0.0, overdue_at - now))
        return min(limits, default=-1)

    def _exited(self, pidfd: int) -> None:
        handle = self._handles.pop(pidfd)
        del self._pidfds[handle], self._pids[handle]
        self._epoll.unregister(pidfd)
        os.close(pidfd)
        self._look_again(handle)

    def _look_again(self, handle: Handle) -> None:
        """Report what became of it; a shim that found the attempt taken may have left another one running."""
        observed = self.observe(handle)
        match observed:
            case Running():
                pass
            case NotStarted() if not os.path.exists(self._files(handle).spec):
                # Written before any launch: its files were removed under it, and it may have run.
                self._found.append((handle, self._lost(handle, "its files were removed while it ran")))
                self._unwatched.discard(handle)
            case NotStarted():
                self._stops.pop(handle, None)
                self._unwatched.discard(handle)
                self._found.append((handle, observed))
            case Ended() | Lost() | Vacated():
                self._unwatched.discard(handle)
                self._found.append((handle, observed))

    def _hear_launcher(self) -> None:
        for heard in self._launches.hear():
            match heard:
                case Begun(handle, pid, pidfd) if handle in self._pidfds:
                    os.close(pidfd)
                case Begun(handle, pid, pidfd):
                    self._keep(handle, pid, pidfd)
                case BegunUnseen(handle):
                    self._unwatched.add(handle)
                case NotBegun(handle):
                    self._stops.pop(handle, None)
                    self._found.append((handle, NotStarted()))

    # ------------------------------------------------------------ the rest

    def wake(self) -> None:
        with self._closing:
            if self._wake_fd >= 0:
                os.eventfd_write(self._wake_fd, 1)

    def top_pid(self, handle: Handle) -> int | None:
        return self._pids.get(handle)

    def close(self) -> None:
        self._launches.close()
        self._survivors.close()
        for pidfd in self._handles:
            os.close(pidfd)
        self._handles.clear()
        self._pidfds.clear()
        self._pids.clear()
        self._epoll.close()
        with self._closing:
            os.close(self._wake_fd)
            self._wake_fd = -1

    def _files(self, handle: Handle) -> AttemptFiles:
        return AttemptFiles.of(self._data_dir, handle.job_id, handle.attempt)

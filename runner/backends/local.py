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

from runner.attempt_files import (
    AttemptFiles,
    ExitRecord,
    InvalidRecord,
    lock_holder,
    segment_bytes,
)
from runner.backends.launch_files import write, write_request
from runner.backends.launcher_process import Forked, Gone, LauncherProcess, Ready, Refused, Unseen
from runner.errors import BackendUnavailable
from runner.isolation.processes import kill_marked
from runner.ports import Ended, Handle, Lost, NotStarted, Observation, Running, WarmSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.ports import LaunchRequest, StopReason

_log = structlog.get_logger(__name__)

_RESTARTS_IN_A_ROW = 3
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
        nudge_every_s: float = 10.0,
        launcher_within_s: float = 10.0,
    ) -> None:
        """`nudge_every_s`: how soon a shim that was stopped, by its own job or by mistake, is made to go on.

        `launcher_within_s`: how long a launcher may be silent when asked before it is replaced.
        """
        self._data_dir = data_dir
        self._warm = warm
        self._cold = WarmSpec(python, isolated=True, packages={"runner": _runner_folder()}, preload=None)
        self._log_segment_bytes = segment_bytes(log_limit_bytes)
        self._stop_grace_s = stop_grace_s
        self._open_files = open_files
        self._nudge_every_s = nudge_every_s
        self._launcher_within_s = launcher_within_s
        self._launcher: LauncherProcess | None = None
        self._failures = 0
        self._unusable: WarmSpec | None = None  # its interpreter or imports end before they are ready
        self._epoll = select.epoll()
        self._closing = threading.Lock()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake_fd, select.EPOLLIN)
        self._pidfds: dict[Handle, int] = {}
        self._pids: dict[Handle, int] = {}
        self._handles: dict[int, Handle] = {}  # by pidfd
        self._launching: dict[str, Handle] = {}  # by attempt directory
        self._stops: dict[Handle, tuple[StopReason, bool]] = {}  # not yet ended; why, and whether forced
        self._unwatched: set[Handle] = set()  # runs, but the kernel would not name its process
        self._found: list[tuple[Handle, Observation]] = []
        self._nudge_at = 0.0

    # ------------------------------------------------------------ launching

    def start(self) -> None:
        self._restart_launcher()

    def launch(self, request: LaunchRequest) -> None:
        files = self._files(request.handle)
        write_request(
            files, request, stop_grace_s=self._stop_grace_s, log_segment_bytes=self._log_segment_bytes
        )
        self._request_shim(request.handle, files)

    def _request_shim(self, handle: Handle, files: AttemptFiles) -> None:
        launcher = self._current_launcher()
        self._launching[files.directory] = handle
        launcher.request(files.directory)

    def _current_launcher(self) -> LauncherProcess:
        if self._launcher is None or self._wanted() != self._launcher.spec:
            self._restart_launcher()
        assert self._launcher is not None
        return self._launcher

    def _wanted(self) -> WarmSpec:
        """What the launcher should be; a warm one that could not be had is not tried again unchanged."""
        spec = self._warm()
        return self._cold if spec is None or spec == self._unusable else spec

    def _restart_launcher(self) -> None:
        """Raises BackendUnavailable. Requests the old one has not answered are asked again of the new one."""
        if self._launcher is not None:
            self._epoll.unregister(self._launcher.fileno())
            self._launcher.close()
            self._launcher = None
        spec = self._wanted()
        if self._failures >= _RESTARTS_IN_A_ROW:
            self._failures = 0
            if spec is self._cold:
                raise BackendUnavailable("The launcher ended three times in a row before it was ready.")
            _log.warning("launcher.cold", detail="It ended three times in a row while importing the engine.")
            self._unusable, spec = spec, self._cold
        if spec is not self._cold:
            try:
                self._launcher = LauncherProcess(spec, warm=True, open_files=self._open_files)
            except BackendUnavailable as error:
                _log.warning("launcher.cold", detail=str(error))
                self._unusable = spec
        if self._launcher is None:
            self._launcher = LauncherProcess(self._cold, warm=False, open_files=self._open_files)
        self._epoll.register(self._launcher.fileno(), select.EPOLLIN)
        for directory in self._launching:
            self._launcher.request(directory)

    # ------------------------------------------------------------ observing

    def observe(self, handle: Handle) -> Observation:
        """An attempt whose files cannot be looked at just now counts as running: `wait` looks again."""
        try:
            return self._observe(handle)
        except OSError as error:
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
                if _were_removed(files):
                    return self._lost(handle, "its files were removed while it ran")
                return NotStarted()
            # Started: the shim held the lock from before that mark until after its record. Only an
            # answer given after the mark was seen decides.
            if lock_holder(files.lock) is None:
                return self._result(handle, files)

    def _watch(self, handle: Handle, files: AttemptFiles, pid: int) -> bool:
        """Get a pidfd of the lock's holder; false when the lock changed hands meanwhile: look again."""
        if handle in self._pidfds:
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
            return Ended(ExitRecord.load(_read(files.exit)))
        except FileNotFoundError:
            detail = "its supervising process ended without a record"
            detail += _last_words(files)
        except InvalidRecord as error:
            detail = str(error)
            _log.error("attempt.record_damaged", job_id=handle.job_id, attempt=handle.attempt, detail=detail)
            with contextlib.suppress(OSError):
                os.rename(files.exit, files.exit + ".damaged")
        except OSError as error:
            detail = f"exit.json cannot be read: {error.strerror}"
        return self._lost(handle, detail)

    def _lost(self, handle: Handle, detail: str) -> Lost:
        self._stops.pop(handle, None)
        # Nobody is left to end its processes.
        swept = kill_marked(
            f"SNAKELINE_JOB_ID={handle.job_id}".encode(), f" job {handle.job_id}/{handle.attempt}".encode()
        )
        if swept:
            detail += f"; {swept} of its processes were still running and were killed"
        return Lost(detail)

    # ------------------------------------------------------------ stopping

    def stop(self, handle: Handle, *, why: StopReason, force: bool = False) -> None:
        first, forced = self._stops.get(handle, (why, False))
        self._stops[handle] = (first, forced or force)
        if handle in self._pidfds:
            self._signal(handle, *self._stops[handle])
        elif self._launcher is not None and not self._launcher.is_ready:
            self._withdraw(self._launcher, handle, why)

    def _withdraw(self, launcher: LauncherProcess, handle: Handle, why: StopReason) -> None:
        """Stop an attempt that waits for a launcher: the start mark, once made, keeps every shim out."""
        files = self._files(handle)
        if files.directory not in self._launching:
            return
        now = time.time()
        never = ExitRecord(None, None, None, why, now, now, 0, 0, 0, 0, 0)
        prepared = files.exit + ".withdrawn"
        try:
            write(prepared, never.dump())
            os.close(os.open(files.started, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            os.rename(prepared, files.exit)
        except OSError:
            return  # it runs already, or the stop is sent when it does
        launcher.forget(files.directory)
        del self._launching[files.directory], self._stops[handle]
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

        One that was not stopped does not notice: signal(7).
        """
        for pidfd in self._handles:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGCONT)

    # ------------------------------------------------------------ waiting

    def wait(self, timeout_s: float | None) -> list[tuple[Handle, Observation]]:
        for fd, _ in self._epoll.poll(self._timeout_s(timeout_s), maxevents=256):
            if fd == self._wake_fd:
                os.eventfd_read(fd)
            elif fd in self._handles:
                self._exited(fd)
            elif self._launcher is not None and fd == self._launcher.fileno():
                self._hear_launcher(self._launcher)
        for handle in list(self._unwatched):
            self._look_again(handle)
        now = time.monotonic()
        if now >= self._nudge_at:
            self._nudge_at = now + self._nudge_every_s
            self._nudge()
        if self._launcher is not None and self._launcher.overdue_at(self._launcher_within_s) <= now:
            _log.warning("launcher.hangs", pid=self._launcher.pid)
            self._launcher.kill()  # its end is heard of as any other
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
        if (
            self._launcher is not None
            and (overdue_at := self._launcher.overdue_at(self._launcher_within_s)) != math.inf
        ):
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
            case Ended() | Lost():
                self._unwatched.discard(handle)
                self._found.append((handle, observed))

    def _hear_launcher(self, launcher: LauncherProcess) -> None:
        for answer in launcher.receive():
            match answer:
                case Ready(obstacle):
                    self._failures = 0
                    if obstacle is not None:
                        _log.warning(
                            "launcher.engine_runs_cold", python=launcher.spec.python, reason=obstacle
                        )
                case Forked(directory, pid, pidfd):
                    handle = self._launching.pop(directory, None)
                    if handle is None or handle in self._pidfds:
                        os.close(pidfd)
                    else:
                        self._keep(handle, pid, pidfd)
                case Unseen(directory):
                    handle = self._launching.pop(directory, None)
                    if handle is not None:
                        self._unwatched.add(handle)
                case Refused(directory, detail):
                    handle = self._launching.pop(directory, None)
                    _log.warning("launcher.refused", directory=directory, detail=detail)
                    if handle is not None:
                        self._stops.pop(handle, None)
                        self._found.append((handle, NotStarted()))
                case Gone(unanswered):
                    self._replace_launcher(launcher, unanswered)

    def _replace_launcher(self, launcher: LauncherProcess, unanswered: tuple[str, ...]) -> None:
        """It may have forked a shim without living to tell: look at each attempt before asking again."""
        _log.warning("launcher.ended", pid=launcher.pid, unanswered=len(unanswered))
        self._failures += 0 if launcher.is_ready else 1
        for directory in unanswered:
            handle = self._launching.get(directory)
            if handle is not None and not isinstance(self.observe(handle), NotStarted):
                del self._launching[directory]
                self._look_again(handle)
        try:
            self._restart_launcher()
        except BackendUnavailable as error:
            _log.error("launcher.unavailable", detail=str(error))
            self._found.extend((handle, NotStarted()) for handle in self._launching.values())
            self._launching.clear()

    # ------------------------------------------------------------ the rest

    def wake(self) -> None:
        with self._closing:
            if self._wake_fd >= 0:
                os.eventfd_write(self._wake_fd, 1)

    def top_pid(self, handle: Handle) -> int | None:
        return self._pids.get(handle)

    def close(self) -> None:
        if self._launcher is not None:
            self._launcher.close()
            self._launcher = None
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


def _were_removed(files: AttemptFiles) -> bool:
    """Whether the attempt's files were there once: what is made after them is, and they are not.

    A job can do that to itself, and must not be started again for it. One that removes the folder of a
    later attempt alone leaves nothing to tell it from an attempt whose files were never written.
    """
    before = AttemptFiles(files.job_dir, files.attempt - 1)
    return (
        not os.path.exists(files.spec)
        and os.path.exists(files.home)
        and (files.attempt == 1 or not os.path.exists(before.directory))
    )


def _last_words(files: AttemptFiles) -> str:
    """What the shim said before it died of itself; a full disk may have cut it short or left nothing."""
    try:
        lines = _read(f"{files.directory}/crash.txt").decode(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return f": {lines[-1]}" if lines else ""


def _runner_folder() -> str:
    return os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def _read(path: str) -> bytes:
    """The beginning of a file that a job may have replaced: a FIFO in its place is empty, not waited for."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(fd, "rb", buffering=0) as file:
        return file.read(65536) or b""

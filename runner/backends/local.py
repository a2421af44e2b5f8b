"""Runs attempts on this machine, each under a shim of its own."""

from __future__ import annotations

import contextlib
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
    ShimSpec,
    lock_holder,
    segment_bytes,
)
from runner.backends.launcher_process import Forked, Gone, LauncherProcess, Ready, Refused
from runner.errors import BackendUnavailable
from runner.isolation.processes import kill_marked
from runner.ports import Ended, Handle, Lost, NotStarted, Observation, Running, WarmSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.ports import LaunchRequest

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
    ) -> None:
        self._data_dir = data_dir
        self._warm = warm
        self._cold = WarmSpec(python, isolated=True, packages={"runner": _runner_folder()}, preload=None)
        self._log_segment_bytes = segment_bytes(log_limit_bytes)
        self._stop_grace_s = stop_grace_s
        self._open_files = open_files
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
        self._stops: dict[Handle, bool] = {}  # asked for and not yet ended; value: forced
        self._unwatched: set[Handle] = set()  # runs, but the kernel would not name its process
        self._found: list[tuple[Handle, Observation]] = []

    # ------------------------------------------------------------ launching

    def start(self) -> None:
        self._restart_launcher()

    def launch(self, request: LaunchRequest) -> None:
        files = self._files(request.handle)
        self._write_files(files, request)
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

    def _write_files(self, files: AttemptFiles, request: LaunchRequest) -> None:
        """Raises OSError. Not synced: after a power cut an attempt that was not started is written again."""
        command = request.command
        os.makedirs(files.directory, mode=0o700, exist_ok=True)
        for path, content in command.files.items():
            _write(path, content)
        spec = ShimSpec(
            job_id=request.handle.job_id,
            attempt=request.handle.attempt,
            argv=list(command.argv),
            environment=dict(command.environment),
            work_dir=files.work,
            prepare=[list(argv) for argv in command.prepare],
            source=os.fspath(request.source),
            warm_entry=command.warm_entry,
            timeout_s=request.timeout_s,
            stop_grace_s=self._stop_grace_s,
            log_segment_bytes=self._log_segment_bytes,
            title=command.title,
        )
        _write(files.spec, spec.dump())

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
            self._signal(handle, force=self._stops[handle])

    def _result(self, handle: Handle, files: AttemptFiles) -> Ended | Lost:
        self._stops.pop(handle, None)
        try:
            return Ended(ExitRecord.load(_read(files.exit)))
        except FileNotFoundError:
            detail = "its supervising process ended without a record"
            detail += _last_words(files)
        except InvalidRecord as error:
            detail = str(error)
        except OSError as error:
            detail = f"exit.json cannot be read: {error.strerror}"
        return self._lost(handle, detail)

    def _lost(self, handle: Handle, detail: str) -> Lost:
        self._stops.pop(handle, None)
        # Nobody is left to end its processes.
        swept = kill_marked(f"SNAKELINE_JOB_ID={handle.job_id}".encode())
        if swept:
            detail += f"; {swept} of its processes were still running and were killed"
        return Lost(detail)

    # ------------------------------------------------------------ stopping

    def stop(self, handle: Handle, *, force: bool) -> None:
        self._stops[handle] = force or self._stops.get(handle, False)
        if handle in self._pidfds:
            self._signal(handle, force=force)
        elif self._launcher is not None and not self._launcher.is_ready:
            self._withdraw(self._launcher, handle)

    def _withdraw(self, launcher: LauncherProcess, handle: Handle) -> None:
        """Stop an attempt that waits for a launcher: the start mark, once made, keeps every shim out."""
        files = self._files(handle)
        if files.directory not in self._launching:
            return
        try:
            os.close(os.open(files.started, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except OSError:
            return  # it runs already, or the stop is sent when it does
        launcher.forget(files.directory)
        del self._launching[files.directory], self._stops[handle]
        now = time.time()
        never = ExitRecord(None, None, None, "cancel", now, now, 0, 0, 0, 0, 0)
        self._found.append((handle, Ended(never)))

    def _signal(self, handle: Handle, *, force: bool) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfds[handle], signal.SIGUSR1 if force else signal.SIGTERM)
            # A job may have stopped its own shim.
            signal.pidfd_send_signal(self._pidfds[handle], signal.SIGCONT)

    # ------------------------------------------------------------ waiting

    def wait(self, timeout_s: float | None) -> list[tuple[Handle, Observation]]:
        if self._unwatched:
            timeout_s = min(timeout_s, _LOOK_AGAIN_S) if timeout_s is not None else _LOOK_AGAIN_S
        if self._found:
            timeout_s = 0
        for fd, _ in self._epoll.poll(timeout_s if timeout_s is not None else -1, maxevents=256):
            if fd == self._wake_fd:
                os.eventfd_read(fd)
            elif fd in self._handles:
                self._exited(fd)
            elif self._launcher is not None and fd == self._launcher.fileno():
                self._hear_launcher(self._launcher)
        for handle in list(self._unwatched):
            self._look_again(handle)
        found, self._found = self._found, []
        return found

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
                case Refused(directory, detail):
                    handle = self._launching.pop(directory, None)
                    _log.warning("launcher.refused", directory=directory, detail=detail)
                    if handle is not None:
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


def _write(path: str, content: bytes) -> None:
    """Raises OSError, also where an earlier attempt left a FIFO or a link."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    fd = os.open(path, flags, 0o600)
    with open(fd, "wb") as file:
        file.write(content)

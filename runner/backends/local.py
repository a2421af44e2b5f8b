"""Runs attempts on this machine, each under a shim of its own."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
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
        self._epoll = select.epoll()
        self._closing = threading.Lock()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake_fd, select.EPOLLIN)
        self._pidfds: dict[Handle, int] = {}
        self._pids: dict[Handle, int] = {}
        self._handles: dict[int, Handle] = {}  # by pidfd
        self._launching: dict[str, Handle] = {}  # by attempt directory
        self._stops: dict[Handle, bool] = {}  # asked for before the shim was known; value: forced
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
        if self._launcher is None or (self._warm() or self._cold) != self._launcher.spec:
            self._restart_launcher()
        assert self._launcher is not None
        return self._launcher

    def _restart_launcher(self) -> None:
        """Raises BackendUnavailable. Requests the old one has not answered are asked again of the new one."""
        if self._launcher is not None:
            self._epoll.unregister(self._launcher.fileno())
            self._launcher.close()
            self._launcher = None
        if self._failures >= _RESTARTS_IN_A_ROW:
            self._failures = 0
            raise BackendUnavailable("The launcher ended three times in a row before it was ready.")
        spec = self._warm()
        if spec is not None:
            try:
                self._launcher = LauncherProcess(spec, warm=True, open_files=self._open_files)
            except BackendUnavailable as error:
                _log.warning("launcher.cold", detail=str(error))
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
        if handle in self._stops:
            self._signal(handle, force=self._stops.pop(handle))

    def _result(self, handle: Handle, files: AttemptFiles) -> Ended | Lost:
        self._stops.pop(handle, None)
        try:
            with open(files.exit, "rb") as file:
                return Ended(ExitRecord.load(file.read(65536)))
        except FileNotFoundError:
            detail = "its supervising process ended without a record"
            with contextlib.suppress(OSError), open(f"{files.directory}/crash.txt", encoding="utf-8") as file:
                detail += f": {file.read(65536).strip().splitlines()[-1]}"
        except (InvalidRecord, OSError) as error:
            detail = str(error)
        # Nobody is left to end its processes.
        swept = kill_marked(f"SNAKELINE_JOB_ID={handle.job_id}".encode())
        if swept:
            detail += f"; {swept} of its processes were still running and were killed"
        return Lost(detail)

    # ------------------------------------------------------------ stopping

    def stop(self, handle: Handle, *, force: bool) -> None:
        if handle in self._pidfds:
            self._signal(handle, force=force)
        else:
            self._stops[handle] = force or self._stops.get(handle, False)

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
            self._look_again_soon(handle)
        found, self._found = self._found, []
        return found

    def _exited(self, pidfd: int) -> None:
        handle = self._handles.pop(pidfd)
        del self._pidfds[handle], self._pids[handle]
        self._epoll.unregister(pidfd)
        os.close(pidfd)
        self._look_again_soon(handle)

    def _look_again_soon(self, handle: Handle) -> None:
        """Look now, or once more in a second when the files cannot be looked at: an end is never missed."""
        try:
            self._look_again(handle)
        except OSError as error:
            _log.warning("attempt.unreadable", job_id=handle.job_id, error=error.strerror)
            self._unwatched.add(handle)

    def _look_again(self, handle: Handle) -> None:
        """Report what became of it; a shim that found the attempt taken may have left another one running."""
        observed = self.observe(handle)
        match observed:
            case Running():
                pass
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
            handle = self._launching[directory]
            if not isinstance(self.observe(handle), NotStarted):
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


def _runner_folder() -> str:
    return os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def _write(path: str, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(fd, "wb") as file:
        file.write(content)

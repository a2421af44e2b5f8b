"""The service's side of a launcher: starts it, asks it for shims, hears of their pids."""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import subprocess
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from runner.errors import BackendUnavailable

if TYPE_CHECKING:
    from runner.isolation.confinement import Measures
    from runner.ports import WarmSpec

_PROGRAM = os.path.join(os.path.dirname(__file__), "launcher.py")
_ANSWER_BYTES = 16384
_END_WITHIN_S = 5.0
_READY_WITHIN_S = 300.0  # importing an engine from a slow file system may take long
_IN_FLIGHT = 32
"""How many launches may wait in the socket: enough to keep the launcher busy, few enough to ask again."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The launcher takes requests; `obstacle` says why it cannot run the engine warm, if it cannot."""

    obstacle: str | None


@dataclass(frozen=True, slots=True)
class Forked:
    """A shim runs for this attempt directory; the pidfd is the receiver's to close."""

    directory: str
    pid: int
    pidfd: int


@dataclass(frozen=True, slots=True)
class Refused:
    """No shim could be made for this attempt directory now."""

    directory: str
    detail: str


@dataclass(frozen=True, slots=True)
class Unseen:
    """A shim runs for this attempt directory, but there was no descriptor left to receive its pidfd."""

    directory: str


@dataclass(frozen=True, slots=True)
class Gone:
    """The launcher has ended; `unanswered` are the directories it was asked for and never answered."""

    unanswered: tuple[str, ...]


Answer = Ready | Forked | Unseen | Refused | Gone


class StartedLauncher(Protocol):
    """A launcher's process, whoever has started it, and our end of its socket."""

    @property
    def pid(self) -> int: ...

    @property
    def socket(self) -> socket.socket: ...

    def kill(self) -> None: ...

    def wait(self, timeout_s: float) -> bool:
        """Whether it has ended by then."""


class OwnLauncher:
    """A launcher that is our child."""

    def __init__(self, spec: WarmSpec, *, warm: bool, open_files: int, measures: Measures) -> None:
        """Start it. Raises BackendUnavailable.

        `warm` says whether engines may run in its forks or must be executed; `open_files` is how many
        files its forks may open; `measures` is what keeps jobs apart.
        """
        try:
            self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise BackendUnavailable(f"The launcher cannot be started: {error.strerror}.") from error
        setup = {
            "packages": dict(spec.packages),
            "preload": spec.preload,
            "warm": warm,
            "open_files": open_files,
            "measures": measures.dump(),
        }
        flags = ["-I", "-S"] if spec.isolated else ["-I"]
        # The padding is room for the titles of the processes forked from it.
        argv = [spec.python, *flags, _PROGRAM, json.dumps(setup), " " * 200]
        try:
            self._process = subprocess.Popen(
                argv,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={"PATH": os.defpath, "LC_ALL": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1"},
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            self.socket.close()
            raise BackendUnavailable(f"{spec.python} could not be started: {error.strerror}.") from error
        finally:
            theirs.close()

    @property
    def pid(self) -> int:
        return int(self._process.pid)

    def kill(self) -> None:
        self._process.kill()

    def wait(self, timeout_s: float) -> bool:
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True


class LauncherProcess:
    """One launcher. Not thread-safe: it belongs to the supervisor's thread."""

    def __init__(self, started: StartedLauncher, spec: WarmSpec) -> None:
        """It answers `Ready` once it may be used."""
        self.spec = spec
        self._process = started
        self._socket = started.socket
        self._socket.setblocking(False)
        self._waiting: deque[str] = deque()
        self._asked: dict[str, None] = {}  # in order, and each once
        self._quiet_since = time.monotonic()
        self.is_ready = False

    @property
    def pid(self) -> int:
        return self._process.pid

    def fileno(self) -> int:
        return self._socket.fileno()

    def request(self, directory: str) -> None:
        """Ask for a shim for this attempt directory; the answer comes from `receive`."""
        self._waiting.append(directory)
        self._send()

    def overdue_at(self, answer_within_s: float) -> float:
        """When its silence means that it hangs, on the monotonic clock; infinite while nothing is asked."""
        if not self.is_ready:
            return self._quiet_since + _READY_WITHIN_S
        return self._quiet_since + answer_within_s if self._asked else math.inf

    def kill(self) -> None:
        """End it at once; `receive` then tells `Gone`."""
        self._quiet_since = math.inf
        self._process.kill()

    def forget(self, directory: str) -> None:
        """Do not ask for this directory any more, if it was not asked for yet."""
        with contextlib.suppress(ValueError):
            self._waiting.remove(directory)

    def _send(self) -> None:
        while self.is_ready and self._waiting and len(self._asked) < _IN_FLIGHT:
            directory = self._waiting[0]
            try:
                self._socket.send(directory.encode())
            except (BlockingIOError, ConnectionError, BrokenPipeError):
                return  # full: the next answer makes room; gone: `receive` tells
            if not self._asked:
                self._quiet_since = time.monotonic()
            self._asked[self._waiting.popleft()] = None

    def receive(self) -> list[Answer]:
        """Every answer that has arrived, without waiting."""
        answers: list[Answer] = []
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(self._socket, _ANSWER_BYTES, 1)
            except BlockingIOError:
                break
            except ConnectionError:
                data = b""
            if not data:
                answers.append(Gone((*self._asked, *self._waiting)))
                self._asked.clear()
                self._waiting.clear()
                return answers
            self._quiet_since = time.monotonic()
            answers.append(self._understood(json.loads(data), fds))
        self._send()
        return answers

    def _understood(self, message: dict[str, object], fds: list[int]) -> Answer:
        if "ready" in message:
            self.is_ready = True
            obstacle = message["obstacle"]
            return Ready(str(obstacle) if obstacle is not None else None)
        directory = str(message["directory"])
        self._asked.pop(directory, None)
        if fds:
            os.set_inheritable(fds[0], False)
            return Forked(directory, int(str(message["pid"])), fds[0])
        if "pid" in message:
            return Unseen(directory)
        return Refused(directory, str(message.get("error")))

    def close(self) -> None:
        """Let it end; what it forked goes on."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        if not self.is_ready:  # it may import for a long time yet, and has forked nothing
            self._process.kill()
        if not self._process.wait(_END_WITHIN_S):
            self._process.kill()
            self._process.wait(_END_WITHIN_S)

"""`python -m snakeline …`, forked from a process that has imported it: a start costs a second less.

What it does from there on is the same as when it is executed; only its command line in /proc is another's.
Run as a program, this is the process that forks: `python -m tests.support.forked_service SOCKET`.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SERVE: Final = ("snakeline", "serve")
Surroundings = str
"""A module with an `enter`, which changes what its process sees, and its arguments, as a command line."""
_ROOT: Final = Path(__file__).parents[2]
_IMPORTED: Final = (
    *("snakeline.cli", "api.server", "alembic.command", "alembic.context"),
    *("runner.checkup", "snakeline.checks", "snakeline.backup", "snakeline.repair", "snakeline.workflows"),
    *("tests.support.cage", "tests.support.open_house"),
)
_REQUEST_BYTES: Final = 131_072
_STATUS_BYTES: Final = 4


class ForkingProcess:
    """Has imported the service, and forks it whenever it is asked to."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        """`environment`, besides ours: libraries that it names are in the services as well."""
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.forked_service", str(theirs.fileno())],
                cwd=_ROOT,
                env={**os.environ, **(environment or {})},  # noqa: TID251 - handed on to a child
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    def close(self) -> None:
        """Services go on; how they end is not heard of any more."""
        self.socket.close()
        self._process.wait()


class ForkedService:
    """The part of `subprocess.Popen` that tests use, of a process that is not our child."""

    def __init__(
        self,
        environment: Mapping[str, str],
        log: int,
        command: Sequence[str] = SERVE,
        *,
        errors: int | None = None,
        directory: Path | None = None,
        inside: Sequence[Surroundings] = (),
        forking: ForkingProcess | None = None,
    ) -> None:
        """Start one that writes to the descriptor `log`, and its errors to another if there is one.

        `command` is the module and its arguments; it runs in this directory, unless another is given.
        """
        asked = (forking or _shared()).socket
        request = {
            "command": command,
            "environment": dict(environment),
            "directory": os.fspath(directory or Path.cwd()),
            "inside": [*inside],
        }
        self._status, theirs = os.pipe()
        try:
            descriptors = [log, log if errors is None else errors, theirs]
            socket.send_fds(asked, [json.dumps(request).encode()], descriptors)
        finally:
            os.close(theirs)
        answer, (self._handle,), _, _ = socket.recv_fds(asked, _REQUEST_BYTES, 1)
        self.pid = int(answer)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, as `poll`. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            told = select.poll()
            told.register(self._status, select.POLLIN)
            if not told.poll(None if timeout is None else timeout * 1000):
                raise subprocess.TimeoutExpired("snakeline serve", timeout or 0)
            status = os.read(self._status, _STATUS_BYTES)
            assert status, "the process that forked it has ended"
            self.returncode = int.from_bytes(status, signed=True)
            os.close(self._status)
            os.close(self._handle)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            signal.pidfd_send_signal(self._handle, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@cache
def _shared() -> ForkingProcess:
    """The one of this process, which ends with it."""
    forking = ForkingProcess()
    atexit.register(forking.close)
    return forking


def _fork_until_closed(requests: socket.socket) -> dict[str, Any] | None:
    """Fork a child for each request, which gets it as its answer; None once the other end is closed."""
    status_pipes: dict[int, tuple[int, int]] = {}
    events = select.poll()
    events.register(requests, select.POLLIN)
    while True:
        for ready, _ in events.poll():
            if ready in status_pipes:
                events.unregister(ready)
                pid, pipe = status_pipes.pop(ready)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                os.close(ready)
                os.write(pipe, code.to_bytes(_STATUS_BYTES, signed=True))
                os.close(pipe)
                continue
            message, descriptors, _, _ = socket.recv_fds(requests, _REQUEST_BYTES, 3)
            if not message:
                return None
            output, errors, pipe = descriptors
            pid = os.fork()
            if pid == 0:
                os.dup2(output, 1)
                os.dup2(errors, 2)
                requests.detach()
                os.closerange(3, os.sysconf("SC_OPEN_MAX"))
                request: dict[str, Any] = json.loads(message)
                return request
            os.close(output)
            os.close(errors)
            handle = os.pidfd_open(pid)
            status_pipes[handle] = pid, pipe
            events.register(handle, select.POLLIN)
            socket.send_fds(requests, [str(pid).encode()], [handle])


def _compile_statements() -> None:
    """SQLAlchemy keeps what a first store has taught it; the thread of that one has ended before any fork."""
    from runner.stores.sql import SqlStore  # noqa: PLC0415 - for the process that forks alone

    with tempfile.TemporaryDirectory() as directory:
        SqlStore.open(f"sqlite:///{directory}/snakeline.db").close()
    assert threading.active_count() == 1


def _end(code: object) -> None:
    """As the interpreter ends, but for taking its modules apart: what a start would cost again."""
    if code is not None and not isinstance(code, int):
        raise SystemExit(code)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


def _main(requests: socket.socket) -> None:
    for module in _IMPORTED:
        importlib.import_module(module)
    _compile_statements()
    gc.freeze()
    request = _fork_until_closed(requests)
    if request is not None:
        os.setsid()
        os.chdir(request["directory"])
        os.environ.clear()  # noqa: TID251 - the environment it would be executed with
        os.environ.update(request["environment"])  # noqa: TID251
        for surroundings in request["inside"]:
            entered, *arguments = shlex.split(surroundings)
            importlib.import_module(entered).enter(arguments)
        module, *sys.argv[1:] = request["command"]
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            _end(end.code)


if __name__ == "__main__":
    _main(socket.socket(fileno=int(sys.argv[1])))

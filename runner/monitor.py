"""The service's side of the privileged monitor: what it asks of the one process that stays root."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import socket
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import structlog

from runner.errors import BackendUnavailable
from runner.file_listing import FolderEntry
from runner.isolation.monitor import MESSAGE_BYTES

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from runner.ports import WarmSpec

_log = structlog.get_logger(__name__)

_ANSWER_WITHIN_S = 300.0
"""Taking a large tree back from a job's user takes long; a monitor that has ended is noticed at once."""
_END_WITHIN_S = 5.0


class MonitorLost(OSError):
    """The monitor has ended or does not answer: only a restart of the service gets another."""


class Monitor:
    """Thread-safe. Made by runner/privilege_separation.py, while the service is root."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        control: socket.socket,
        files: socket.socket,
        *,
        warm: WarmSpec | None,
    ) -> None:
        """`warm` is the one kind of warm launcher that it will start."""
        self._process = process
        self._control = _Line(control)
        self._files = _Line(files)
        self._warm = warm
        self.pidfd = os.pidfd_open(process.pid)
        """Readable once the monitor has ended."""

    def is_alive(self) -> bool:
        return not _ended(self.pidfd, 0)

    def start_launcher(self, spec: WarmSpec, *, warm: bool) -> MonitoredLauncher:
        """Raises BackendUnavailable, also for a warm one that was not foreseen at the start."""
        if warm and (self._warm is None or replace(spec, signature=self._warm.signature) != self._warm):
            raise BackendUnavailable(
                "The engine is another than at the start: restart the service to run it warm."
            )
        try:
            answer, fds = self._control.ask({"do": "launcher", "warm": warm}, fds=2)
        except OSError as error:
            raise BackendUnavailable(f"The launcher cannot be started: {error.strerror or error}.") from error
        return MonitoredLauncher(self, int(answer["pid"]), socket.socket(fileno=fds[0]), fds[1])

    def end_launcher(self, pid: int) -> None:
        """SIGKILL to a launcher that was started by this monitor."""
        with contextlib.suppress(OSError):
            self._control.ask({"do": "end_launcher", "pid": pid})

    def hand_back(self, job_id: str, attempt: int) -> int:
        """End what a killed shim has left running, and take its files back; how many processes there were.

        Raises OSError when it could not be done.
        """
        answer, _ = self._control.ask({"do": "hand_back", "job": job_id, "attempt": attempt})
        return int(answer["killed"])

    def open_file(self, job_id: str, path: bytes) -> int:
        """A descriptor of a plain file below the job's working directory. Raises as `beneath.open_file`."""
        _, fds = self._files.ask({"do": "open", "job": job_id, "path": path.decode("latin-1")}, fds=1)
        return fds[0]

    def list_folder(self, job_id: str, path: bytes) -> Iterator[FolderEntry]:
        """What is in a folder below the job's working directory, b"" for that itself. Raises OSError."""
        _, fds = self._files.ask({"do": "list", "job": job_id, "path": path.decode("latin-1")}, fds=1)
        with open(fds[0], "rb") as lines:
            for line in lines:
                name, kind, size_bytes, modified_ns = json.loads(line)
                yield FolderEntry(name.encode("latin-1"), kind, size_bytes, modified_ns)

    def close(self) -> None:
        """Let it end; launchers go on until their own sockets close."""
        self._control.close()
        self._files.close()
        if not _ended(self.pidfd, _END_WITHIN_S):
            _log.warning("monitor.hangs", pid=self._process.pid)
        self._process.poll()
        os.close(self.pidfd)


class MonitoredLauncher:
    """A launcher that the monitor has started: root, so signals are the monitor's to send."""

    def __init__(self, monitor: Monitor, pid: int, control: socket.socket, pidfd: int) -> None:
        self._monitor = monitor
        self._pidfd = pidfd
        self.pid = pid
        self.socket = control

    def kill(self) -> None:
        self._monitor.end_launcher(self.pid)

    def wait(self, timeout_s: float) -> bool:
        """Whether it has ended by then; ask no more once it has."""
        if not _ended(self._pidfd, timeout_s):
            return False
        os.close(self._pidfd)
        return True


class _Line:
    """Questions and answers over one socket, one at a time."""

    def __init__(self, line: socket.socket) -> None:
        self._socket = line
        self._socket.settimeout(_ANSWER_WITHIN_S)
        self._lock = threading.Lock()
        self._number = 0

    def ask(self, question: dict[str, Any], *, fds: int = 0) -> tuple[dict[str, Any], list[int]]:
        """The answer, with that many descriptors. Raises OSError, with the monitor's `errno`."""
        with self._lock:
            self._number += 1
            try:
                self._socket.send(json.dumps({**question, "number": self._number}).encode())
                while True:
                    data, received, _, _ = socket.recv_fds(self._socket, MESSAGE_BYTES, 2)
                    if not data:
                        raise MonitorLost(errno.EPIPE, "the privileged monitor has ended")
                    answer = json.loads(data)
                    if answer.get("number") == self._number:
                        break
                    _close(received)  # to a question that was given up
            except (ConnectionError, TimeoutError) as error:
                raise MonitorLost(errno.EPIPE, "the privileged monitor does not answer") from error
        if "error" in answer or len(received) != fds:
            _close(received)
            number = answer.get("errno") or errno.EIO
            raise OSError(number, str(answer.get("error", "an answer without its descriptors")))
        for fd in received:
            os.set_inheritable(fd, False)
        return answer, received

    def close(self) -> None:
        self._socket.close()


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def _ended(pidfd: int, within_s: float) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(within_s * 1000))

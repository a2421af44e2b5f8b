"""The monitor: the one process that stays root where the service gave that up. Standard library only.

Started by the service, while it is root, as `python -I -S monitor.py SETUP FILES`, with two SOCK_SEQPACKET
sockets as descriptors 0 (control) and FILES. It does a few fixed things, each asked for in a message of
its own and checked before it is done; what it starts as root was fixed in its setup. It ends when either
socket closes.

| socket | asked | answered |
|---|---|---|
| control | `launcher`, `warm` | a socket and a pidfd, `pid` |
| control | `end_launcher`, `pid` | nothing more |
| control | `hand_back`, `job`, `attempt` | `killed`, how many processes a dead attempt had left |
| files | `open`, `job`, `path` | a descriptor of a file below the job's working directory |
| files | `list`, `job`, `path` | a pipe with the entries of that folder, one line of JSON for each |

Each question has a `number`, and so has its answer. An answer has `error` where it could not be done, with
`errno` where there is one. Paths are bytes, as text in Latin-1.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import types
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.isolation.confinement import Measures
    from runner.isolation.job_users import JobUsers

MESSAGE_BYTES = 32768
_TITLE_ROOM = 200
_END_WITHIN_S = 5.0
_MOST_ENTRIES = 1_000_000

_Answer = tuple[dict[str, Any], list[int]]
_AnswerLater: TypeAlias = "Callable[[_Answer], None]"


def _expose(packages: dict[str, str]) -> None:
    """Make our own packages importable from their folders, and nothing beside them."""
    for name, folder in packages.items():
        package = types.ModuleType(name)
        package.__path__ = [folder]
        sys.modules[name] = package


class Monitor:
    def __init__(self, setup: dict[str, Any], measures: Measures, users: JobUsers) -> None:
        self._launchers: dict[str, dict[str, Any] | None] = setup["launchers"]
        self._program = str(setup["program"])
        self._measures = measures
        self._open_files = int(setup["open_files"])
        self._users = users
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    # ------------------------------------------------------------ control

    def control(self, asked: dict[str, Any], later: _AnswerLater) -> _Answer | None:
        """Raises OSError, ValueError, KeyError. None when the answer comes later."""
        match asked["do"]:
            case "launcher":
                return self._start_launcher(warm=asked["warm"] is True)
            case "end_launcher":
                process = self._running.get(asked["pid"])
                if process is not None:
                    process.kill()  # our own child, and not waited for yet
                return {}, []
            case "hand_back":
                job_id, attempt = str(asked["job"]), int(asked["attempt"])
                self._in_child(lambda: later(({"killed": self._hand_back(job_id, attempt)}, [])), later)
                return None
            case _:
                raise ValueError("nothing the monitor does")

    def _start_launcher(self, *, warm: bool) -> _Answer:
        spec = self._launchers["warm" if warm else "cold"]
        if spec is None:
            raise ValueError("no warm launcher was foreseen")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            setup = {
                "packages": spec["packages"],
                "preload": spec["preload"],
                "warm": warm,
                "open_files": self._open_files,
                "users": self._users.to_json(),
                "measures": self._measures.dump(),
            }
            process = subprocess.Popen(
                [spec["python"], *spec["flags"], self._program, json.dumps(setup), " " * _TITLE_ROOM],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=spec["environment"],
                cwd="/",
                start_new_session=True,
            )
            self._running[process.pid] = process
            pidfd = os.pidfd_open(process.pid)
            return {"pid": process.pid}, [os.dup(ours.fileno()), pidfd]

    def _hand_back(self, job_id: str, attempt: int) -> int:
        if not self._users.is_attempt(f"{self._users.jobs_dir}/{job_id}/attempts/{attempt}"):
            raise ValueError("no attempt of ours")
        killed = 0
        group = self._measures.group(job_id, attempt)
        if group is not None:
            killed = len(group.processes())
            if killed:
                group.kill()
            group.remove(within_s=_END_WITHIN_S)
        return killed + self._users.hand_back(job_id, within_s=_END_WITHIN_S)

    @staticmethod
    def _in_child(do: Callable[[], None], later: _AnswerLater) -> None:
        """What takes its time with a large tree: others are not to wait for it. It answers by itself."""
        if os.fork():
            return
        try:
            signal.set_wakeup_fd(-1)
            try:
                do()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told
                later((_trouble(error), []))
        finally:
            os._exit(0)

    def reap(self) -> None:
        """Collect what has ended: launchers, and our own children."""
        for pid, process in list(self._running.items()):
            if process.poll() is not None:
                del self._running[pid]
        while True:
            try:
                # Launchers are left to `poll`, which would take a foreign answer for its own.
                about = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if about is None or about.si_pid in self._running:
                    return
                os.waitpid(about.si_pid, 0)
            except ChildProcessError:
                return

    # ------------------------------------------------------------ files

    def files(self, asked: dict[str, Any], later: _AnswerLater) -> _Answer | None:
        """Raises OSError, ValueError, KeyError."""
        from runner import beneath  # noqa: PLC0415 - found once `_expose` has run

        match asked["do"]:
            case "open":
                path = str(asked["path"]).encode("latin-1")
                with self._users.work_folder(str(asked["job"])) as folder_fd:
                    fd = beneath.open_file(folder_fd, path)
                about = os.fstat(fd)
                if not self._users.is_of_jobs(about.st_uid):  # linked in from elsewhere, its other name gone
                    os.close(fd)
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
                return {}, [fd]
            case "list":
                path = str(asked["path"]).encode("latin-1")
                self._in_child(lambda: self._list(str(asked["job"]), path, later), later)
                return None
            case _:
                raise ValueError("nothing the monitor does")

    def _list(self, job_id: str, path: bytes, later: _AnswerLater) -> None:
        """Through a pipe: a job can make a folder too large to be held in memory."""
        from runner import beneath, file_listing  # noqa: PLC0415

        with self._users.work_folder(job_id) as work_fd:
            folder_fd = beneath.open_folder(work_fd, path) if path else os.dup(work_fd)
        told, telling = os.pipe2(os.O_CLOEXEC)
        later(({}, [told]))
        with contextlib.suppress(OSError), open(telling, "w", encoding="ascii") as lines:  # nobody reads on
            for entry in itertools.islice(file_listing.entries_of(folder_fd), _MOST_ENTRIES):
                name, kind, size_bytes, modified_ns = entry
                lines.write(json.dumps([name.decode("latin-1"), kind, size_bytes, modified_ns]) + "\n")


def _trouble(error: Exception) -> dict[str, Any]:
    number = error.errno if isinstance(error, OSError) else None
    return {"error": f"{type(error).__name__}: {error}", "errno": number}


def _send(to: socket.socket, answer: dict[str, Any], fds: list[int]) -> None:
    try:
        with contextlib.suppress(OSError):  # nobody listens any more, or it is too long: no answer then
            socket.send_fds(to, [json.dumps(answer).encode()], fds)
    finally:
        for fd in fds:
            os.close(fd)


def main(arguments: list[str]) -> int:
    setup = json.loads(arguments[0])
    _expose(setup["packages"])
    from runner.isolation.confinement import Measures  # noqa: PLC0415 - found once `_expose` has run
    from runner.isolation.job_users import JobUsers  # noqa: PLC0415
    from runner.isolation.processes import ProcessTitle  # noqa: PLC0415

    ProcessTitle().set("snakeline-mon", "snakeline: privileged monitor")
    os.umask(0o077)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # it ends with the service, not before
        signal.signal(number, signal.SIG_IGN)
    control, files = socket.socket(fileno=os.dup(0)), socket.socket(fileno=int(arguments[1]))
    files.set_inheritable(False)
    os.dup2(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC), 0)
    monitor = Monitor(setup, Measures.load(setup["measures"]), JobUsers.from_json(setup["users"]))
    waker, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)

    poll = select.poll()
    for fd in (control, files, waker):
        poll.register(fd, select.POLLIN)
    control.send(b'{"ready": true}')
    while True:
        ready = {fd for fd, _ in poll.poll()}
        if waker in ready:
            os.read(waker, 4096)
            monitor.reap()
        for each in (control, files):
            if each.fileno() not in ready:
                continue
            try:
                message = each.recv(MESSAGE_BYTES)
            except ConnectionError:
                return 0
            if not message:
                return 0
            _answer(each, message, monitor.control if each is control else monitor.files)


def _answer(
    asker: socket.socket, message: bytes, do: Callable[[dict[str, Any], _AnswerLater], _Answer | None]
) -> None:
    """Do what is asked; whatever comes of it, the next question is answered."""
    number = None

    def answer(found: _Answer) -> None:
        _send(asker, {"number": number, **found[0]}, found[1])

    try:
        asked = json.loads(message)
        number = asked["number"]
        found = do(asked, answer)
    except Exception as error:  # noqa: BLE001
        found = _trouble(error), []
    if found is not None:
        answer(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The launcher: a small warm process that forks shims. Standard library only.

Started by the service as `python -I [-S] launcher.py SETUP`, with a SOCK_SEQPACKET socket as descriptor
0. Each message it receives is the directory of an attempt; each answer is a JSON object, with the shim's
pidfd when one was made. It owns nothing: when it ends, shims and jobs go on, and when the socket closes
it ends.

Where jobs have user ids of their own it is root, and what it is set up to do comes from the monitor.
It has one thread, so that a fork of it is a whole process. What the engine needs is imported before the
first fork; a library that starts a thread meanwhile makes it refuse to run engines warm.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import traceback
import types
from typing import Any, NoReturn

MESSAGE_BYTES = 8192
_NICER = 5
"""Steps by which shims and jobs are nicer than the service, where sessions are not scheduled as groups."""


def _expose(packages: dict[str, str]) -> None:
    """Make our own packages importable from their folders, and nothing beside them."""
    for name, folder in packages.items():
        package = types.ModuleType(name)
        package.__path__ = [folder]
        sys.modules[name] = package


def _preload(setup: dict[str, Any]) -> str | None:
    """Import what the engine needs; what stands in the way of running it warm, if anything."""
    if setup["preload"] is None:
        return None
    module, _, function = setup["preload"].partition(":")
    try:
        getattr(importlib.import_module(module), function)()
    except BaseException as error:  # noqa: BLE001 - a foreign program's import may raise anything
        return f"{type(error).__name__}: {error}"
    threads = len(os.listdir("/proc/self/task"))
    if threads != 1:
        return f"importing the engine started {threads - 1} threads"
    return None


def _run_shim(directory: str, *, warm: bool, title: Any, measures: Any, users: Any) -> NoReturn:
    """The child's side of the fork: never returns."""
    code = 1
    signal.set_wakeup_fd(-1)  # before its number can become that of another file
    try:
        os.setsid()
        os.umask(0o077)
        # Found once `_expose` has run, and imported by then.
        from runner.backends import shim  # noqa: PLC0415
        from runner.isolation.processes import close_from, give_way  # noqa: PLC0415
        from runner.isolation.restraints import hide_memory, show_memory  # noqa: PLC0415

        show_memory()  # or only root could write what it has to
        give_way()
        hide_memory()
        os.nice(_NICER)
        null = os.open("/dev/null", os.O_RDWR)
        for stdio in (0, 1, 2):
            os.dup2(null, stdio)
        close_from(3)
        code = shim.main(directory, warm=warm, title=title, measures=measures, users=users)
    except BaseException:  # noqa: BLE001 - told to whoever looks into a lost attempt
        if users is not None:
            users.work_as_service()
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(os.path.join(directory, "crash.txt"), flags, 0o600)
        with open(fd, "w", encoding="utf-8") as file:
            traceback.print_exc(file=file)
    finally:
        os._exit(code)


def _fork(
    directory: str, control: socket.socket, *, warm: bool, title: Any, measures: Any, users: Any
) -> None:
    answer: dict[str, object]
    if users is not None and not users.is_attempt(directory):  # we are root, and who asks is not
        answer = {"directory": directory, "error": "this is no attempt's directory"}
        control.send(json.dumps(answer).encode())
        return
    measures.look()
    try:
        pid = os.fork()
    except OSError as error:
        answer = {
            "directory": directory,
            "error": f"no process could be made: {error.strerror}",
        }
        control.send(json.dumps(answer).encode())
        return
    if pid == 0:
        _run_shim(directory, warm=warm, title=title, measures=measures, users=users)
    # Still our unreaped child, so the pid cannot mean anything else.
    handle = os.pidfd_open(pid)
    try:
        answer = {"directory": directory, "pid": pid}
        socket.send_fds(control, [json.dumps(answer).encode()], [handle])
    finally:
        os.close(handle)


def main(arguments: list[str]) -> int:
    # What is imported is no garbage; later, a collection in a child would copy pages that it shares with us.
    gc.disable()
    _default_signals()
    setup = json.loads(arguments[0])
    control = socket.socket(fileno=os.dup(0))
    _expose(setup["packages"])
    from runner.backends import engine_run, shim  # noqa: F401, PLC0415 - found once `_expose` has run
    from runner.isolation.confinement import Measures  # noqa: PLC0415
    from runner.isolation.descriptors import restore_limit  # noqa: PLC0415
    from runner.isolation.job_users import JobUsers  # noqa: PLC0415
    from runner.isolation.processes import ProcessTitle  # noqa: PLC0415
    from runner.isolation.restraints import hide_memory, leave_keyring  # noqa: PLC0415

    hide_memory()  # a job of the same user could take over who keeps it
    engine_run.set_handlers()
    restore_limit(setup["open_files"])
    measures = Measures.load(setup["measures"])
    if measures.limits:
        leave_keyring()  # once for all jobs, in case one cannot have its own
    users = JobUsers.from_json(setup["users"]) if setup.get("users") else None
    if users is not None:
        users.be_signalled_by_service()
    title = ProcessTitle()
    title.set("snakeline-lnch", "snakeline: launcher" + (" (warm)" if setup["warm"] else ""))
    obstacle = _preload(setup)
    warm = setup["warm"] and obstacle is None
    control.send(json.dumps({"ready": True, "obstacle": obstacle}).encode())
    gc.collect()
    gc.freeze()

    waker, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(waker, select.POLLIN)
    while True:
        ready = {fd for fd, _ in poll.poll()}
        if waker in ready:
            os.read(waker, 4096)
            _reap()
        if control.fileno() in ready:
            try:
                message = control.recv(MESSAGE_BYTES)
            except ConnectionError:
                return 0
            if not message:
                return 0
            try:
                _fork(message.decode(), control, warm=warm, title=title, measures=measures, users=users)
            except ConnectionError:
                return 0


def _default_signals() -> None:
    """Undo what was ignored or blocked by whoever started the service, as nohup does."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE, signal.SIGXFSZ}:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _reap() -> None:
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Process trees that do not want to end, in Snakemake's place. Standard library only.

A job's `parameters.tree` names one of `TREES`; or `leaves_its_groups`, which tries to; or `leader_leaves`,
whose first process ends by itself; or `kills_its_shim`, which says in the file `refused` that it may not.
The file `ready` in the working directory says that the tree stands.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from typing import Final, NoReturn

_DEAF: Final = """
import signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(sys.argv[1], "w").close()
while True:
    signal.pause()
"""


def _stand(*, ready: bool = True) -> NoReturn:
    """Stay, and do not listen to SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if ready:
        _tell()
    while True:
        signal.pause()


def _tell() -> None:
    open("ready", "w").close()


def _wait_until_ready() -> None:
    while not os.path.exists("ready"):
        time.sleep(0.01)  # noqa: TID251 - the job's own


def _fork(child: Callable[[], object]) -> None:
    if os.fork() == 0:
        try:
            child()
        finally:
            os._exit(1)


def _leave_session() -> None:
    os.setsid()
    _stand()


def _daemonise(child: Callable[[], object]) -> None:
    """The double fork of a daemon: its parent is gone, its session is nobody's."""

    def middle() -> None:
        os.setsid()
        _fork(child)
        os._exit(0)

    _fork(middle)


def _forget_environment() -> None:
    os.execve(sys.executable, [sys.executable, "-I", "-S", "-c", _DEAF, os.path.abspath("ready")], {})


def _replace_itself() -> None:
    """Each process lives just long enough to have a child, which does the same in a session of its own."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.setsid()
    os.nice(19)  # whatever else the machine does need not wait for it
    _tell()
    while True:
        try:
            if os.fork():
                os._exit(0)
        except OSError:  # there is no room for another just now
            continue
        os.setsid()


def _exit_on_term() -> None:
    for _ in range(3):
        _fork(_stand)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))


def _leave_leaderless() -> None:
    _daemonise(_forget_environment)
    _wait_until_ready()
    os._exit(0)


def _kill_shim() -> None:
    shim = os.getppid()
    _daemonise(_forget_environment)
    _wait_until_ready()
    try:
        os.kill(shim, signal.SIGKILL)  # noqa: TID251 - what it is about
    except PermissionError:
        _cut_limits(shim)
        open("refused", "w").close()


def _cut_limits(pid: int) -> None:
    """Of descriptors and processor time: the kernel kills who has used up the latter."""
    for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_CPU):
        with contextlib.suppress(PermissionError):
            resource.prlimit(pid, kind, (0, 0))
            open("cut", "w").close()


def _leave_groups() -> None:
    """Out of every control group that can be seen, into the one above."""
    with open("/proc/self/mountinfo", encoding="utf-8") as mounts:
        tops = [line.split()[4] for line in mounts if " - cgroup" in line]
    for top in tops:
        for folder, _, _ in os.walk(top):
            with (
                contextlib.suppress(OSError),
                open(f"{folder}/cgroup.procs", "w", encoding="ascii") as members,
            ):
                members.write("0")
                break
    for top in tops:
        _have_child_in(top)
    _forget_environment()


def _have_child_in(group: str) -> None:
    """A child that begins in this control group of version 2 (clone3(2)); it goes on as its parent."""
    clone3, into_group = 435, 1 << 33
    folder = os.open(group, os.O_PATH)
    request = (ctypes.c_uint64 * 11)(into_group, 0, 0, 0, signal.SIGCHLD, *[0] * 5, folder)
    child = ctypes.CDLL(None).syscall(clone3, ctypes.byref(request), ctypes.sizeof(request))
    os.close(folder)
    if child > 0:
        os._exit(0)


def _eight() -> None:
    for _ in range(8):
        _daemonise(_replace_itself)


_GROWN: Final[dict[str, Callable[[], object]]] = {
    "ignores_term": _stand,
    "setsid": lambda: _fork(_leave_session),
    "double_fork": lambda: _daemonise(_stand),
    "double_fork_without_environment": lambda: _daemonise(_forget_environment),
    "leader_exits": _exit_on_term,
    "self_replacing": lambda: _fork(_replace_itself),
    "eight_self_replacing": _eight,
    "leaves_its_groups": lambda: _daemonise(_leave_groups),
    "leader_leaves": _leave_leaderless,
    "kills_its_shim": _kill_shim,
}
TREES: Final = tuple(_GROWN)[:7]
"""Those that have to be stopped."""


def main(argv: list[str]) -> None:
    if argv == ["--version"]:
        print("9.0.0")  # noqa: T201 - as Snakemake answers
        return
    with open(argv[argv.index("--configfile") + 1], encoding="utf-8") as file:
        _GROWN[json.load(file)["tree"]]()
    while True:
        signal.pause()


if __name__ == "__main__":
    main(sys.argv[1:])

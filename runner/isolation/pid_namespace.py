"""Runs the engine in a PID namespace, by bubblewrap: when its first process ends, so does everything in it.

Executed (`python pid_namespace.py SETUP TELLING STATUS COMMAND…`) it is that first process. It keeps the
rules about files, which may not be kept before (nobody under them can mount, and bubblewrap has to), starts
the engine, and tells the shim what only a parent knows: on the descriptor TELLING that it started, one NUL,
or why not, as text or `ERRNO` and a number; and on STATUS how it ended, a wait status. Bubblewrap itself
would tell of a signal by an exit code. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
import types
from typing import TYPE_CHECKING, Any, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

STARTED: Final = b"\0"
ERRNO: Final = b"\1"
LEFTOVER_GRACE_S: Final = 2.0
_TRIED_WITHIN_S: Final = 10.0
_PROGRAM: Final = os.path.abspath(__file__)
_ARGUMENTS: Final = (
    *("--unshare-pid", "--as-pid-1", "--die-with-parent", "--cap-drop", "ALL"),
    *("--dev-bind", "/", "/", "--proc", "/proc"),
)
# What root keeps, as runner/isolation/restraints.py has it.
_ROOTS: Final = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "NET_BIND_SERVICE")


def command(
    bubblewrap: str, argv: Sequence[str], setup: Mapping[str, Any], telling: int, status: int
) -> list[str]:
    """What to execute in place of `argv`, as the user that the engine is to run as."""
    if os.geteuid() == 0:
        powers = [word for name in _ROOTS for word in ("--cap-add", f"CAP_{name}")]
    else:
        powers = ["--unshare-user"]
    first = [sys.executable, "-I", "-S", "-B", _PROGRAM, json.dumps(setup), str(telling), str(status)]
    return [bubblewrap, *_ARGUMENTS, *powers, "--", *first, *argv]


def tried(bubblewrap: str, script: str) -> bool:
    """Whether a Python script exits with 0 in a namespace. Raises OSError, SubprocessError."""
    import subprocess  # noqa: PLC0415 - for the service alone

    from runner.isolation.confinement import Confinement  # noqa: PLC0415

    ends = [*os.pipe2(os.O_CLOEXEC), *os.pipe2(os.O_CLOEXEC)]
    try:
        argv = [sys.executable, "-I", "-S", "-c", script]
        inside = command(bubblewrap, argv, Confinement.none().files_setup(), ends[1], ends[3])
        null = subprocess.DEVNULL
        done = subprocess.run(
            inside,
            pass_fds=(ends[1], ends[3]),
            stdin=null,
            stdout=null,
            stderr=null,
            env={"PATH": os.defpath},
            timeout=_TRIED_WITHIN_S,
            check=False,
        )
        os.set_blocking(ends[2], False)
        with contextlib.suppress(BlockingIOError):
            return done.returncode == 0 and os.read(ends[2], 16) == b"0"
        return False
    finally:
        for fd in ends:
            os.close(fd)


def main(arguments: list[str]) -> int:
    setup, telling, status, *argv = arguments
    telling_fd, status_fd = int(telling), int(status)
    for fd in (telling_fd, status_fd):
        os.set_inheritable(fd, False)
    troubles, tell = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _become_engine(json.loads(setup), argv, tell)
    os.close(tell)
    trouble = os.read(troubles, 4096)  # nothing once the engine has been started
    os.write(telling_fd, trouble or STARTED)
    if trouble:
        return 127
    os.close(telling_fd)
    while True:
        ended, how = os.waitpid(-1, 0)
        if ended == pid:
            break
    os.write(status_fd, b"%d" % how)
    os.close(status_fd)
    _end_the_rest()
    return 0


def _become_engine(setup: dict[str, Any], argv: list[str], tell: int) -> NoReturn:
    try:
        _expose(setup["packages"])
        from runner.isolation.confinement import Confinement  # noqa: PLC0415 - found once `_expose` has run

        Confinement.of_files(setup).enter()
        for number in (signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is told
        os.write(tell, f"The job could not be isolated: {error}".encode(errors="replace"))
        os._exit(127)
    try:
        os.execvpe(argv[0], argv, os.environ)  # noqa: TID251 - the job's environment, not a setting
    except OSError as error:
        os.write(tell, ERRNO + b"%d" % (error.errno or 0))
    os._exit(127)


def _end_the_rest() -> None:
    """What the engine left: SIGTERM, a moment; SIGKILL comes with our own end."""
    deadline = time.monotonic() + LEFTOVER_GRACE_S
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGTERM)  # noqa: TID251 - no pid: everything in this namespace, and nothing else
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < deadline:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.005)  # noqa: TID251 - whoever is no child of ours is not waited for


def _expose(packages: dict[str, str]) -> None:
    for name, folder in packages.items():
        package = types.ModuleType(name)
        package.__path__ = [folder]
        sys.modules[name] = package


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

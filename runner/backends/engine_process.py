"""Starts the engine's process for the shim, by fork or by exec: standard library only."""

from __future__ import annotations

import atexit
import contextlib
import errno
import fcntl
import gc
import importlib
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from runner.isolation.processes import close_from, die_with_parent, give_way

if TYPE_CHECKING:
    from runner.attempt_files import ShimSpec
    from runner.isolation.processes import ProcessTitle


PIPE_BYTES = 2**18
"""Room for what a job writes while its shim does something else. Not more: a job that floods it fills it at
one go, and a kernel without preemption lets nobody else have the core until that is done."""


class LaunchFailed(Exception):
    """The engine could not be started; the text says why and what to look at."""


class EngineProcess:
    """A forked process that waits until it is told to become the engine.

    Its output, stdout and stderr in the order written, is read from `output`.
    """

    def __init__(self, spec: ShimSpec, *, warm: bool, title: ProcessTitle) -> None:
        """Fork it, with a session of its own. Raises OSError when no process could be made."""
        self.output, writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.output, False)
        with contextlib.suppress(OSError):  # the user's share of large pipes may be used up (pipe(7))
            fcntl.fcntl(self.output, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        # Both ways: `become` tells the command, the answer is the trouble it met, or nothing.
        ours, theirs = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
        parent = os.getpid()
        try:
            self.pid = os.fork()
            if self.pid == 0:
                _wait_and_become(spec, ours[0], theirs[1], writer, parent, warm=warm, title=title)
        finally:
            os.close(ours[0])
            os.close(theirs[1])
            os.close(writer)
        self._telling, self._told = ours[1], theirs[0]
        self.pidfd = os.pidfd_open(self.pid)

    def become(self, step: int) -> None:
        """Run the command of this number in `spec.commands`. Raises LaunchFailed when it cannot be."""
        os.write(self._telling, b"%d" % step)
        os.close(self._telling)
        self._telling = -1
        trouble = b""
        while chunk := os.read(self._told, 4096):
            trouble += chunk
        if trouble:
            raise LaunchFailed(trouble.decode(errors="replace"))

    def abandon(self) -> None:
        """End it before, or because, it has become anything."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        self.close()

    def close(self) -> None:
        for fd in (self.output, self._telling, self._told, self.pidfd):
            if fd >= 0:
                os.close(fd)


def _wait_and_become(
    spec: ShimSpec,
    told: int,
    telling: int,
    output: int,
    parent: int,
    *,
    warm: bool,
    title: ProcessTitle,
) -> NoReturn:
    """The child's side: never returns, never raises."""
    try:
        die_with_parent(parent)
        step = os.read(told, 16)
        if not step:
            os._exit(0)
        argv = spec.commands[int(step)]
        try:
            os.setsid()
            give_way()
            _default_signals(warm=warm)
            os.umask(0o077)
            os.chdir(spec.work_dir)
            null = os.open("/dev/null", os.O_RDONLY)
            os.dup2(null, 0)
            os.dup2(output, 1)
            os.dup2(output, 2)
            telling = _close_others(telling)
            if not warm:
                _execute(argv, spec.environment)
            title.set(
                spec.title.rsplit(" ", 1)[-1], f"snakeline: {spec.title} job {spec.job_id}/{spec.attempt}"
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            advice = _advice(error, argv, spec) if isinstance(error, OSError) else f"{argv[0]}: {error!r}"
            os.write(telling, advice.encode(errors="replace"))
            os._exit(127)
        os.close(telling)
        assert spec.warm_entry is not None
        _run_warm(spec.warm_entry, argv[1:], spec.environment)
    except BaseException:  # noqa: BLE001 - a forked child must not unwind into its parent's code
        os._exit(70)


def _default_signals(*, warm: bool) -> None:
    """As a new program finds them: an exec resets handlers itself, and a new Python has its own."""
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2))
    if warm:
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
    else:
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)


def _close_others(telling: int) -> int:
    """Close every descriptor but stdio and the one that tells of failure, which becomes 3."""
    if telling != 3:
        os.dup2(telling, 3, inheritable=False)
    close_from(4)
    return 3


def _execute(argv: list[str], environment: dict[str, str]) -> NoReturn:
    if os.path.dirname(argv[0]):
        os.execve(argv[0], argv, environment)
    os.execvpe(argv[0], argv, environment)


def _advice(error: OSError, argv: list[str], spec: ShimSpec) -> str:
    program = argv[0]
    match error.errno:
        case errno.ENOENT if not os.path.isdir(spec.work_dir):
            return f"The working directory {spec.work_dir} is missing."
        case errno.ENOENT:
            return (
                f"{program} was not found (or the interpreter in its first line): check the engine's setting."
            )
        case errno.EACCES:
            return f"{program} may not be executed: check its permissions."
        case errno.ENOEXEC:
            return f"{program} is not a program: check the engine's setting."
        case _:
            return f"{program} could not be started: {error.strerror}."


def _run_warm(entry: str, arguments: list[str], environment: dict[str, str]) -> NoReturn:
    """Run the entry point in this process and end it as a Python program ends."""
    os.environ.clear()  # noqa: TID251 - the job's environment, not a setting
    os.environ.update(environment)  # noqa: TID251
    gc.enable()
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]
    code = _exit_code_of(entry, arguments)
    # What the interpreter does at its end: wait for threads, run exit functions, flush.
    threading = sys.modules.get("threading")  # not imported for its own sake: it makes every fork dearer
    if threading is not None:
        with contextlib.suppress(BaseException):
            threading._shutdown()  # noqa: SLF001
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()  # noqa: SLF001
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            code = code or 120  # as Python does when stdout cannot be flushed
    os._exit(code)


def _exit_code_of(entry: str, arguments: list[str]) -> int:
    module, _, function = entry.partition(":")
    try:
        answer = getattr(importlib.import_module(module), function)(arguments)
    except SystemExit as ending:
        answer = ending.code
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.raise_signal(signal.SIGINT)
        return 130
    except BaseException:  # noqa: BLE001 - whatever it raised ends the process as Python would
        sys.excepthook(*sys.exc_info())
        return 1
    if answer is None:
        return 0
    if isinstance(answer, int):
        return answer & 0xFF
    print(answer, file=sys.stderr)  # noqa: T201 - as sys.exit(text) does
    return 1

"""Starts the engine's process for the shim, by fork or by exec: standard library only."""

from __future__ import annotations

import atexit
import contextlib
import errno
import gc
import importlib
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from runner.isolation.processes import close_from, die_with_parent

if TYPE_CHECKING:
    from runner.attempt_files import ShimSpec
    from runner.isolation.processes import ProcessTitle


class LaunchFailed(Exception):
    """The engine could not be started; the text says why and what to look at."""


def start(spec: ShimSpec, argv: list[str], output: int, *, warm: bool, title: ProcessTitle) -> int:
    """Fork the engine with its own session, environment, directory and descriptors; its pid.

    Returns once the new process runs the engine. Raises LaunchFailed when it could not, OSError when
    no process could be made.
    """
    told, telling = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    try:
        pid = os.fork()
    except OSError:
        os.close(told)
        os.close(telling)
        raise
    if pid == 0:
        _become_engine(spec, argv, output, telling, parent, warm=warm, title=title)
    os.close(telling)
    with open(told, "rb") as answer:
        trouble = answer.read()
    if trouble:
        os.waitpid(pid, 0)
        raise LaunchFailed(trouble.decode(errors="replace"))
    return pid


def _become_engine(
    spec: ShimSpec,
    argv: list[str],
    output: int,
    telling: int,
    parent: int,
    *,
    warm: bool,
    title: ProcessTitle,
) -> NoReturn:
    """The child's side: never returns, never raises."""
    try:
        try:
            die_with_parent(parent)
            os.setsid()
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
        except OSError as error:
            os.write(telling, _advice(error, argv, spec).encode())
            os._exit(127)
        os.close(telling)
        assert spec.warm_entry is not None
        _run_warm(spec.warm_entry, argv[1:], spec.environment)
    except BaseException:  # noqa: BLE001 - a forked child must not unwind into its parent's code
        os._exit(70)


def _default_signals(*, warm: bool) -> None:
    """As a new program finds them: an exec resets handlers itself, and a new Python has its own."""
    signal.set_wakeup_fd(-1)
    if warm:
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD, signal.SIGHUP):
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

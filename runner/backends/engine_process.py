"""Starts the engine's process for the shim, by fork or by exec: standard library only."""

from __future__ import annotations

import atexit
import contextlib
import errno
import fcntl
import gc
import importlib
import os
import select
import signal
import sys
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from runner.isolation import pid_namespace
from runner.isolation.pid_namespace import ERRNO, STARTED
from runner.isolation.processes import close_from, die_with_parent, give_way
from runner.isolation.restraints import show_memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.attempt_files import ShimSpec
    from runner.isolation.confinement import Confinement
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

    def __init__(
        self, spec: ShimSpec, confinement: Confinement, *, uid: int | None, warm: bool, title: ProcessTitle
    ) -> None:
        """Fork it, with a session of its own. Raises OSError when no process could be made.

        `uid` is the user it becomes, if it has one of its own: the caller is root by its saved user id then.
        """
        self.output, writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.output, False)
        with contextlib.suppress(OSError):  # the user's share of large pipes may be used up (pipe(7))
            fcntl.fcntl(self.output, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._spec = spec
        self._status, status = os.pipe2(os.O_CLOEXEC) if confinement.namespace else (-1, -1)
        # Both ways: `become` tells the command, the answer is the trouble it met, or nothing.
        ours, theirs = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
        parent = os.getpid()
        try:
            self.pid = os.fork()
            if self.pid == 0:
                fds = _Ends(ours[0], theirs[1], writer, status)
                _wait_and_become(spec, confinement, fds, parent, uid=uid, warm=warm, title=title)
        finally:
            if status >= 0:
                os.close(status)
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
            if self._status >= 0:
                break  # bubblewrap keeps it open
        if trouble.startswith(ERRNO):
            number = int(trouble.removeprefix(ERRNO))
            error = OSError(number, os.strerror(number))
            raise LaunchFailed(_advice(error, self._spec.commands[step], self._spec))
        if trouble and trouble != STARTED:
            raise LaunchFailed(trouble.decode(errors="replace"))
        if self._status >= 0 and not trouble:
            raise LaunchFailed("Bubblewrap ended before the engine was started: does it work here?")

    def true_status(self, status: int) -> int:
        """How the engine ended, given how this process did: in a namespace that is not the same."""
        told = b""
        if self._status >= 0:
            os.set_blocking(self._status, False)
            with contextlib.suppress(BlockingIOError):
                told = os.read(self._status, 16)
        return int(told) if told else status

    def has_ended(self) -> bool:
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def io_bytes(self) -> tuple[int, int]:
        """Storage read and written by it and children it waited for (proc_pid_io(5)); zeros if not told."""
        try:
            with open(f"/proc/{self.pid}/io", "rb", buffering=0) as file:
                fields = dict(line.split(b": ") for line in (file.read(4096) or b"").splitlines())
            return int(fields[b"read_bytes"]), int(fields[b"write_bytes"])
        except (OSError, ValueError, KeyError):
            return 0, 0

    def abandon(self) -> None:
        """End it before, or because, it has become anything."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        self.close()

    def close(self) -> None:
        for fd in (self.output, self._telling, self._told, self._status, self.pidfd):
            if fd >= 0:
                os.close(fd)


class _Ends(NamedTuple):
    """The child's ends of its pipes; `status` is -1 where there is no namespace."""

    told: int
    telling: int
    output: int
    status: int


def _wait_and_become(
    spec: ShimSpec,
    confinement: Confinement,
    fds: _Ends,
    parent: int,
    *,
    uid: int | None,
    warm: bool,
    title: ProcessTitle,
) -> NoReturn:
    """The child's side: never returns, never raises."""
    telling = fds.telling
    try:
        die_with_parent(parent)
        if uid is not None:
            os.seteuid(0)
        confinement.prepare()
        step = os.read(fds.told, 16)
        if not step:
            os._exit(0)
        argv = spec.commands[int(step)]
        try:
            os.setsid()
            show_memory()
            give_way()
            _default_signals(warm=warm)
            os.umask(0o077)
            os.chdir(spec.work_dir)
            null = os.open("/dev/null", os.O_RDONLY)
            os.dup2(null, 0)
            os.dup2(fds.output, 1)
            os.dup2(fds.output, 2)
            if warm:
                name = f"snakeline: {spec.title} job {spec.job_id}/{spec.attempt}"
                title.set(spec.title.rsplit(" ", 1)[-1], name)
            _enter(confinement, uid)
            if uid is not None:
                die_with_parent(parent)  # the kernel forgets it when the user changes
            telling = _close_others(telling, fds.status)
            if confinement.namespace:
                _execute_in_namespace(argv, spec.environment, confinement)
            if not warm:
                _execute(argv, spec.environment)
        except LaunchFailed as error:
            os.write(telling, str(error).encode(errors="replace"))
            os._exit(127)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            advice = _advice(error, argv, spec) if isinstance(error, OSError) else f"{argv[0]}: {error!r}"
            os.write(telling, advice.encode(errors="replace"))
            os._exit(127)
        os.close(telling)
        assert spec.warm_entry is not None
        _run_warm(spec.warm_entry, argv[1:], spec.environment)
    except BaseException:  # noqa: BLE001 - a forked child must not unwind into its parent's code
        os._exit(70)


def _enter(confinement: Confinement, uid: int | None) -> None:
    try:
        confinement.enter(uid=uid, gid=uid)
    except OSError as error:
        raise LaunchFailed(f"The job could not be isolated: {error.strerror}.") from error


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


def _close_others(telling: int, status: int) -> int:
    """Close every descriptor but stdio, the one that tells of failure, then 3, and `status`, then 4."""
    if status >= 0:
        high = fcntl.fcntl(status, fcntl.F_DUPFD_CLOEXEC, 5)
        telling = fcntl.fcntl(telling, fcntl.F_DUPFD_CLOEXEC, 5)
        os.dup2(high, 4)
    if telling != 3:
        os.dup2(telling, 3, inheritable=status >= 0)
    close_from(4 if status < 0 else 5)
    return 3


def _execute_in_namespace(argv: list[str], environment: dict[str, str], confinement: Confinement) -> NoReturn:
    # A stop is for what is inside: its first process, and bubblewrap, would end it all at once.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    inside = pid_namespace.command(confinement.namespace, argv, confinement.files_setup(), 3, 4)
    try:
        _execute(inside, environment)
    except OSError as error:
        raise LaunchFailed(f"{inside[0]} could not be started: {error.strerror}.") from error


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
    _open_stdio()
    module, _, function = entry.partition(":")
    engine = importlib.import_module(module)
    code = _exit_code_of(getattr(engine, function), arguments)
    # What the interpreter does at its end: flush, wait for threads, run exit functions, let go of everything.
    code = _flushed(code)
    threading = sys.modules.get("threading")  # not imported for its own sake: it makes every fork dearer
    if threading is not None:
        with contextlib.suppress(BaseException):
            threading._shutdown()  # noqa: SLF001
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()  # noqa: SLF001
    with contextlib.suppress(BaseException):
        if let_go := getattr(engine, "let_go", None):
            let_go()
    code = _flushed(code)
    os._exit(code)


def _open_stdio() -> None:
    """As an interpreter opens them where the locale is C.UTF-8."""
    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", errors="surrogateescape", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    for name in ("stdin", "stdout", "stderr"):
        getattr(sys, name).buffer.raw.name = f"<{name}>"
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]


def _flushed(code: int) -> int:
    """The exit code, given whether what the program has said could be written out, as Python has it."""
    for stream in (sys.stdout, sys.stderr):
        if stream is None or getattr(stream, "closed", False):
            continue
        try:
            stream.flush()
        except Exception:  # noqa: BLE001 - the program may have put anything there
            code = code or 120
    return code


def _exit_code_of(run: Callable[[list[str]], object], arguments: list[str]) -> int:
    try:
        answer = run(arguments)
    except SystemExit as ending:
        answer = ending.code
    except BaseException as error:  # noqa: BLE001 - whatever it raised ends the process as Python would
        shown = error.with_traceback(
            error.__traceback__ and error.__traceback__.tb_next
        )  # the program's frames
        sys.excepthook(type(shown), shown, shown.__traceback__)
        if isinstance(error, KeyboardInterrupt):
            _flushed(0)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.raise_signal(signal.SIGINT)
        return 1
    if answer is None:
        return 0
    if isinstance(answer, int):
        return answer & 0xFF
    print(answer, file=sys.stderr)  # noqa: T201 - as sys.exit(text) does
    return 1

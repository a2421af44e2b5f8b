"""Follows a shim from call to call (ptrace(2)), to end it before any one of them or to make one fail.

As `strace -e inject` does, but for this one process: what it forks and who forked it go on untouched.
The launcher imports this module too (`WarmSpec.preload`): standard library only.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SEIZE, _SYSCALL, _GETREGS, _SETREGS, _SYSCALL_INFO = 0x4206, 24, 12, 13, 0x420E
_SYSGOOD, _EXITKILL = 1, 1 << 20
_WALL = 0x40000000
_SYSCALL_STOP = signal.SIGTRAP | 0x80
_ENTRY = 1
_RAX, _ORIG_RAX = 10, 15

# Of x86-64: those that are told by name, or by the path they are given.
_NAMES = {0: "read", 1: "write", 3: "close", 7: "poll", 15: "sigreturn", 18: "pwrite64", 19: "readv"}
_NAMES |= {39: "getpid", 56: "clone", 59: "execve", 61: "wait4", 72: "fcntl", 74: "fsync", 77: "ftruncate"}
_NAMES |= {82: "rename", 83: "mkdir", 87: "unlink", 231: "exit_group", 247: "waitid", 257: "openat"}
_NAMES |= {285: "fallocate", 293: "pipe2", 434: "pidfd_open"}
_PATH_ARGUMENT = {"openat": 1, "rename": 1, "mkdir": 0, "unlink": 0}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def obstacle() -> str | None:
    """Why nothing can be traced here, if so."""
    if platform.machine() != "x86_64":
        return "calls are followed on x86-64 only"
    import subprocess  # noqa: PLC0415 - the launcher is to have nothing more than it needs

    with subprocess.Popen(["/bin/sleep", "60"]) as child:
        refused = _libc.ptrace(_SEIZE, child.pid, None, None) != 0
        child.kill()
    return "this process may not trace another one" if refused else None


# ---------------------------------------------------------------- in the launcher


def __getattr__(name: str) -> Callable[[], None]:
    """`support.tracing:/a/path` as `WarmSpec.preload`: each shim stops at its birth while the path exists."""
    if not name.startswith("/"):
        raise AttributeError(name)
    launcher = os.getpid()

    def stop_if_wanted() -> None:
        # Again and again: its backend makes every stopped shim go on from time to time.
        while os.getppid() == launcher and os.path.exists(name) and not _is_traced():
            signal.raise_signal(signal.SIGSTOP)

    return lambda: os.register_at_fork(after_in_child=stop_if_wanted)


def _is_traced() -> bool:
    with open("/proc/self/status", "rb") as status:
        return b"\nTracerPid:\t0\n" not in status.read()


# ---------------------------------------------------------------- in the test


@dataclass(frozen=True, slots=True)
class Call:
    """A system call about to be made; `path` for those that name one."""

    name: str
    path: str

    def __str__(self) -> str:
        return f"{self.name} {self.path}".strip()


class _Info(ctypes.Structure):
    _fields_ = (
        ("op", ctypes.c_uint8),
        ("arch", ctypes.c_uint32),
        ("instruction_pointer", ctypes.c_uint64),
        ("stack_pointer", ctypes.c_uint64),
        ("number", ctypes.c_uint64),
        ("arguments", ctypes.c_uint64 * 6),
        ("padding", ctypes.c_uint64 * 4),
    )


class Tracee:
    """A process that has stopped itself, followed from there. All by one thread, as the kernel demands."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._pidfd = os.pidfd_open(pid)
        self._fail_with = 0
        _await_stop(pid)
        self._ptrace(_SEIZE, data=_SYSGOOD | _EXITKILL)
        self._memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        signal.pidfd_send_signal(self._pidfd, signal.SIGCONT)

    def calls(self) -> Iterator[Call]:
        """Each call before it is made, until the process has ended."""
        try:
            while True:
                _, status = os.waitpid(self._pid, _WALL)
                if not os.WIFSTOPPED(status):
                    return
                number = os.WSTOPSIG(status)
                if number == _SYSCALL_STOP:
                    yield from self._call()
                    number = 0
                elif status >> 16:
                    number = 0  # it stops or goes on: nothing to deliver
                self._ptrace(_SYSCALL, data=number, gone_is_fine=True)
        finally:
            os.close(self._memory)
            os.close(self._pidfd)

    def kill(self) -> None:
        """End it: the call it is about to make is not made."""
        signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def fail(self, error: int) -> None:
        """Let the call it is about to make fail with this errno, unmade."""
        self._fail_with = error

    def _call(self) -> Iterator[Call]:
        info = _Info()
        if self._ptrace(_SYSCALL_INFO, ctypes.sizeof(info), ctypes.byref(info), gone_is_fine=True) < 0:
            return
        if info.op == _ENTRY:
            name = _NAMES.get(info.number, f"call {info.number}")
            argument = _PATH_ARGUMENT.get(name)
            yield Call(name, self._text(info.arguments[argument]) if argument is not None else "")
            if self._fail_with:
                self._set_register(_ORIG_RAX, -1)
        elif self._fail_with:
            self._set_register(_RAX, -self._fail_with)
            self._fail_with = 0

    def _set_register(self, index: int, value: int) -> None:
        registers = (ctypes.c_longlong * 27)()
        self._ptrace(_GETREGS, data=ctypes.byref(registers))
        registers[index] = value
        self._ptrace(_SETREGS, data=ctypes.byref(registers))

    def _text(self, address: int) -> str:
        # A string ends within its page or the next one, which need not be there.
        room = 4096 - address % 4096
        data = os.pread(self._memory, room, address)
        if b"\0" not in data:
            data += os.pread(self._memory, 4096, address + room)
        return data.split(b"\0", 1)[0].decode()

    def _ptrace(self, request: int, address: int = 0, data: Any = 0, *, gone_is_fine: bool = False) -> int:
        answer = int(_libc.ptrace(request, self._pid, address or None, data or None))
        if answer < 0 and not gone_is_fine:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), f"ptrace({request:#x})")
        return answer


def _await_stop(pid: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            if stat.read().rsplit(b") ", 1)[1][:1] == b"T":
                return
        assert time.monotonic() < deadline, f"process {pid} has not stopped itself"
        os.sched_yield()

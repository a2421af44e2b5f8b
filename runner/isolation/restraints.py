"""What a process may do beyond its files: limits, powers, and who may look into it. Standard library only."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
from typing import Final

from runner.isolation.syscalls import capget, capset, prctl, try_syscall

_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
# keyctl(2): of x86-64, and of every newer architecture.
_KEYCTL: Final = 250 if os.uname().machine == "x86_64" else 219
_JOIN_SESSION_KEYRING: Final = 1

_CAPABILITY_VERSION_3: Final = 0x20080522
# CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, NET_BIND_SERVICE: what programs that expect to
# be root use on files and users. Left out is what reaches around the kernel's own walls: devices, modules,
# raw memory, mounts, tracing, files by handle.
_KEPT: Final = sum(1 << number for number in (0, 1, 3, 4, 5, 6, 7, 10))


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


_header = _Header(_CAPABILITY_VERSION_3, 0)
_data = (_Data * 2)()
_header_at, _data_at = ctypes.addressof(_header), ctypes.addressof(_data)


def gain_nothing() -> None:
    """No program started from here on gains powers by its owner or its file's capabilities (prctl(2))."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)


def drop_capabilities() -> None:
    """Keep of root's powers what ordinary programs need; nothing changes for anybody else.

    With no_new_privs, a program executed later cannot have them back (capabilities(7)). Raises OSError.
    """
    capget(_header_at, _data_at)
    for index, half in enumerate(_data):
        kept = (_KEPT >> (32 * index)) & 0xFFFFFFFF
        half.effective &= kept
        half.permitted &= kept
        half.inheritable = 0
    capset(_header_at, _data_at)
    with contextlib.suppress(OSError):  # unknown before Linux 4.3
        prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)


def leave_keyring() -> None:
    """Have a session keyring of one's own: who inherits the service's can read its keys (keyrings(7)).

    Where a user that is not root has as many keys as it may, or the kernel has none, nothing changes.
    """
    try_syscall(_KEYCTL, _JOIN_SESSION_KEYRING, 0, 0, 0)


def hide_memory() -> None:
    """Let no process of the same user read this one's memory, environment or descriptors, or trace it.

    Where that user is not root, its own files in /proc belong to root from here on: most cannot be written.
    """
    with contextlib.suppress(OSError):
        prctl(_PR_SET_DUMPABLE, 0)


def show_memory() -> None:
    """Undo `hide_memory`, in a process that inherited it and holds nothing secret."""
    with contextlib.suppress(OSError):
        prctl(_PR_SET_DUMPABLE, 1)


def be_killed_first(adjustment: int) -> None:
    """When the machine's memory is used up, the kernel takes this process before others (proc(5))."""
    with contextlib.suppress(OSError):
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, b"%d" % adjustment)
        finally:
            os.close(fd)


def limit_resources(*, open_files: int | None, processes: int | None) -> None:
    """No core dumps; `open_files` is a limit the program cannot raise; `processes` counts all of this user's.

    A limit is never raised. `processes` means nothing to root.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for kind, most in ((resource.RLIMIT_NOFILE, open_files), (resource.RLIMIT_NPROC, processes)):
        if most is not None:
            soft, hard = (most if n == resource.RLIM_INFINITY else n for n in resource.getrlimit(kind))
            resource.setrlimit(kind, (min(soft, most), min(hard, most)))

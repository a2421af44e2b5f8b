"""System calls that Python has no function for. Standard library only."""

from __future__ import annotations

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = [ctypes.c_long] * 5
_prctl = _libc.prctl
_prctl.restype = ctypes.c_int
_prctl.argtypes = [ctypes.c_int, *([ctypes.c_ulong] * 4)]
_capget, _capset = _libc.capget, _libc.capset
for _function in (_capget, _capset):
    _function.restype = ctypes.c_int
    _function.argtypes = [ctypes.c_void_p, ctypes.c_void_p]


try_syscall = _syscall
"""Five whole numbers in; below 0 comes out when it was refused."""


def syscall(number: int, first: int = 0, second: int = 0, third: int = 0, fourth: int = 0) -> int:
    """Raises OSError."""
    answer = int(_syscall(number, first, second, third, fourth))
    if answer < 0:
        _raise()
    return answer


def prctl(option: int, first: int = 0, second: int = 0, third: int = 0, fourth: int = 0) -> int:
    """Raises OSError."""
    answer = int(_prctl(option, first, second, third, fourth))
    if answer < 0:
        _raise()
    return answer


def _raise() -> None:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number))


def capget(header: int, data: int) -> None:
    """`header` and `data` are addresses of its structures. Raises OSError."""
    if _capget(header, data) < 0:
        _raise()


def capset(header: int, data: int) -> None:
    """Raises OSError."""
    if _capset(header, data) < 0:
        _raise()

"""Refuses, by seccomp(2), the calls that reach around Landlock and control groups. Standard library only.

A job of the service's own user could with them change the limits of the service and of its own shim, have
its children in another control group, or read the keys of that user: to the kernel, none of it is a matter
of files or signals. Keys of a job's own user would be left to whoever gets the user id next.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from typing import Final

from runner.isolation.syscalls import syscall

_CLONE3: Final = 435  # the same on every architecture
_ALLOW: Final = 0x7FFF0000
_REFUSE: Final = 0x00050000  # and the error's number
_X32: Final = 0x40000000  # x86-64's calls by other numbers

_SET_MODE_FILTER: Final = 1
_SPEC_ALLOW: Final = 1 << 2  # what kernels before 5.16 do else against Spectre makes every program slower

# By machine: seccomp's own number, and for each way in the kernel's mark of it with the numbers of prlimit64
# and of the first of add_key, request_key and keyctl.
_MACHINES: Final[dict[str, tuple[int, dict[int, tuple[int, int]]]]] = {
    "x86_64": (317, {0xC000003E: (302, 248), 0x40000003: (340, 286)}),
    "aarch64": (277, {0xC00000B7: (261, 217), 0x40000028: (369, 309)}),
}

_LOAD, _AND, _EQUAL, _RETURN = 0x20, 0x54, 0x15, 0x06
_AT_CALL, _AT_MARK, _AT_PID, _AT_NEW_LIMIT = 0, 4, 16, 32

_Instruction = tuple[int, int, int, int]


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def is_known_here() -> bool:
    """Whether the numbers of this machine's calls are known; elsewhere nothing is refused."""
    return _program is not None


def stay_inside() -> None:
    """From here on, for this process and all it starts: no limits of other processes, no keys, no clone3(2).

    The C library does without clone3; it is the call that puts a child into another control group. Needs
    no_new_privs. Raises OSError.
    """
    if _program is not None:
        number, _ = _MACHINES[os.uname().machine]
        syscall(number, _SET_MODE_FILTER, _SPEC_ALLOW, ctypes.addressof(_program))


def _instructions(machine: str) -> list[_Instruction]:
    _, ways_in = _MACHINES[machine]
    made: list[_Instruction] = []
    for mark, (prlimit, keys) in ways_in.items():
        of_mark: list[_Instruction] = [
            (_LOAD, 0, 0, _AT_CALL),
            (_AND, 0, 0, 0xFFFFFFFF & ~_X32),
            (_EQUAL, 3, 0, _CLONE3),
            (_EQUAL, 2, 0, keys),
            (_EQUAL, 1, 0, keys + 1),
            (_EQUAL, 0, 1, keys + 2),
            (_RETURN, 0, 0, _REFUSE | errno.ENOSYS),
            (_EQUAL, 0, 7, prlimit),
            (_LOAD, 0, 0, _AT_PID),
            (_EQUAL, 5, 0, 0),  # its own
            (_LOAD, 0, 0, _AT_NEW_LIMIT),
            (_EQUAL, 0, 2, 0),
            (_LOAD, 0, 0, _AT_NEW_LIMIT + 4),
            (_EQUAL, 1, 0, 0),  # only asked about
            (_RETURN, 0, 0, _REFUSE | errno.EPERM),
            (_RETURN, 0, 0, _ALLOW),
        ]
        made += [(_LOAD, 0, 0, _AT_MARK), (_EQUAL, 0, len(of_mark), mark), *of_mark]
    return [*made, (_RETURN, 0, 0, _ALLOW)]


def _packed(machine: str) -> _Program | None:
    if machine not in _MACHINES or sys.byteorder != "little":
        return None
    each = _instructions(machine)
    return _Program(len(each), b"".join(struct.pack("=HBBI", *one) for one in each))


_program = _packed(os.uname().machine)

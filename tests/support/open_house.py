"""Run a command where every user can reach this Python and this source tree, as on an ordinary installation.

`python -m tests.support.open_house [--without-landlock] COMMAND…`, for root, or a process enters it itself
(`enter`) and goes on: in a mount namespace of its own,
folders that are closed to others on the way to what is needed (a home of root's) are covered by empty open
ones, in which what is needed is mounted again. Nothing outside of the command sees any of it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

WITHOUT_LANDLOCK = "--without-landlock"
ROOT = Path(__file__).parents[2]
_CLONE_NEWNS = 0x00020000
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_MS_BIND, _MS_REC, _MS_PRIVATE = 4096, 16384, 1 << 18

_libc = ctypes.CDLL(None, use_errno=True)


def needed() -> list[Path]:
    return [Path(sys.base_prefix), Path(sys.prefix), ROOT]


def closed_above(path: Path) -> Path | None:
    """The highest folder on the way that others may not search."""
    for folder in reversed(path.parents):
        if not folder.stat().st_mode & 0o001:
            return folder
    return None


def _mount(source: str, target: Path, kind: str | None, flags: int, options: str | None = None) -> None:
    encoded = [text.encode() if text is not None else None for text in (source, str(target), kind)]
    data = options.encode() if options is not None else None
    if _libc.mount(*encoded, ctypes.c_ulong(flags), data) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))


def open_up() -> None:
    """Raises OSError."""
    if _libc.unshare(_CLONE_NEWNS) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "unshare")
    _mount("none", Path("/"), None, _MS_REC | _MS_PRIVATE)
    covered: dict[Path, list[Path]] = {}
    for path in needed():
        if (folder := closed_above(path)) is not None:
            covered.setdefault(folder, []).append(path)
    for folder, paths in covered.items():
        shelf = Path(tempfile.mkdtemp())
        _mount("tmpfs", shelf, "tmpfs", 0)
        for number, path in enumerate(paths):
            (shelf / str(number)).mkdir()
            _mount(str(path), shelf / str(number), None, _MS_BIND | _MS_REC)
        _mount("tmpfs", folder, "tmpfs", 0, "mode=755")
        for number, path in enumerate(paths):
            path.mkdir(parents=True, exist_ok=True)
            _mount(str(shelf / str(number)), path, None, _MS_BIND | _MS_REC)
        _libc.umount2(str(shelf).encode(), 2)  # lazily: what is mounted from it stays
        shelf.rmdir()


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def take_landlock_away() -> None:
    """As in a kernel without it: its system calls, 444 to 446, are answered ENOSYS. Raises OSError."""
    load_number, at_least, more_than, answer = 0x20, 0x35, 0x25, 0x06
    refused, allowed = 0x00050000 | errno.ENOSYS, 0x7FFF0000
    instructions = [
        (load_number, 0, 0, 0),
        (at_least, 0, 2, 444),
        (more_than, 1, 0, 446),
        (answer, 0, 0, refused),
        (answer, 0, 0, allowed),
    ]
    program = _Program(len(instructions), b"".join(struct.pack("HBBI", *each) for each in instructions))
    if _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "seccomp")


def enter(arguments: Sequence[str]) -> None:
    """Nothing, or `--without-landlock`. Raises OSError."""
    open_up()
    if WITHOUT_LANDLOCK in arguments:
        take_landlock_away()
    os.chdir(ROOT)


if __name__ == "__main__":
    first = 2 if sys.argv[1] == WITHOUT_LANDLOCK else 1
    enter(sys.argv[1:first])
    os.execv(sys.argv[first], sys.argv[first:])

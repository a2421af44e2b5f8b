"""Removes what a user's processes leave in memory: it outlives them. As root; standard library only.

That is files in /dev/shm, where POSIX keeps shared memory and semaphores, and System V's shared memory,
semaphores and message queues (sysvipc(7)). Whoever gets the user id next could read it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import TYPE_CHECKING, Final

from runner import job_tree

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER: Final = "/dev/shm"  # noqa: S108 - jobs may write there
_FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_REMOVE: Final = 0  # IPC_RMID

_libc = ctypes.CDLL(None, use_errno=True)
_KINDS: Final[dict[str, tuple[bytes, Callable[[int], object]]]] = {
    "shm": (b"shmid", lambda number: _libc.shmctl(number, _REMOVE, None)),
    "sem": (b"semid", lambda number: _libc.semctl(number, 0, _REMOVE)),
    "msg": (b"msqid", lambda number: _libc.msgctl(number, _REMOVE, None)),
}


def clear(uid: int) -> None:
    """Remove all that is `uid`'s; called when none of its processes is left. Raises OSError."""
    _clear_files(uid)
    found = [
        (remove, number)
        for kind, (column, remove) in _KINDS.items()
        for number in _numbers(kind, column, uid)
    ]
    if not found:
        return
    os.seteuid(uid)  # an owner may, and root may not in every container
    try:
        for remove, number in found:
            remove(number)
    finally:
        os.seteuid(0)


def _clear_files(uid: int) -> None:
    try:
        fd = os.open(FOLDER, _FOLDER_FLAGS)
    except FileNotFoundError:
        return
    try:
        for name in os.listdir(fd):
            with contextlib.suppress(FileNotFoundError):
                if os.stat(name, dir_fd=fd, follow_symlinks=False).st_uid == uid:
                    job_tree.remove(fd, name, _go_on)
    finally:
        os.close(fd)


def _numbers(kind: str, column: bytes, uid: int) -> list[int]:
    """Of the objects that the user has made or was given (proc_sysvipc(5)); none where there are none."""
    try:
        with open(f"/proc/sysvipc/{kind}", "rb") as file:
            names, *lines = [line.split() for line in file]
    except (OSError, ValueError):
        return []
    rows = (dict(zip(names, line, strict=False)) for line in lines)
    whose = b"%d" % uid
    return [int(row[column]) for row in rows if whose in (row[b"uid"], row[b"cuid"])]


def _go_on() -> None:
    """Nobody waits meanwhile."""

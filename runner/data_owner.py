"""Whose the data directory is where the service is started as root, and is root no more.

All in it becomes the service's user's at the first such start; a mark of root's says so, because looking at
every file at each start would take long. A service that stays root takes the mark away.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING, Final

from runner.errors import DataDirUnusable
from runner.isolation import ownership

if TYPE_CHECKING:
    from pathlib import Path

    from runner.isolation.job_users import JobUsers

_MARK: Final = "owner"
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def hand_over(data_dir: Path, users: JobUsers) -> None:
    """Give it to the service's user; jobs' users may search it. Never through a link. As root.

    Raises DataDirUnusable.
    """
    real = os.path.realpath(data_dir)
    try:
        if is_handed_over(real, users.service_uid):
            _give_entries(real, users)
        else:
            before = {owner for owner in (os.stat(real).st_uid, _marked(real)) if owner is not None}
            _give_all(real, users, {0} | before)
            _note(real, users.service_uid)
        for folder in (real, f"{real}/jobs"):
            fd = os.open(folder, _FOLDER)
            try:
                os.fchmod(fd, stat.S_IMODE(os.fstat(fd).st_mode) | 0o001)
            finally:
                os.close(fd)
    except OSError as error:
        raise DataDirUnusable(
            f"The data directory {data_dir} cannot be handed to user {users.service_uid} "
            f"({error.filename}: {error.strerror})."
        ) from error


def is_handed_over(data_dir: str, uid: int) -> bool:
    return _marked(data_dir) == uid


def _marked(data_dir: str) -> int | None:
    """Whose root has marked it to be."""
    try:
        fd = os.open(f"{data_dir}/{_MARK}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        text = os.read(fd, 16)
        return int(text) if os.fstat(fd).st_uid == 0 and text.strip().isdigit() else None
    finally:
        os.close(fd)


def stay_root(data_dir: Path) -> None:
    """A service that stays root leaves files of root's behind: note that, for one that does not."""
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):
            os.unlink(data_dir / _MARK)


def _give_entry(fd: int, folder: str, name: str, users: JobUsers, owners: set[int]) -> None:
    if os.path.ismount(f"{folder}/{name}"):
        _give_all(f"{folder}/{name}", users, owners)
    elif name != _MARK:
        uid, gid = users.service_uid, users.service_gid
        ownership.give(fd, name, owners=owners, uid=uid, gid=gid, links=False)


def _give_all(folder: str, users: JobUsers, owners: set[int]) -> None:
    """What is these owners': the folder itself last of all.

    It may be the top of a mounted file system, and so may folders right in it.
    """
    fd = os.open(folder, _FOLDER)
    try:
        for name in os.listdir(fd):
            _give_entry(fd, folder, name, users, owners)
        if os.fstat(fd).st_uid in owners:
            os.fchown(fd, users.service_uid, users.service_gid)
    finally:
        os.close(fd)


def _give_entries(real: str, users: JobUsers) -> None:
    """What commands that root has called since have made; of jobs there is nothing among it."""
    fd = os.open(real, _FOLDER)
    try:
        for name in os.listdir(fd):
            if os.stat(name, dir_fd=fd, follow_symlinks=False).st_uid == 0:
                _give_entry(fd, real, name, users, {0})
    finally:
        os.close(fd)


def _note(data_dir: str, uid: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{data_dir}/{_MARK}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    fd = os.open(f"{data_dir}/{_MARK}", flags, 0o644)
    try:
        os.write(fd, b"%d\n" % uid)
    finally:
        os.close(fd)

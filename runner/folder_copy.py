"""Copies a workflow's folder as it stands; used by the shim as well: standard library only."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LEFT_OUT = (".git", ".snakemake", "__pycache__")
_FICLONE = 0x40049409  # ioctl_ficlone(2)
_WORTH_SHARING_BYTES = 65536
_PIECE_BYTES = 64 * 2**20  # between two pieces a stop is heard


def folders_around(place: str) -> set[tuple[int, int]]:
    """The folders that `place` is in, by device and inode: a copy to there may not go into them.

    The data directory may be inside the workflow's folder.
    """
    found = set()
    while (parent := os.path.dirname(place)) != place:
        about = os.stat(parent)
        found.add((about.st_dev, about.st_ino))
        place = parent
    return found


def entries(folder: str) -> list[os.DirEntry[str]]:
    """All at once: a folder kept open while those below it are copied would cost a descriptor each."""
    with os.scandir(folder) as found:
        return list(found)


def belongs(entry: os.DirEntry[str], around: set[tuple[int, int]]) -> bool:
    """Whether a folder is part of the workflow: not version control's, not an earlier run's, not `around`."""
    about = entry.stat()
    return entry.name not in LEFT_OUT and (about.st_dev, about.st_ino) not in around


def walk(folder: str, around: set[tuple[int, int]], path: str = "") -> Iterator[tuple[str, os.DirEntry[str]]]:
    """What a copy has: every file, link and folder by its path below the folder. Raises OSError."""
    for entry in entries(folder):
        below = f"{path}{entry.name}"
        if entry.is_symlink() or entry.is_file():
            yield below, entry
        elif entry.is_dir() and belongs(entry, around):
            yield below, entry
            yield from walk(entry.path, around, below + "/")


def copy_tree(source: str, target: str, go_on: Callable[[], None], around: set[tuple[int, int]]) -> None:
    """Copy a folder without what belongs to version control or earlier runs; links stay links, modes stay."""
    go_on()
    os.mkdir(target)
    for entry in entries(source):
        place = os.path.join(target, entry.name)
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), place)
        elif entry.is_dir():
            if belongs(entry, around):
                copy_tree(entry.path, place, go_on, around)
        elif entry.is_file():
            copy_file(entry.path, place, go_on)
            go_on()


def copy_file(source: str, target: str, go_on: Callable[[], None]) -> None:
    """Share the blocks where the file system can (ioctl_ficlone(2)), else let the kernel copy."""
    fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        about = os.fstat(fd)
        out = os.open(
            target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, about.st_mode & 0o777 | 0o600
        )
        try:
            if about.st_size > _WORTH_SHARING_BYTES:
                try:
                    fcntl.ioctl(out, _FICLONE, fd)
                except OSError:
                    _copy_bytes(fd, out, go_on)
            else:
                _copy_bytes(fd, out, go_on)
            os.utime(out, ns=(about.st_atime_ns, about.st_mtime_ns))
        finally:
            os.close(out)
    finally:
        os.close(fd)


def _copy_bytes(source: int, target: int, go_on: Callable[[], None]) -> None:
    try:
        while os.copy_file_range(source, target, _PIECE_BYTES):
            go_on()
        return
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    while chunk := os.read(source, 2**20):
        view = memoryview(chunk)
        while view:
            view = view[os.write(target, view) :]
        go_on()

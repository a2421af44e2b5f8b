"""Makes a job's working directory from its workflow's folder; used by the shim: standard library only."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_LEFT_OUT = (".git", ".snakemake", "__pycache__")
_FICLONE = 0x40049409  # ioctl_ficlone(2)
_WORTH_SHARING_BYTES = 65536
_PIECE_BYTES = 64 * 2**20  # between two pieces a stop is heard


def make(work_dir: str, source: str | None, go_on: Callable[[], None]) -> None:
    """The working directory, with `source` copied into it; when it is there already, it is only completed.

    Copied beside it and renamed, so that a copy cut short is not taken for whole. It is not synced: a
    power cut may leave files of the copy empty or short, and the next attempt copies those again. `go_on`
    is called between files and stops the copy by raising. What was copied until then is removed. Raises
    OSError.
    """
    if os.path.isdir(work_dir):
        if source is not None:
            _complete(source, work_dir, go_on, _around(work_dir))
        return
    fresh = work_dir + ".new"
    if os.path.lexists(fresh):  # an earlier attempt was cut short
        _remove(fresh)
    try:
        if source is None:
            os.mkdir(fresh)
        else:
            _copy_tree(source, fresh, go_on, _around(work_dir))
        os.rename(fresh, work_dir)
    except BaseException:
        with contextlib.suppress(OSError):
            _remove(fresh)  # on a full disk, others need the room
        raise


def _remove(tree: str) -> None:
    import shutil  # noqa: PLC0415 - rare, and its imports would make every fork dearer

    shutil.rmtree(tree)


def _around(work_dir: str) -> set[tuple[int, int]]:
    """The folders the working directory is in, by device and inode: a copy may not go into them.

    The data directory may be inside the workflow's folder.
    """
    found = set()
    while (parent := os.path.dirname(work_dir)) != work_dir:
        about = os.stat(parent)
        found.add((about.st_dev, about.st_ino))
        work_dir = parent
    return found


def _complete(source: str, target: str, go_on: Callable[[], None], around: set[tuple[int, int]]) -> None:
    """Copy again what a power cut has cut short: files with the source's time and less than its content.

    The time of a copy is set when its content is, and only the content may not have reached the disk. A
    file that the job has written itself has another time.
    """
    go_on()
    try:
        entries = _entries(source)
    except OSError:
        return  # the workflow is gone: what was copied of it stays as it is
    for entry in entries:
        place = os.path.join(target, entry.name)
        if entry.is_symlink() or not os.path.lexists(place) or os.path.islink(place):
            continue
        about = entry.stat()
        if entry.is_dir():
            if entry.name not in _LEFT_OUT and (about.st_dev, about.st_ino) not in around:
                _complete(entry.path, place, go_on, around)
        elif entry.is_file():
            copied = os.lstat(place)
            if copied.st_mtime_ns == about.st_mtime_ns and copied.st_size < about.st_size:
                os.unlink(place)
                _copy_file(entry.path, place, go_on)
                go_on()


def _copy_tree(source: str, target: str, go_on: Callable[[], None], around: set[tuple[int, int]]) -> None:
    """Copy a folder without what belongs to version control or earlier runs; links stay links, modes stay."""
    go_on()
    os.mkdir(target)
    for entry in _entries(source):
        place = os.path.join(target, entry.name)
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), place)
        elif entry.is_dir():
            about = entry.stat()
            if entry.name not in _LEFT_OUT and (about.st_dev, about.st_ino) not in around:
                _copy_tree(entry.path, place, go_on, around)
        elif entry.is_file():
            _copy_file(entry.path, place, go_on)
            go_on()


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """All at once: a folder kept open while those below it are copied would cost a descriptor each."""
    with os.scandir(folder) as entries:
        return list(entries)


def _copy_file(source: str, target: str, go_on: Callable[[], None]) -> None:
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

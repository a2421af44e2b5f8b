"""What a shim leaves for ever in its attempt: that it started, and how it ended. Standard library only."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from typing import TYPE_CHECKING

from runner.disk_trouble import FULL, PASSING

if TYPE_CHECKING:
    from runner.attempt_files import AttemptFiles

RECORD_BYTES = 4096
RETRY_S = 1.0

_HEALING = PASSING | {errno.EIO, errno.ESTALE, errno.ETIMEDOUT}


def mark_started(files: AttemptFiles) -> bool:
    """Claim the attempt for ever: false when it was claimed before.

    Not durable before `sync_directory`. Raises OSError.
    """
    try:
        fd = os.open(files.started, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return False
    os.close(fd)
    return True


def reserve_record(files: AttemptFiles) -> int:
    """The temporary exit record with its space allocated: a disk that fills up cannot lose the result.

    Raises OSError when there is no room for it.
    """
    fd = _open_temporary(files)
    try:
        os.posix_fallocate(fd, 0, RECORD_BYTES)
    except OSError as error:  # not every file system can; writing is then tried all the same
        if error.errno in FULL:
            raise
    return fd


def write_record(files: AttemptFiles, fd: int, content: bytes) -> None:
    """Durable and all at once: content, fsync, rename, fsync of the directory.

    Tried every `RETRY_S` for as long as the file system is read-only, full or failing, without end: the
    attempt's lock is held meanwhile, so it counts as running, and its result is kept for the moment the
    file system heals. Giving up would lose it. Raises OSError when the attempt's directory is gone, or
    something stands in the record's place.
    """
    while True:
        try:
            if not _is_at(fd, _temporary(files)):  # removed by the job, or another file system is there now
                fresh = _open_temporary(files)
                os.close(fd)
                fd = fresh
            _publish(files, fd, content)
            break
        except OSError as error:
            if error.errno not in _HEALING:
                raise
        time.sleep(RETRY_S)  # noqa: TID251 - no descriptor tells that a file system has healed
    os.close(fd)


def _publish(files: AttemptFiles, fd: int, content: bytes) -> None:
    """Write, sync and rename.

    A failed fsync is asked again after writing again: the kernel forgets what it could not write and
    would answer a second one with success (fsync(2)). Failing twice, the record is published all the
    same: it can be read, and the service stores what it reads in a way of its own. Withheld it would be
    lost for certain; published it is lost only to a power cut that beats the store as well.
    """
    _write(fd, content)
    try:
        os.fsync(fd)
    except OSError:
        _write(fd, content)
        with contextlib.suppress(OSError):
            os.fsync(fd)
    os.rename(_temporary(files), files.exit)
    try:
        sync_directory(files.directory)
    except OSError:
        with contextlib.suppress(OSError):
            sync_directory(files.directory)


def _write(fd: int, content: bytes) -> None:
    if os.pwrite(fd, content, 0) != len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.ftruncate(fd, len(content))


def _is_at(fd: int, path: str) -> bool:
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(fd), there)


def _temporary(files: AttemptFiles) -> str:
    return files.exit + ".tmp"


def _open_temporary(files: AttemptFiles) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    return os.open(_temporary(files), flags, 0o600)


def sync_directory(path: str) -> None:
    """What was made, renamed or removed in it outlives a power cut. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

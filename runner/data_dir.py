"""The data directory and whose it is."""

from __future__ import annotations

import fcntl
import os
import struct
from typing import TYPE_CHECKING

from runner.errors import DataDirUnusable
from runner.new_files import as_the_folders

if TYPE_CHECKING:
    from pathlib import Path

# struct flock of fcntl(2) on 64-bit Linux: l_type, l_whence, l_start, l_len, l_pid.
_FLOCK = struct.Struct("@hhqqi4x")
_WHOLE_FILE = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)


class DataDir:
    """A data directory held by this service alone until `close`.

    The lock belongs to an open file description, so the kernel frees it when its holder dies and none
    is ever stale; and it can be asked about without being taken (F_OFD_GETLK, fcntl(2)).
    """

    def __init__(self, path: Path) -> None:
        """Make the directory if need be and take it. Raises DataDirUnusable."""
        make(path)
        try:
            self._fd = _open_lock(path / "lock")
        except OSError as error:
            raise _unusable(path, error) from error
        try:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _WHOLE_FILE)
        except (BlockingIOError, PermissionError):
            os.close(self._fd)
            raise DataDirUnusable(
                f"The data directory {path} is in use by another service: "
                "stop it, or set SNAKELINE_DATA_DIR to another."
            ) from None

    def close(self) -> None:
        os.close(self._fd)


def _open_lock(path: Path) -> int:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        as_the_folders(fd, path)
    except OSError:
        os.close(fd)
        raise
    return fd


def make(path: Path) -> None:
    """Make it and its folder for jobs, if they are not there. Raises DataDirUnusable."""
    try:
        os.makedirs(path.parent, exist_ok=True)
        _make_private(path)
        if _make_private(path / "jobs"):
            fd = os.open(path / "jobs", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                as_the_folders(fd, path / "jobs")
            finally:
                os.close(fd)
    except OSError as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: OSError) -> DataDirUnusable:
    return DataDirUnusable(
        f"The data directory {path} cannot be used ({error.strerror}): "
        "set SNAKELINE_DATA_DIR to one you may write."
    )


def _make_private(directory: Path) -> bool:
    """Make it for this user alone, whatever the umask; what was there is left as it is, and False is said."""
    try:
        os.mkdir(directory, 0o700)
    except FileExistsError:
        if not os.path.isdir(directory):
            raise
        return False
    os.chmod(directory, 0o700)  # the umask may have taken even from the owner
    return True


def is_in_use(path: Path) -> bool:
    """Whether a service holds the directory now; nothing is made, taken or changed."""
    try:
        fd = os.open(path / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        kind = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _WHOLE_FILE))[0]
    finally:
        os.close(fd)
    return bool(kind != fcntl.F_UNLCK)


def has_jobs(path: Path) -> bool:
    """Whether files of jobs are there. Raises OSError when that cannot be seen."""
    try:
        with os.scandir(path / "jobs") as entries:
            return next(entries, None) is not None
    except FileNotFoundError:
        return False

"""Files that were not there before, written whole."""

from __future__ import annotations

import os
from typing import IO


def new_file(place: str, *, is_executable: bool = False) -> IO[bytes]:
    """A file that was not there, for `write_all`. Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return open(os.open(place, flags, 0o700 if is_executable else 0o600), "wb", buffering=0)


def as_the_folders(fd: int, path: str | os.PathLike[str]) -> None:
    """What root has just made at `path` becomes the property of whose folder it is in.

    As SQLite does with a store's log: root repairs and restores for a service that is somebody else. Only
    for what this process has made: a link in its place would give away another file. Raises OSError.
    """
    if os.geteuid() == 0:
        there = os.stat(os.path.dirname(os.path.abspath(path)))
        os.fchown(fd, there.st_uid, there.st_gid)


def write_all(file: IO[bytes], data: bytes) -> None:
    """A write alone may take less than all of it. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]

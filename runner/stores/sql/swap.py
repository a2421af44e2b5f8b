"""One store in another's place, so that no crash leaves a mixture of the two."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from runner.new_files import as_the_folders
from runner.stores.sql.sqlite import incoming

_LOGS: Final = ("-wal", "-journal")


def install(store: str, *, why: str) -> str | None:
    """Make the file at `incoming(store)` the store, durably; the answer is where the one before is kept.

    Only for the holder of the data directory. At no moment is a store without its log in place, nor a
    log beside a store that it does not belong to: SQLite would take the one for complete and write the
    other into it. After a crash either the old store is there, or the new one, or none: a service then
    does not start. Raises OSError.
    """
    new = incoming(store)
    sync(new)
    kept = _set_aside(store, why)
    os.rename(new, store)
    sync_directory_of(store)
    return kept


def _set_aside(store: str, why: str) -> str | None:
    """Store and log get one new name, so that both can still be opened together."""
    kept = f"{store}.{why}-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    for suffix in _LOGS:
        if not os.path.lexists(store + suffix) or os.lstat(store + suffix).st_size == 0:
            continue
        make_empty(kept + suffix)
        shutil.copyfile(store + suffix, kept + suffix, follow_symlinks=False)
        sync(kept + suffix)
    was_there = os.path.lexists(store)
    if was_there:
        os.rename(store, kept)
    sync_directory_of(store)
    for suffix in (*_LOGS, "-shm"):
        remove(store + suffix)
    sync_directory_of(store)
    return kept if was_there else None


def make_empty(path: str) -> None:
    """An empty file for its folder's owner alone, in place of what an interrupted attempt may have left."""
    clear(path)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        as_the_folders(fd, path)
    finally:
        os.close(fd)


def clear(path: str) -> None:
    """Remove a copy that never became a store, with what SQLite may have left beside it."""
    for suffix in (*_LOGS, "-shm", ""):
        remove(path + suffix)


def discard(path: str) -> None:
    """As `clear`; where that fails, the next `make_empty` will say so."""
    with suppress(OSError):
        clear(path)


def remove(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


def sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_directory_of(path: str | os.PathLike[str]) -> None:
    """Make the names in the directory of `path` durable."""
    sync(os.path.dirname(os.path.abspath(path)))

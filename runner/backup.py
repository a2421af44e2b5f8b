"""Backups of the store: one file, taken while the service runs and put back while it does not."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runner.data_dir import DataDir
from runner.errors import StorageFull, StoreUnavailable
from runner.side_files import own_folders
from runner.stores.sql import snapshot, sqlite, swap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.settings import RunnerSettings
    from runner.stores.sql.snapshot import Contents


class BackupRefused(Exception):
    """Nothing was copied or put back; the text is one line that says why."""


@dataclass(frozen=True, slots=True)
class Backup:
    file: Path
    size_bytes: int
    contents: Contents


@dataclass(frozen=True, slots=True)
class Restored:
    """`kept` is where the store of before is now, if there was one.

    `unknown` counts the jobs' directories that the backup knows nothing of; they stay where they are.
    """

    contents: Contents
    store: Path
    kept: str | None
    unknown: int


def back_up(settings: RunnerSettings, file: Path, *, force: bool = False) -> Backup:
    """Copy the store to `file` as it is at one moment, whether or not a service writes to it.

    The copy is checked before it gets its name, and durable afterwards. An existing `file` is replaced
    only with `force`. Raises BackupRefused, StoreUnavailable.
    """
    store = store_of(settings, "back up")
    if not os.path.exists(store):
        raise BackupRefused(f"There is no store at {store} yet.")
    if os.path.exists(file) and os.path.samefile(file, store):
        raise BackupRefused(f"{file} is the store itself: choose another file.")
    _require_free(file, force=force)
    with _partial_beside(file) as partial:
        try:
            snapshot.copy(store, partial, at_rest=False)
            swap.sync(partial)
        except (sqlite3.Error, OSError) as error:
            raise _not_copied(error, store, file) from error
        try:
            contents = snapshot.examine(partial)
        except StoreUnavailable as error:
            raise BackupRefused(str(error).replace(partial, f"The store {store}")) from error
        _require_free(file, force=force)
        size_bytes = os.path.getsize(partial)
        try:
            os.rename(partial, file)
        except OSError as error:
            raise BackupRefused(f"{file} cannot be written: {error.strerror}.") from error
    swap.sync_directory_of(file)
    return Backup(file, size_bytes, contents)


def restore(settings: RunnerSettings, file: Path) -> Restored:
    """Put a backup in the store's place, for the next service to start with.

    What was there is kept beside it under another name. Cut short at any moment, either the old store is
    in its place, or none: a service then refuses to start until this is repeated.

    Raises BackupRefused, StoreUnavailable, DataDirUnusable when a service runs.
    """
    store = store_of(settings, "restore")
    if not os.path.isfile(file):
        raise BackupRefused(f"There is no backup {file}.")
    if os.path.exists(store) and os.path.samefile(file, store):
        raise BackupRefused(f"{file} is the store itself: choose a backup.")
    with closing(DataDir(settings.data_dir)):
        incoming = sqlite.incoming(store)
        try:
            swap.make_empty(incoming)
            snapshot.copy(os.fspath(file), incoming, at_rest=True)
            contents = snapshot.examine(incoming)
            snapshot.skip_numbers(incoming)
            kept = swap.install(store, why="before-restore")
        except (sqlite3.Error, OSError) as error:
            swap.discard(incoming)
            if sqlite.is_damage(error):
                raise BackupRefused(f"{file} is damaged, or is not a store.") from error
            raise _not_copied(error, os.fspath(file), Path(store)) from error
        except StoreUnavailable as error:
            swap.discard(incoming)
            raise BackupRefused(str(error).replace(incoming, os.fspath(file))) from error
        return Restored(contents, Path(store), kept, _unknown(settings, store))


def store_of(settings: RunnerSettings, what: str) -> str:
    """The file that the store is in, behind every link. Raises BackupRefused, StoreUnavailable."""
    url = settings.database_url
    if url.startswith("memory:"):
        raise BackupRefused(f"There is nothing to {what}: SNAKELINE_DATABASE_URL is memory://.")
    if not url.startswith("sqlite"):
        raise BackupRefused(f"This database is not ours to {what}: use its own tools, such as pg_dump.")
    # The log lies beside the file itself, wherever a link to it may be.
    return os.path.realpath(sqlite.path_of(url))


def _require_free(file: Path, *, force: bool) -> None:
    if os.path.isdir(file):
        raise BackupRefused(f"{file} is a directory: name a file.")
    if os.path.lexists(file) and not force:
        raise BackupRefused(f"{file} exists: choose another file, or replace it with --force.")


@contextmanager
def _partial_beside(file: Path) -> Iterator[str]:
    """An empty file in `file`'s directory, removed at the end unless it was given another name."""
    try:
        fd, path = tempfile.mkstemp(dir=file.absolute().parent, prefix=f".{file.name}.", suffix=".partial")
    except OSError as error:
        raise BackupRefused(f"{file} cannot be written: {error.strerror}.") from error
    try:
        os.fchmod(fd, 0o600)
        os.close(fd)
        yield path
    finally:
        swap.discard(path)


def _not_copied(error: Exception, source: str, target: Path) -> BackupRefused:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if isinstance(error, OSError) or code == sqlite3.SQLITE_FULL:
        reason = getattr(error, "strerror", None) or "there is no space left"
        return BackupRefused(f"{target} cannot be written: {reason}.")
    meant = sqlite.meaning(error, source)
    if isinstance(meant, StorageFull):
        return BackupRefused(f"{target} cannot be written: there is no space left.")
    return BackupRefused(str(meant))


def _unknown(settings: RunnerSettings, store: str) -> int:
    known = snapshot.job_ids(store) | own_folders(settings.data_dir)
    return sum(name not in known for name in _job_directories(settings.data_dir))


def _job_directories(data_dir: Path) -> Iterator[str]:
    with suppress(FileNotFoundError), os.scandir(data_dir / "jobs") as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield entry.name

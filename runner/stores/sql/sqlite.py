"""SQLite: how it is opened, how its SQL is spelt, and what its errors mean."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing, contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import QueuePool

from runner.errors import RunnerError, StorageFull, StoreUnavailable
from runner.new_files import as_the_folders

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine.interfaces import Dialect

_READERS: Final = 4
_BUSY_TIMEOUT_S: Final = 5.0
_READER_TIMEOUT_S: Final = 10.0
_APPLICATION_ID: Final = 0x534E4B4C  # "SNKL": tells a store of ours from any other SQLite file
_PRAGMAS: Final = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA cache_size = -16384",
    "PRAGMA secure_delete = OFF",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA journal_size_limit = 67108864",
)
_READER_PRAGMAS: Final = (
    "PRAGMA query_only = ON",
    "PRAGMA cache_size = -16384",
    "PRAGMA temp_store = MEMORY",
)
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
REMEDY: Final = "stop the service, then `snakeline restore FILE` or `snakeline check --repair`"


class _Compiler(SQLiteCompiler):
    def get_from_hint_text(self, table: Any, text: str | None) -> str | None:  # noqa: ARG002 - SQLAlchemy's hook
        return text

    def limit_clause(self, select: Any, **arguments: Any) -> str:
        # SQLAlchemy adds OFFSET with a parameter of its own, which would have to be carried along.
        return f" LIMIT {self.process(select._limit_clause, **arguments)}"  # noqa: SLF001 - as in its dialects


class _Dialect(SQLiteDialect_pysqlite):
    statement_compiler = _Compiler


@cache
def dialect() -> Dialect:
    """The dialect to compile for: named parameters, and INDEXED BY from hints."""
    return _Dialect(paramstyle="named")


class SqliteFile:
    """One database file: a connection for the writer and a few for readers."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self._readers = sa.create_engine(
            "sqlite://",
            creator=self._connect_reader,
            poolclass=QueuePool,
            hide_parameters=True,
            pool_size=_READERS,
            max_overflow=0,
            pool_timeout=_READER_TIMEOUT_S,
        )

    def open(self, *, create: bool = False) -> sqlite3.Connection:
        """A connection that has changed nothing of the file yet, for looking whose it is.

        Only with `create` may the file be missing: one that was removed under a running service must
        not come back empty. Made, it is its owner's alone; SQLite gives -wal and -shm the same mode.
        """
        if create:
            self._make()
        return sqlite3.connect(
            f"file:{quote(self.path)}?mode={'rwc' if create else 'rw'}",
            uri=True,
            timeout=_BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )

    def _make(self) -> None:
        # SQLite itself would leave the mode to the umask. What cannot be made, it explains better.
        with suppress(OSError):
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.fchmod(fd, 0o600)
                as_the_folders(fd, self.path)
            finally:
                os.close(fd)

    def connect(self) -> sqlite3.Connection:
        """A connection that may write and begins no transaction of its own accord, for any thread."""
        return self._prepared(_PRAGMAS)

    def _connect_reader(self) -> sqlite3.Connection:
        return self._prepared(_READER_PRAGMAS)

    def _prepared(self, pragmas: tuple[str, ...]) -> sqlite3.Connection:
        connection = self.open()
        try:
            for pragma in pragmas:
                _set(connection, pragma)
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A reader's connection. Raises StoreUnavailable for every trouble of the database."""
        try:
            pooled = self._readers.raw_connection()
            try:
                connection: Any = pooled.driver_connection
                yield connection
            finally:
                pooled.close()
        except (sqlite3.Error, SQLAlchemyError) as error:
            raise meaning(error, self.path) from error

    def require_whole(self) -> None:
        """Read every page anew: 2 s for a million jobs. Raises StoreUnavailable."""
        try:
            with closing(self._connect_reader()) as connection:
                [found] = connection.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.Error as error:
            raise meaning(error, self.path) from error
        if found != "ok":
            raise damaged(self.path)

    def identity(self) -> tuple[int, int] | None:
        """Which file has this path now; None when there is none."""
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def close_readers(self) -> None:
        self._readers.dispose()

    def sync_directory(self) -> None:
        """Make the file's own entry in its directory durable."""
        fd = os.open(os.path.dirname(self.path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _set(connection: sqlite3.Connection, pragma: str) -> None:
    """Run it; while another process opens the fresh file as well, again and again for a while.

    The change to a write-ahead log does not wait for others by itself: two that both want it would for ever.
    """
    deadline = time.monotonic() + _BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute(pragma)
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.005)  # noqa: TID251 - nothing tells that the other one is done


def meaning(error: Exception, path: str) -> RunnerError:
    """What a failure of the driver means for the caller: StorageFull or StoreUnavailable, in one line."""
    if isinstance(error, RunnerError):
        return error
    code = _code(error)
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and _is_full(path)):
        return StorageFull(f"There is no space left for the store {path}.")
    if code in _DAMAGED:
        return damaged(path)
    text = " ".join(str(error).split())
    return StoreUnavailable(f"The store {path} cannot be used now: {text}.")


def _code(error: BaseException | None) -> int:
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF


def damaged(path: str) -> StoreUnavailable:
    return StoreUnavailable(f"The store {path} is damaged or is not a database: {REMEDY}.")


def is_damage(error: BaseException | None) -> bool:
    """Whether the file's content is at fault."""
    return _code(error) in _DAMAGED


def is_of_content(error: Exception) -> bool:
    """Whether a table, a column or a text is not what it should be."""
    return _code(error) in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISMATCH, 0)


def _is_full(path: str) -> bool:
    try:
        return os.statvfs(os.path.dirname(path)).f_bavail == 0
    except OSError:
        return False


def is_of_the_database(error: Exception) -> bool:
    """Whether the trouble lies with the database or its disk, and not with what it was asked to do."""
    # NOTADB and CORRUPT come as plain DatabaseError.
    return (
        isinstance(error, sqlite3.OperationalError | sqlite3.InternalError)
        or type(error) is sqlite3.DatabaseError
    )


def claim(connection: sqlite3.Connection) -> None:
    """Mark a fresh file as ours."""
    connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")


def is_fresh(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM sqlite_master").fetchone() is None


def is_ours(connection: sqlite3.Connection) -> bool:
    found: int = connection.execute("PRAGMA application_id").fetchone()[0]
    return found == _APPLICATION_ID


def incoming(path: str) -> str:
    """Where a restore puts the copy that will take the place of the store at `path`."""
    return f"{path}.restoring"


def path_of(url: str) -> str:
    """The file that a database URL names. Raises StoreUnavailable, without telling the URL's secrets."""
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError:
        raise StoreUnavailable("The database URL cannot be read: write sqlite:////absolute/path.") from None
    if parsed.drivername not in ("sqlite", "sqlite+pysqlite"):
        raise StoreUnavailable(
            f"{parsed.drivername} is not a database this version can use: write sqlite:////absolute/path."
        )
    if parsed.database in (None, "", ":memory:"):
        raise StoreUnavailable("A store needs a file: write sqlite:////absolute/path, or memory://.")
    assert parsed.database is not None  # seen above
    return parsed.database


def cannot_open(error: Exception, path: str) -> StoreUnavailable:
    """Why the store could not be opened and what to do, in one line."""
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        return StoreUnavailable(f"The store {path} cannot be opened: there is no directory {directory}.")
    if _code(error) in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return StoreUnavailable(f"The store {path} cannot be opened: make the file and {directory} writable.")
    return StoreUnavailable(str(meaning(error, path)))

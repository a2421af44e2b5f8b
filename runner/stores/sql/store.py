"""`SqlStore`: the job store in a database."""

from __future__ import annotations

import os
import sqlite3
import time
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from runner.errors import JobNotFound, StoreUnavailable
from runner.jobs import JobStatus
from runner.ports import JobPage
from runner.stores.sql import sqlite
from runner.stores.sql.migrate import is_current, migrate
from runner.stores.sql.pages import Pages
from runner.stores.sql.rows import event_of, job_of
from runner.stores.sql.schema import CHECKED_AT
from runner.stores.sql.statements import Statements
from runner.stores.sql.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from concurrent.futures import Future

    from runner.jobs import Job, JobEvent
    from runner.ports import IdempotencyKey, JobQuery, Submitted, Update

_CHECK_TIMEOUT_S: Final = 10.0


class SqlStore:
    """A `JobStore` whose every acknowledged write survives a power cut.

    Writes go through one thread that commits them in groups; reads run on the caller's thread and are
    never held up by a write. Open one per database: the data directory's lock sees to that.
    """

    def __init__(
        self, file: sqlite.SqliteFile, *, on_commit: Callable[[Sequence[JobEvent]], None] | None = None
    ) -> None:
        dialect = sqlite.dialect()
        self._file = file
        self._statements = Statements(dialect)
        self._pages = Pages(dialect, self._statements)
        self._closed = False
        self._writer = Writer(file, self._statements, on_commit)

    @classmethod
    def open(cls, url: str, *, on_commit: Callable[[Sequence[JobEvent]], None] | None = None) -> SqlStore:
        """Open the database at `url` (`sqlite:////absolute/path`), created or upgraded as needed.

        Raises StoreUnavailable, with one line that says what to do, when that cannot be.
        """
        file = sqlite.SqliteFile(_path_of(url))
        try:
            migrate(file)
        except (sqlite3.Error, sa.exc.SQLAlchemyError, OSError) as error:
            raise _why_not(error, file.path) from error
        return cls(file, on_commit=on_commit)

    @staticmethod
    def examine(url: str) -> str:
        """What stands at `url`, in words for a person; nothing is made or changed.

        Raises StoreUnavailable when `open` would.
        """
        file = sqlite.SqliteFile(_path_of(url))
        if not os.path.exists(file.path):
            return f"{file.path} will be made at the first start"
        try:
            return f"{file.path} can be read{'' if is_current(file) else '; the next start upgrades it'}"
        except (sqlite3.Error, OSError) as error:
            raise _why_not(error, file.path) from error

    # ------------------------------------------------------------ writes

    def add(
        self, job: Job, *, key: IdempotencyKey | None = None, max_pending: int | None = None
    ) -> Future[Submitted]:
        return self._writer.submit(lambda batch: batch.add(job, key, max_pending))

    def update(self, updates: Sequence[Update]) -> Future[list[Job | None]]:
        return self._writer.submit(lambda batch: batch.update(updates))

    def delete(self, job: Job) -> Future[bool]:
        return self._writer.submit(lambda batch: batch.delete(job))

    # ------------------------------------------------------------ reads

    def get(self, job_id: str) -> Job:
        try:
            with self._reading() as connection:
                row = connection.execute(self._statements.by_id, {"id": job_id}).fetchone()
        except UnicodeEncodeError:  # a lone surrogate: no text in the store has one
            row = None
        if row is None:
            raise JobNotFound(job_id)
        return job_of(row)

    def list(self, query: JobQuery) -> JobPage:
        try:
            with self._snapshot() as connection:
                return self._pages.page(connection, query)
        except UnicodeEncodeError:  # as in `get`
            return JobPage((), 0, total_is_exact=True, has_more=False)

    def pending(self, *, max_cores: int, limit: int) -> Sequence[Job]:
        with self._snapshot() as connection:
            first: list[tuple[int, int]] = []
            for cores in self._pending_sizes(connection, max_cores):
                rows = connection.execute(self._statements.pending_of_cores, {"cores": cores, "n": limit})
                first.extend((-priority, seq) for priority, seq in rows)
            first.sort()
            return self._pages.jobs(connection, [seq for _, seq in first[:limit]])

    def _pending_sizes(self, connection: sqlite3.Connection, max_cores: int) -> Iterator[int]:
        """The sizes, in cores, of pending jobs that fit: those too big for now are never walked past."""
        cores = 0
        while True:
            row = connection.execute(self._statements.next_cores, {"cores": cores}).fetchone()
            if row is None or row[0] > max_cores:
                return
            cores = row[0]
            yield cores

    def running(self) -> Sequence[Job]:
        with self._snapshot() as connection:
            seqs = [row[0] for row in connection.execute(self._statements.running)]
            return self._pages.jobs(connection, seqs)

    def counts(self) -> Mapping[JobStatus, int]:
        counts = dict.fromkeys(JobStatus, 0)
        with self._reading() as connection:
            for _, status, jobs in connection.execute(self._statements.counts):
                counts[JobStatus(status)] += jobs
        return counts

    def events(
        self, *, job_id: str | None = None, after_seq: int = 0, limit: int = 500
    ) -> Sequence[JobEvent]:
        statement = self._statements.events if job_id is None else self._statements.events_of_job
        values = {"job_id": job_id, "after_seq": after_seq, "n": limit}
        try:
            with self._reading() as connection:
                return [event_of(row) for row in connection.execute(statement, values)]
        except UnicodeEncodeError:  # as in `get`
            return []

    # ------------------------------------------------------------ condition

    def check(self) -> None:
        """Commit a row and read it back. Raises StoreUnavailable or StorageFull."""
        now = time.time_ns() // 1000
        written = self._writer.submit(lambda batch: batch.set_fact(CHECKED_AT, now))
        try:
            written.result(_CHECK_TIMEOUT_S)
        except FutureTimeout:
            written.cancel()
            raise StoreUnavailable(
                f"The store {self._file.path} has not answered for {_CHECK_TIMEOUT_S:g} s."
            ) from None
        with self._reading() as connection:
            if connection.execute(self._statements.fact, {"name": CHECKED_AT}).fetchone() is None:
                raise StoreUnavailable(f"The store {self._file.path} has forgotten what was written.")

    def close(self) -> None:
        self._writer.close()
        self._closed = True
        self._file.close_readers()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        if self._closed:
            raise StoreUnavailable("The store is closed.")
        with self._file.reading() as connection:
            yield connection

    @contextmanager
    def _snapshot(self) -> Iterator[sqlite3.Connection]:
        """As `_reading`, with every statement seeing the same moment."""
        with self._reading() as connection:
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.rollback()


def _path_of(url: str) -> str:
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


def _why_not(error: Exception, path: str) -> StoreUnavailable:
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        return StoreUnavailable(f"The store {path} cannot be opened: there is no directory {directory}.")
    code = getattr(error, "sqlite_errorcode", 0)
    if code & 0xFF in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return StoreUnavailable(f"The store {path} cannot be opened: make the file and {directory} writable.")
    if code & 0xFF in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return StoreUnavailable(
            f"The store {path} is not a database, or is damaged: restore it from a backup."
        )
    return StoreUnavailable(str(sqlite.meaning(error, path)))

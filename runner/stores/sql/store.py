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
from runner.stores.sql.migrate import is_current, migrate, require_file
from runner.stores.sql.pages import Pages
from runner.stores.sql.rows import ended_job_of, event_of, job_of, micros
from runner.stores.sql.schema import CHECKED_AT
from runner.stores.sql.statements import Statements
from runner.stores.sql.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from concurrent.futures import Future

    from runner.jobs import Job, JobEvent
    from runner.ports import EndedJob, IdempotencyKey, JobQuery, Submitted, Update

_CHECK_TIMEOUT_S: Final = 10.0
_LONG_AGO: Final = -(2**63)


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
        self._is_damaged = False  # as far as readers have met with it
        self._writer = Writer(file, self._statements, on_commit)

    @classmethod
    def open(
        cls,
        url: str,
        *,
        on_commit: Callable[[Sequence[JobEvent]], None] | None = None,
        may_be_new: bool = True,
    ) -> SqlStore:
        """Open the database at `url` (`sqlite:////absolute/path`), upgraded as needed.

        A missing or empty one is made unless it may not be new, for its jobs have left files behind.
        Raises StoreUnavailable, with one line that says what to do, when that cannot be.
        """
        file = sqlite.SqliteFile(sqlite.path_of(url))
        try:
            migrate(file, may_be_new=may_be_new)
        except (sqlite3.Error, sa.exc.SQLAlchemyError, OSError) as error:
            raise sqlite.cannot_open(error, file.path) from error
        return cls(file, on_commit=on_commit)

    @staticmethod
    def examine(url: str, *, may_be_new: bool = True) -> str:
        """What stands at `url`, in words for a person; nothing is made or changed.

        Raises StoreUnavailable when `open` would.
        """
        file = sqlite.SqliteFile(sqlite.path_of(url))
        require_file(file, may_be_new=may_be_new)
        if not os.path.exists(file.path):
            return f"{file.path} will be made at the first start"
        try:
            current = is_current(file, may_be_new=may_be_new)
            return f"{file.path} can be read{'' if current else '; the next start upgrades it'}"
        except (sqlite3.Error, OSError) as error:
            raise sqlite.cannot_open(error, file.path) from error

    # ------------------------------------------------------------ writes

    def add(
        self, job: Job, *, key: IdempotencyKey | None = None, max_pending: int | None = None
    ) -> Future[Submitted]:
        return self._writer.submit(lambda batch: batch.add(job, key, max_pending))

    def update(self, updates: Sequence[Update]) -> Future[list[Job | None]]:
        return self._writer.submit(lambda batch: batch.update(updates))

    def delete(self, job: Job) -> Future[bool]:
        return self._writer.submit(lambda batch: batch.delete(job))

    def forget_leftovers(self, job_ids: Sequence[str]) -> Future[None]:
        return self._writer.submit(lambda batch: batch.forget_leftovers(job_ids))

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

    def ended(self, *, after: EndedJob | None = None, limit: int = 500) -> Sequence[EndedJob]:
        at, seq = (_LONG_AGO, 0) if after is None else (micros(after.completed_at), after.seq)
        with self._reading() as connection:
            rows = connection.execute(self._statements.ended, {"at": at, "seq": seq, "n": limit})
            return [ended_job_of(row) for row in rows]

    def leftovers(self, *, after: str = "", limit: int = 500) -> Sequence[str]:
        with self._reading() as connection:
            rows = connection.execute(self._statements.leftovers, {"after": after, "n": limit})
            return [row[0] for row in rows]

    # ------------------------------------------------------------ condition

    def check(self) -> None:
        """Commit a row and read it back; all pages, once some could not be read.

        Raises StoreUnavailable or StorageFull.
        """
        if self._is_damaged:
            self._file.require_whole()
            self._is_damaged = False
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
        try:
            with self._file.reading() as connection:
                yield connection
        except StoreUnavailable as error:
            self._is_damaged = self._is_damaged or sqlite.is_damage(error.__cause__)
            raise

    @contextmanager
    def _snapshot(self) -> Iterator[sqlite3.Connection]:
        """As `_reading`, with every statement seeing the same moment."""
        with self._reading() as connection:
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.rollback()

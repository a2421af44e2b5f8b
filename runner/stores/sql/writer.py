"""The one thread that writes: it takes everything that waits, and commits it together."""

from __future__ import annotations

import sqlite3
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, TypeVar

import structlog

from runner.errors import RunnerError, StorageFull, StoreUnavailable
from runner.stores.sql.batch import Batch
from runner.stores.sql.schema import BURIED_AT
from runner.stores.sql.sqlite import is_of_the_database, meaning

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runner.jobs import JobEvent
    from runner.measurements import StoreMeasurements
    from runner.stores.sql.sqlite import SqliteFile
    from runner.stores.sql.statements import Statements

T = TypeVar("T")

_log = structlog.get_logger(__name__)
# Bounds the time until the first of a batch hears of its commit.
_MOST_AT_ONCE: Final = 512

_Operation = tuple["Callable[[Batch], Any]", "Future[Any]"]


class Writer:
    """Runs operations in the order they were submitted, and answers each after its commit.

    There is no waiting for company: while one group is being committed the next one gathers. Trouble
    of the database fails what was asked, and the next group tries again on a new connection.
    """

    def __init__(
        self,
        file: SqliteFile,
        statements: Statements,
        on_commit: Callable[[Sequence[JobEvent]], None] | None,
        measurements: StoreMeasurements,
    ) -> None:
        self._file = file
        self._statements = statements
        self._on_commit = on_commit
        self._measurements = measurements
        self._waiting: SimpleQueue[_Operation | None] = SimpleQueue()
        self._gate = threading.Lock()
        self._closed = False
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None  # of the file that the connection is to
        self._retired: sqlite3.Connection | None = None  # given up, but kept until another has committed
        self._thread = threading.Thread(target=self._run, name="snakeline-store", daemon=True)
        self._thread.start()

    def submit(self, operation: Callable[[Batch], T]) -> Future[T]:
        """Queue one operation; StoreUnavailable is in the future once the store is closed."""
        future: Future[T] = Future()
        with self._gate:  # nothing may be queued behind the end
            if not self._closed:
                self._waiting.put((operation, future))
                return future
        future.set_exception(StoreUnavailable("The store is closed."))
        return future

    def close(self) -> None:
        """Finish everything submitted before, then end the thread. Safe to repeat."""
        with self._gate:
            if not self._closed:
                self._closed = True
                self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        more = True
        while more:
            operations: list[_Operation] = []
            more = self._take(operations)
            if operations:
                self._write(operations)
        self._disconnect()

    def _take(self, operations: list[_Operation]) -> bool:
        """Wait for the first, then take all that is there; False when the end was among them."""
        item = self._waiting.get()
        try:
            while item is not None:
                # A caller that has given up is left out; from here on it can't give up any more.
                if item[1].set_running_or_notify_cancel():
                    operations.append(item)
                if len(operations) >= _MOST_AT_ONCE:
                    return True
                item = self._waiting.get_nowait()
        except Empty:
            return True
        return False

    def _write(self, operations: list[_Operation]) -> None:
        """Commit them together; if that fails, one by one, so that none spoils its neighbours."""
        begun = time.perf_counter()
        try:
            try:
                events, answers = self._transaction(operations)
            finally:
                self._measurements.commits.observe(time.perf_counter() - begun)
        except Exception as error:  # noqa: BLE001 - every failure belongs to the callers, whatever it is
            self._after_failure(operations, error)
            return
        self._measurements.writes.add(None, sum(refusal is None for _, refusal in answers))
        for (_, future), (answer, refusal) in zip(operations, answers, strict=True):
            if refusal is None:
                future.set_result(answer)
            else:
                future.set_exception(refusal)
        if events and self._on_commit is not None:
            try:
                self._on_commit(events)
            except Exception:  # noqa: BLE001 - what is committed stays so, whoever hears of it
                _log.exception("store.news_not_told")

    def _after_failure(self, operations: list[_Operation], error: Exception) -> None:
        failure = meaning(error, self._file.path) if is_of_the_database(error) else error
        if len(operations) > 1 and not isinstance(failure, StoreUnavailable):
            # On a full disk too: what needs no new room may still be written.
            for operation in operations:
                self._write([operation])
            return
        if isinstance(failure, StorageFull | StoreUnavailable):
            self._measurements.failures.add("full" if isinstance(failure, StorageFull) else "unavailable")
        if not isinstance(failure, StorageFull):
            self._retire()  # whatever is wrong with it, the next group begins with a new one
        for _, future in operations:
            future.set_exception(failure)

    def _transaction(
        self, operations: list[_Operation]
    ) -> tuple[list[JobEvent], list[tuple[Any, RunnerError | None]]]:
        if self._connection is None:
            self._connection = self._file.connect()
            self._identity = self._file.identity()
        connection = self._connection
        if self._file.identity() != self._identity:
            # What is written now would not be there after the next start.
            raise StoreUnavailable(f"The store {self._file.path} was moved or replaced while in use.")
        answers: list[tuple[Any, RunnerError | None]] = []
        try:
            connection.execute("BEGIN IMMEDIATE")
            batch = Batch(connection.cursor(), self._statements)
            for operation, _ in operations:
                try:
                    answers.append((operation(batch), None))
                except RunnerError as refusal:
                    answers.append((None, refusal))
            batch.finish()
            try:
                connection.execute("COMMIT")
            except sqlite3.Error:
                self._bury(connection)
                raise
        finally:
            _roll_back(connection)
        if self._retired is not None:
            self._release_retired()
        return batch.events, answers

    def _bury(self, connection: sqlite3.Connection) -> None:
        """Make sure that a transaction whose COMMIT failed is not found again by a later start.

        When only the sync failed, all of it stands in the write-ahead log: nobody sees it, until the log
        is read anew after this process was killed. The next transaction overwrites it, so make one.
        """
        _roll_back(connection)
        with suppress(sqlite3.Error):
            connection.execute("BEGIN IMMEDIATE")
            Batch(connection.cursor(), self._statements).set_fact(BURIED_AT, time.time_ns() // 1000)
            connection.execute("COMMIT")

    def _retire(self) -> None:
        """Give up the connection, and keep it open where it is the first.

        The last one to be closed takes along what tells commits from failures in the write-ahead log; the
        next to be opened would take every transaction that it finds there for committed.
        """
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._retired is None and _is_idle(connection):
            self._retired = connection
        else:
            _close(connection)

    def _release_retired(self) -> None:
        """Another connection has committed. It may be to another file: readers shall see the same one."""
        with suppress(Exception):  # what is committed stays so
            self._file.close_readers()
        _close(self._retired)
        self._retired = None

    def _disconnect(self) -> None:
        for connection in (self._connection, self._retired):
            _close(connection)
        self._connection = self._retired = None


def _is_idle(connection: sqlite3.Connection) -> bool:
    try:
        return not connection.in_transaction
    except sqlite3.Error:  # it is closed
        return False


def _roll_back(connection: sqlite3.Connection) -> None:
    # SQLite ends the transaction itself after some errors and not after others.
    with suppress(sqlite3.Error):
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _close(connection: sqlite3.Connection | None) -> None:
    if connection is not None:
        with suppress(Exception):
            connection.close()

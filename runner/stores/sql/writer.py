"""The one thread that writes: it takes everything that waits, and commits it together."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, TypeVar

from runner.errors import RunnerError, StorageFull, StoreUnavailable
from runner.stores.sql.batch import Batch
from runner.stores.sql.sqlite import is_of_the_database, meaning

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

    from runner.jobs import JobEvent
    from runner.stores.sql.sqlite import SqliteFile
    from runner.stores.sql.statements import Statements

T = TypeVar("T")

_log = logging.getLogger(__name__)
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
    ) -> None:
        self._file = file
        self._statements = statements
        self._on_commit = on_commit
        self._waiting: SimpleQueue[_Operation | None] = SimpleQueue()
        self._gate = threading.Lock()
        self._closed = False
        self._connection: sqlite3.Connection | None = None
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
        try:
            events, answers = self._transaction(operations)
        except Exception as error:  # noqa: BLE001 - every failure belongs to the callers, whatever it is
            self._after_failure(operations, error)
            return
        for (_, future), (answer, refusal) in zip(operations, answers, strict=True):
            if refusal is None:
                future.set_result(answer)
            else:
                future.set_exception(refusal)
        if events and self._on_commit is not None:
            try:
                self._on_commit(events)
            except Exception:  # noqa: BLE001 - what is committed stays so, whoever hears of it
                _log.exception("publishing committed events failed")

    def _after_failure(self, operations: list[_Operation], error: Exception) -> None:
        failure = meaning(error, self._file.path) if is_of_the_database(error) else error
        if len(operations) > 1 and not isinstance(failure, StoreUnavailable):
            # On a full disk too: what needs no new room may still be written.
            for operation in operations:
                self._write([operation])
            return
        if not isinstance(failure, StorageFull):
            self._disconnect()  # whatever is wrong with it, the next group begins with a new one
        for _, future in operations:
            future.set_exception(failure)

    def _transaction(
        self, operations: list[_Operation]
    ) -> tuple[list[JobEvent], list[tuple[Any, RunnerError | None]]]:
        if self._connection is None:
            self._connection = self._file.connect()
        connection = self._connection
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
            connection.execute("COMMIT")
        finally:
            # SQLite ends the transaction itself after some errors and not after others.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        return batch.events, answers

    def _disconnect(self) -> None:
        if self._connection is not None:
            with suppress(Exception):
                self._connection.close()
            self._connection = None

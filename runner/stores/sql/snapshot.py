"""A copy of a store in one file that needs no other, and what such a copy holds."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from runner.errors import StoreUnavailable
from runner.jobs import JobStatus
from runner.stores.sql import sqlite
from runner.stores.sql.migrate import require_known, revision_of
from runner.stores.sql.schema import JOB_EVENTS, JOBS, REVISION

if TYPE_CHECKING:
    from collections.abc import Mapping

NUMBERS_SKIPPED: Final = 2**32  # JavaScript is exact up to 2**53
_BUSY_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Contents:
    """What a store holds: its jobs by status, and whether the next start has to upgrade it."""

    jobs: Mapping[JobStatus, int]
    is_current: bool

    @property
    def total(self) -> int:
        return sum(self.jobs.values())


def copy(source: str, target: str, *, at_rest: bool) -> None:
    """Write what is committed in `source` at one moment to the existing empty file `target`.

    Unless it is said to be `at_rest`, a service may go on writing: nobody waits, but its write-ahead log
    is not wound back meanwhile. One step for all pages and not VACUUM INTO, which holds the log twice as
    long; and not many steps, each of which would begin anew after another process's commit. Not synced.

    Raises what the driver raises.
    """
    with looking_at(source, at_rest=at_rest) as from_, closing(_open(target)) as to:
        # Whoever asked for the copy throws it away should this be cut short.
        to.execute("PRAGMA journal_mode = OFF")
        to.execute("PRAGMA synchronous = OFF")
        from_.backup(to, pages=-1)
        # The source's mode came along, and would make everybody who looks at the copy write beside it.
        to.execute("PRAGMA journal_mode = DELETE")


def examine(path: str) -> Contents:
    """Prove that a copy is a whole store of ours, every page and index of it, and count its jobs.

    Raises StoreUnavailable when it is anything else.
    """
    try:
        with looking_at(path, at_rest=True) as connection:
            return _contents(connection, path)
    except sqlite3.Error as error:
        if sqlite.is_damage(error) or not os.path.exists(path):
            raise StoreUnavailable(f"{path} is damaged, or is not a store.") from error
        raise StoreUnavailable(f"{path} cannot be read: {' '.join(str(error).split())}.") from error


def skip_numbers(path: str) -> None:
    """Let the jobs and events of a copy go on with numbers that nobody can have been told since it was made.

    Readers take up streams behind the last number they know: one that is given out twice would hide an event.
    """
    with closing(_open(path)) as connection:
        for table in (JOBS.name, JOB_EVENTS.name):
            step = (NUMBERS_SKIPPED, table)
            if not connection.execute(
                "UPDATE sqlite_sequence SET seq = seq + ? WHERE name = ?", step
            ).rowcount:
                connection.execute("INSERT INTO sqlite_sequence (seq, name) VALUES (?, ?)", step)


def job_ids(path: str) -> frozenset[str]:
    """The ids of all jobs of an examined copy."""
    with looking_at(path, at_rest=True) as connection:
        return frozenset(row[0] for row in connection.execute("SELECT id FROM jobs"))


def _contents(connection: sqlite3.Connection, path: str) -> Contents:
    revision = revision_of(connection, path)
    if revision is None:
        raise StoreUnavailable(f"{path} is empty.")
    if revision != REVISION:
        require_known(revision, path)
    trouble = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if trouble != "ok":
        raise StoreUnavailable(f"{path} is damaged: {' '.join(trouble.split())}.")
    jobs = dict.fromkeys(JobStatus, 0)
    for status, count in connection.execute("SELECT status, count(*) FROM jobs GROUP BY status"):
        jobs[JobStatus(status)] = count
    return Contents(jobs, is_current=revision == REVISION)


def looking_at(path: str, *, at_rest: bool) -> closing[sqlite3.Connection]:
    """A connection that can change nothing, and even at its end leaves a running service's log in place."""
    log = f"{path}-wal"
    # It may lie where nothing can be made beside it; but a log that is there has to be read, too.
    immutable = at_rest and not (os.path.exists(log) and os.path.getsize(log))
    return closing(_open(path, f"mode=ro{'&immutable=1' if immutable else ''}"))


def _open(path: str, how: str = "mode=rw") -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote(os.path.abspath(path))}?{how}",
        uri=True,
        timeout=_BUSY_TIMEOUT_S,
        isolation_level=None,
    )

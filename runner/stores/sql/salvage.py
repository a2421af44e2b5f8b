"""What can still be read of a damaged store, as a new one."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from runner.errors import StoreUnavailable
from runner.stores.sql import sqlite
from runner.stores.sql.access_rows import audit_record_of, key_of
from runner.stores.sql.migrate import migrate
from runner.stores.sql.rows import event_of, job_of
from runner.stores.sql.schema import (
    API_KEYS,
    AUDIT,
    CREATED_LAG,
    JOB_EVENTS,
    JOB_LEFTOVERS,
    JOB_SPECS,
    JOBS,
    TENANTS,
)
from runner.stores.sql.snapshot import NUMBERS_SKIPPED, examine, looking_at
from runner.stores.sql.statements import statements_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import sqlalchemy as sa

    from runner.stores.sql.statements import Statements

_ALL: Final = 2**62
_FURTHEST: Final = 2**52  # numbers beyond it are never given out


@dataclass(frozen=True, slots=True)
class Salvaged:
    """How many jobs and events were read; `expected` is how many jobs the damaged store says it had."""

    jobs: int
    events: int
    expected: int | None


def salvage(damaged: str, target: str) -> Salvaged:
    """Make a whole store at the existing empty file `target` of what can be read of `damaged`.

    Rows are taken as they are or not at all: a job counts as read when all of its row and its
    specification make sense. What is derived from them (labels, names, counts) is made anew. Numbers of
    jobs and events that may have been given out are not used again. Not synced.

    Raises sqlite3.Error, StoreUnavailable when `target` cannot be written.
    """
    migrate(sqlite.SqliteFile(target), may_be_new=True)
    with closing(sqlite3.connect(target, isolation_level=None)) as to:
        to.execute("PRAGMA journal_mode = DELETE")
        to.execute("PRAGMA synchronous = OFF")
        to.execute("PRAGMA foreign_keys = OFF")
        to.execute("BEGIN")
        expected, numbers = None, {}
        with suppress(sqlite3.DatabaseError), looking_at(damaged, at_rest=True) as from_:
            # Otherwise a file that was cut off would not be read at all.
            from_.execute("PRAGMA writable_schema = ON")
            expected = _number(from_, "SELECT sum(jobs) FROM job_counts WHERE tenant = '*'")
            if expected is None:  # of a revision before there were tenants
                expected = _number(from_, "SELECT sum(jobs) FROM job_counts")
            numbers = _numbers(from_)
            for table in (JOBS, JOB_SPECS, JOB_EVENTS, AUDIT):
                _copy(from_, to, table)
            for small in (JOB_LEFTOVERS, API_KEYS, TENANTS):
                _copy_unnumbered(from_, to, small)
        jobs, events = _complete(to, numbers)
        to.execute("COMMIT")
    examine(target)
    return Salvaged(jobs, events, expected)


# ---------------------------------------------------------------- reading


def _copy(from_: sqlite3.Connection, to: sqlite3.Connection, table: sa.Table) -> None:
    wanted = [column.name for column in table.c]
    there = {row[1] for row in from_.execute(f"PRAGMA table_info({table.name})")}
    columns = [name for name in wanted if name in there]
    if "seq" not in columns:
        return
    marks = ", ".join("?" * len(columns))
    insert = f"INSERT OR IGNORE INTO {table.name} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608
    for row in _rows(from_, table.name, columns):
        with suppress(sqlite3.IntegrityError, sqlite3.DataError, OverflowError):
            to.execute(insert, row)


def _rows(connection: sqlite3.Connection, table: str, columns: list[str]) -> Iterator[tuple[Any, ...]]:
    """Every row of the table that can be read, by `seq`."""
    head = f"SELECT seq, {', '.join(columns)} FROM {table}"  # noqa: S608 - names of our own schema
    after = 0
    while True:
        try:
            for row in connection.execute(f"{head} WHERE seq > ? ORDER BY seq", (after,)):
                after = max(after, row[0])  # what is out of order must not make it begin anew for ever
                yield row[1:]
            return
        except sqlite3.DatabaseError:
            found = _next(connection, table, after)
        if found is None or found <= after:
            return
        after = found
        # By itself: what made the walk fail may have been the row behind it.
        with suppress(sqlite3.DatabaseError):
            row = connection.execute(f"{head} WHERE seq = ?", (after,)).fetchone()
            if row is not None:
                yield row[1:]


def _next(connection: sqlite3.Connection, table: str, after: int) -> int | None:
    """The first number behind `after` that can be found in the table; None when there is none."""

    def found_from(seq: int) -> int | None:
        """Raises sqlite3.DatabaseError where the way there is damaged."""
        statement = f"SELECT seq FROM {table} WHERE seq >= ? ORDER BY seq LIMIT 1"  # noqa: S608
        row = connection.execute(statement, (seq,)).fetchone()
        return None if row is None else int(row[0])

    low, step = after, 1  # nothing can be found from `low` on
    while step < _FURTHEST:
        try:
            found = found_from(after + step)
        except sqlite3.DatabaseError:
            low, step = after + step, step * 2
            continue
        break
    else:
        return None
    high = after + step
    while high - low > 1:
        middle = (low + high) // 2
        try:
            found = found_from(middle)
        except sqlite3.DatabaseError:
            low = middle
        else:
            high = middle
    return found


def _copy_unnumbered(from_: sqlite3.Connection, to: sqlite3.Connection, table: sa.Table) -> None:
    columns = ", ".join(column.name for column in table.c)
    marks = ", ".join("?" * len(table.c))
    insert = f"INSERT OR IGNORE INTO {table.name} ({columns}) VALUES ({marks})"  # noqa: S608 - as above
    with suppress(sqlite3.DatabaseError):
        for row in from_.execute(f"SELECT {columns} FROM {table.name}"):  # noqa: S608
            to.execute(insert, row)


def _numbers(connection: sqlite3.Connection) -> dict[str, int]:
    """The last numbers given out, by table, as far as they can be read."""
    with suppress(sqlite3.DatabaseError):
        rows = connection.execute("SELECT name, seq FROM sqlite_sequence").fetchall()
        return {name: seq for name, seq in rows if type(seq) is int and 0 <= seq < _FURTHEST}
    return {}


def _number(connection: sqlite3.Connection, statement: str) -> int | None:
    with suppress(sqlite3.DatabaseError):
        value = connection.execute(statement).fetchone()[0]
        return value if type(value) is int and value >= 0 else None
    return None


# ---------------------------------------------------------------- making it whole


def _complete(to: sqlite3.Connection, numbers: dict[str, int]) -> tuple[int, int]:
    """Drop what makes no sense, derive the rest; how many jobs and events there are."""
    statements = statements_in(sqlite.dialect())
    to.execute("DELETE FROM job_specs WHERE seq NOT IN (SELECT seq FROM jobs)")
    _drop(to, "jobs", to.execute("SELECT seq FROM jobs WHERE seq NOT IN (SELECT seq FROM job_specs)"))
    _drop(
        to, "jobs", ((row[0],) for row in to.execute(statements.every_job) if not _makes_sense(row, job_of))
    )
    _drop(
        to, "job_events", to.execute("SELECT seq FROM job_events WHERE job_seq NOT IN (SELECT seq FROM jobs)")
    )
    events = to.execute(statements.events, {"tenant": None, "after_seq": 0, "n": _ALL})
    _drop(to, "job_events", ((row[0],) for row in events if not _makes_sense(row, event_of)))
    records = to.execute(f"SELECT {', '.join(column.name for column in AUDIT.c)} FROM audit")  # noqa: S608
    _drop(to, "audit", ((row[0],) for row in records if not _makes_sense(row, audit_record_of)))
    keys = to.execute(f"SELECT {', '.join(column.name for column in API_KEYS.c)} FROM api_keys")  # noqa: S608
    senseless = [(row[0],) for row in keys if not _makes_sense(row, key_of)]
    to.executemany("DELETE FROM api_keys WHERE prefix = ?", senseless)
    _derive(to, statements)
    for table in (JOBS.name, JOB_EVENTS.name, AUDIT.name):
        last = to.execute(f"SELECT coalesce(max(seq), 0) FROM {table}").fetchone()[0]  # noqa: S608
        number = max(last, numbers.get(table, last + NUMBERS_SKIPPED))
        to.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
        to.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, number))
    count = "SELECT (SELECT count(*) FROM jobs), (SELECT count(*) FROM job_events)"
    jobs, kept = to.execute(count).fetchone()
    return jobs, kept


def _drop(to: sqlite3.Connection, table: str, seqs: Any) -> None:
    rows = list(seqs)
    to.executemany(f"DELETE FROM {table} WHERE seq = ?", rows)  # noqa: S608 - names of our own schema
    if table == JOBS.name:
        to.executemany("DELETE FROM job_specs WHERE seq = ?", rows)


def _makes_sense(row: Any, read: Callable[[Any], object]) -> bool:
    try:
        read(row)
    except StoreUnavailable:
        return False
    return True


def _derive(to: sqlite3.Connection, statements: Statements) -> None:
    to.execute("CREATE TEMP TABLE ceilings (seq INTEGER PRIMARY KEY, ceiling INTEGER)")
    to.execute("INSERT INTO ceilings SELECT seq, max(created_at) OVER (ORDER BY seq) FROM jobs")
    to.execute(
        "UPDATE jobs SET created_ceiling = (SELECT ceiling FROM ceilings WHERE ceilings.seq = jobs.seq)"
    )
    to.execute("UPDATE job_events SET tenant = (SELECT tenant FROM jobs WHERE jobs.seq = job_events.job_seq)")
    lag = to.execute("SELECT coalesce(max(created_ceiling - created_at), 0) FROM jobs").fetchone()[0]
    to.execute(statements.set_fact, {"name": CREATED_LAG, "value": lag})
    to.execute(
        "INSERT OR IGNORE INTO job_labels (key, value, seq, tenant) "
        "SELECT label.key, label.value, job_specs.seq, jobs.tenant "
        "FROM job_specs JOIN jobs ON jobs.seq = job_specs.seq, "
        "json_each(job_specs.spec, '$.labels') AS label"
    )
    to.execute(
        "INSERT INTO job_names (rowid, name) SELECT seq, name_folded FROM jobs WHERE name_folded IS NOT NULL"
    )
    to.execute(
        "INSERT INTO job_counts (tenant, workflow, status, jobs) "
        "SELECT tenant, workflow, status, count(*) FROM jobs GROUP BY tenant, workflow, status "
        "UNION ALL SELECT '*', workflow, status, count(*) FROM jobs GROUP BY workflow, status"
    )

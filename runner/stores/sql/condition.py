"""What condition a store at rest is in: whole, damaged, or not ours to judge."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from runner.errors import StoreUnavailable
from runner.jobs import JobStatus
from runner.stores.sql import sqlite
from runner.stores.sql.access_rows import audit_record_of, key_of
from runner.stores.sql.migrate import require_known, revision_of
from runner.stores.sql.rows import event_of, job_of
from runner.stores.sql.schema import API_KEYS, AUDIT, REVISION
from runner.stores.sql.snapshot import looking_at
from runner.stores.sql.statements import as_it_was, columns_of, statements_in

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind = Literal["whole", "damaged", "missing", "half restored", "foreign", "newer", "unreadable"]
_MAGIC: Final = b"SQLite format 3\0"
_ALL: Final = 2**62


@dataclass(frozen=True, slots=True)
class JobRow:
    """The little of a job that its files can be held against."""

    status: JobStatus
    attempt: int
    has_started: bool


@dataclass(frozen=True, slots=True)
class Condition:
    """`detail` says it for a person; `jobs` is there only if the store is whole.

    `leftovers` are the ids of deleted jobs whose files the service is still to remove.
    """

    kind: Kind
    detail: str
    jobs: Mapping[str, JobRow] | None = None
    leftovers: frozenset[str] = frozenset()


def condition_of(path: str) -> Condition:  # noqa: PLR0911 - one for each condition
    """Read all of it: every page, index, row and count. For the holder of the data directory."""
    if not os.path.lexists(path):
        if os.path.lexists(sqlite.incoming(path)):
            return Condition("half restored", "a restore was cut short after it had taken the store away")
        return Condition("missing", "there is no store")
    try:
        if os.path.getsize(path) == 0:
            return Condition("missing", "the store is empty")
        with open(path, "rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                return Condition("damaged", "it does not begin as a database does")
        with looking_at(path, at_rest=True) as connection:
            return _condition(connection, path)
    except sqlite3.Error as error:
        text = " ".join(str(error).split())
        if sqlite.is_damage(error) or sqlite.is_of_content(error):
            return Condition("damaged", text)
        return Condition("unreadable", text)
    except OSError as error:
        return Condition("unreadable", error.strerror or str(error))


def _condition(connection: sqlite3.Connection, path: str) -> Condition:  # noqa: PLR0911 - as above
    if sqlite.is_fresh(connection):
        return Condition("missing", "the store is empty")
    if not sqlite.is_ours(connection):
        return Condition("foreign", "it is a database of another program")
    try:
        revision = revision_of(connection, path)
    except StoreUnavailable:
        return Condition("damaged", "it does not say its revision")
    if revision != REVISION:
        try:
            require_known(str(revision), path)
        except StoreUnavailable:
            return Condition("newer", f"a newer Snakeline wrote it (revision {revision})")
    trouble = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if trouble != "ok":
        return Condition("damaged", " ".join(trouble.split()))
    try:
        jobs = _jobs(connection)
    except StoreUnavailable as error:
        return Condition("damaged", str(error).partition(":")[0])
    if (wrong := _wrong_number(connection)) is not None:
        return Condition("damaged", wrong)
    return Condition("whole", f"{len(jobs)} jobs", jobs, _leftovers(connection))


def _jobs(connection: sqlite3.Connection) -> dict[str, JobRow]:
    """Every job. Raises StoreUnavailable for a row that holds what nobody wrote."""
    statements = statements_in(sqlite.dialect())
    found: dict[str, JobRow] = {}
    for row in connection.execute(as_it_was(statements.every_job, connection)):
        job = job_of(row)
        found[job.id] = JobRow(job.status, job.attempt, job.started_at is not None)
    events = as_it_was(statements.events, connection)
    for row in connection.execute(events, {"tenant": None, "after_seq": 0, "n": _ALL}):
        event_of(row)
    for table, of_row in ((API_KEYS, key_of), (AUDIT, audit_record_of)):
        if connection.execute(
            f"PRAGMA table_info({table.name})"
        ).fetchone():  # not before there was such a table
            columns = ", ".join(column.name for column in table.c)
            for row in connection.execute(f"SELECT {columns} FROM {table.name}"):  # noqa: S608 - our own names
                of_row(row)
    return found


def _wrong_number(connection: sqlite3.Connection) -> str | None:
    specs = connection.execute(
        "SELECT count(*) FROM jobs WHERE seq NOT IN (SELECT seq FROM job_specs)"
    ).fetchone()[0]
    if specs:
        return f"{specs} jobs are without their specification"
    by_tenant = "tenant, " if "tenant" in columns_of(connection, "job_counts") else ""
    of = f"{by_tenant}workflow, status"
    differing = connection.execute(
        f"SELECT count(*) FROM (SELECT {of}, count(*) AS jobs FROM jobs GROUP BY {of} "  # noqa: S608
        f"EXCEPT SELECT {of}, jobs FROM job_counts)"
    ).fetchone()[0]
    if by_tenant and not differing:
        differing = connection.execute(
            "SELECT count(*) FROM (SELECT workflow, status, sum(jobs) FROM job_counts "
            "WHERE tenant <> '*' GROUP BY workflow, status "
            "EXCEPT SELECT workflow, status, jobs FROM job_counts WHERE tenant = '*')"
        ).fetchone()[0]
    return "its count of jobs is wrong" if differing else None


def _leftovers(connection: sqlite3.Connection) -> frozenset[str]:
    try:
        return frozenset(row[0] for row in connection.execute("SELECT id FROM job_leftovers"))
    except sqlite3.OperationalError:  # of a revision before there was such a table
        return frozenset()

"""The statements that never vary, compiled once for the dialect and run on the driver's own cursor.

SQLAlchemy's execution costs 20 to 30 us a statement over the driver's, and these run for every job.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from runner.jobs import JobStatus
from runner.stores.sql.inserts import Insert
from runner.stores.sql.rows import BRIEF_COLUMNS, JOB_COLUMNS
from runner.stores.sql.schema import (
    AUDIT,
    JOB_COUNTS,
    JOB_EVENTS,
    JOB_LABELS,
    JOB_LEFTOVERS,
    JOB_SPECS,
    JOBS,
    STORE_FACTS,
    TENANTS,
)

if TYPE_CHECKING:
    import sqlite3

    from sqlalchemy.engine.interfaces import Dialect

_P: Final = sa.bindparam
_PENDING: Final = sa.text("status = 'pending'")
_CHANGING: Final = (
    "version",
    "reason",
    "retries_left",
    "attempt",
    "updated_at",
    "started_at",
    "completed_at",
    "cancel_requested_at",
    "exit_code",
    "exit_signal",
    "error_message",
    "progress",
    "usage",
    "isolation",
)


def sql_of(element: Any, dialect: Dialect, **arguments: Any) -> str:
    """The statement's text with named parameters; it must not hold a value of its own."""
    compiled = element.compile(dialect=dialect, **arguments)
    values = {name: bind.value for name, bind in compiled.binds.items() if not bind.required}
    if values:
        raise ValueError(f"write these as literals or parameters: {values}")
    return str(compiled)


def columns_of(connection: sqlite3.Connection, table: str) -> frozenset[str]:
    return frozenset(row[1] for row in connection.execute(f"PRAGMA table_info({table})"))


def as_it_was(text: str, connection: sqlite3.Connection) -> str:
    """The statement for a store of an earlier revision: a column that it lacks says what new rows say."""
    there = columns_of(connection, JOBS.name)
    for column in JOBS.c:
        if column.name not in there:
            default = column.server_default
            value = str(default.arg) if isinstance(default, sa.DefaultClause) else "NULL"
            text = text.replace(f"{JOBS.name}.{column.name}", value)
    return text


def hinted(index: str) -> Any:
    """A select of jobs' seq held to one index: without statistics a planner may guess another."""
    return sa.select(JOBS.c.seq).with_hint(JOBS, f"INDEXED BY {index}", "sqlite")


def joined_jobs() -> Any:
    return sa.select(*JOB_COLUMNS).join_from(JOBS, JOB_SPECS, JOB_SPECS.c.seq == JOBS.c.seq)


def _compare_and_set(*, with_status: bool) -> Any:
    # An index is rewritten for every column named in SET, changed or not: name `status` only when it moves.
    columns = ("status", *_CHANGING) if with_status else _CHANGING
    return (
        sa.update(JOBS)
        .where(JOBS.c.id == _P("before_id"), JOBS.c.version == _P("before_version"))
        .values({JOBS.c[name]: _P(f"new_{name}") for name in columns})
        .returning(JOBS.c.seq)
    )


@cache
def statements_in(dialect: Dialect) -> Statements:
    """Compiled once in a process, whatever it opens: that takes 20 ms."""
    return Statements(dialect)


class Statements:
    """Everything but the list pages, which `pages.py` composes."""

    def __init__(self, dialect: Dialect) -> None:
        def made(element: Any, **arguments: Any) -> str:
            return sql_of(element, dialect, **arguments)

        self.job_columns = tuple(column.name for column in JOBS.c)
        self.add_jobs = Insert("jobs", self.job_columns)
        self.add_specs = Insert("job_specs", [column.name for column in JOB_SPECS.c])
        self.add_labels = Insert("job_labels", [column.name for column in JOB_LABELS.c])
        self.add_events = Insert("job_events", [column.name for column in JOB_EVENTS.c])
        self.add_audit = Insert("audit", [column.name for column in AUDIT.c if column is not AUDIT.c.seq])
        self.add_names = Insert("job_names", ["rowid", "name"])
        # The greatest seq ever given out, of jobs and of events: none is used twice.
        self.last_numbers = "SELECT name, seq FROM sqlite_sequence"
        self.set_moved = made(_compare_and_set(with_status=True))
        self.set_unmoved = made(_compare_and_set(with_status=False))
        # An index without the names themselves has to be told what it held.
        self.delete_name = (
            "INSERT INTO job_names (job_names, rowid, name) "
            "SELECT 'delete', seq, name_folded FROM jobs WHERE seq = :seq"
        )
        self.add_count = (
            "INSERT INTO job_counts (tenant, workflow, status, jobs) "
            "VALUES (:tenant, :workflow, :status, :jobs) "
            "ON CONFLICT (tenant, workflow, status) DO UPDATE SET jobs = job_counts.jobs + excluded.jobs"
        )
        self.set_fact = (
            "INSERT INTO store_facts (name, value) VALUES (:name, :value) "
            "ON CONFLICT (name) DO UPDATE SET value = excluded.value"
        )
        self.fact = made(sa.select(STORE_FACTS.c.value).where(STORE_FACTS.c.name == _P("name")))
        self.delete_told = (
            "DELETE FROM job_events WHERE kind = 'progressed' AND seq = "
            "(SELECT seq FROM job_events WHERE job_seq = :seq ORDER BY seq DESC LIMIT 1)"
        )
        self.delete_job = made(sa.delete(JOBS).where(JOBS.c.seq == _P("seq")))
        self.delete_label = made(
            sa.delete(JOB_LABELS).where(
                JOB_LABELS.c.key == _P("key"),
                JOB_LABELS.c.value == _P("value"),
                JOB_LABELS.c.seq == _P("seq"),
            )
        )
        self.add_leftover = "INSERT INTO job_leftovers (id) VALUES (:id) ON CONFLICT (id) DO NOTHING"
        self.quota = made(
            sa.select(TENANTS.c.max_cores, TENANTS.c.max_pending, TENANTS.c.max_bytes).where(
                TENANTS.c.name == _P("name")
            )
        )
        self.delete_leftover = made(sa.delete(JOB_LEFTOVERS).where(JOB_LEFTOVERS.c.id == _P("id")))
        self.leftovers = made(
            sa.select(JOB_LEFTOVERS.c.id)
            .where(JOB_LEFTOVERS.c.id > _P("after"))
            .order_by(JOB_LEFTOVERS.c.id)
            .limit(_P("n"))
        )
        self.ended = made(
            sa.select(JOBS.c.seq, JOBS.c.id, JOBS.c.completed_at, JOBS.c.created_ceiling, JOBS.c.tenant)
            .with_hint(JOBS, "INDEXED BY jobs_completed", "sqlite")
            .where(
                JOBS.c.completed_at >= _P("at"),
                sa.or_(JOBS.c.completed_at > _P("at"), JOBS.c.seq > _P("seq")),
            )
            .order_by(JOBS.c.completed_at, JOBS.c.seq)
            .limit(_P("n"))
        )
        of_tenant = sa.or_(_P("tenant").is_(sa.null()), JOBS.c.tenant == _P("tenant"))
        self.every_job = made(joined_jobs())
        self.by_id = made(joined_jobs().where(JOBS.c.id == _P("id"), of_tenant))
        self.by_key = made(
            joined_jobs()
            .add_columns(JOBS.c.idempotency_fingerprint)
            .where(JOBS.c.tenant == _P("tenant"), JOBS.c.idempotency_key == _P("key"))
        )
        self.counts = made(
            sa.select(JOB_COUNTS.c.workflow, JOB_COUNTS.c.status, JOB_COUNTS.c.jobs).where(
                JOB_COUNTS.c.tenant == _P("tenant")
            )
        )
        self.pending_count = made(
            sa.select(sa.func.coalesce(sa.func.sum(JOB_COUNTS.c.jobs), sa.literal_column("0"))).where(
                JOB_COUNTS.c.tenant == _P("tenant"), _PENDING
            )
        )
        self.last_ceiling = made(
            sa.select(JOBS.c.created_ceiling)
            .with_hint(JOBS, "INDEXED BY jobs_created", "sqlite")
            .order_by(JOBS.c.created_ceiling.desc())
            .limit(sa.literal_column("1"))
        )
        self.last_seq = made(sa.select(JOBS.c.seq).order_by(JOBS.c.seq.desc()).limit(sa.literal_column("1")))
        self.first_above = made(
            hinted("jobs_created")
            .where(JOBS.c.created_ceiling > _P("at"))
            .order_by(JOBS.c.created_ceiling, JOBS.c.seq)
            .limit(sa.literal_column("1"))
        )
        # From one tenant to the next, each by one step down the index.
        self.waiting_tenants = (
            "WITH RECURSIVE waiting (tenant) AS ("
            "SELECT (SELECT min(tenant) FROM jobs INDEXED BY jobs_pending WHERE status = 'pending') "
            "UNION SELECT (SELECT min(jobs.tenant) FROM jobs INDEXED BY jobs_pending "
            "WHERE status = 'pending' AND jobs.tenant > waiting.tenant) "
            "FROM waiting WHERE waiting.tenant IS NOT NULL) "
            "SELECT tenant, (SELECT min(cores) FROM jobs INDEXED BY jobs_pending "
            "WHERE status = 'pending' AND jobs.tenant = waiting.tenant) FROM waiting WHERE tenant IS NOT NULL"
        )
        self.next_cores = made(
            sa.select(JOBS.c.cores)
            .with_hint(JOBS, "INDEXED BY jobs_pending", "sqlite")
            .where(_PENDING, JOBS.c.tenant == _P("tenant"), JOBS.c.cores > _P("cores"))
            .order_by(JOBS.c.cores)
            .limit(sa.literal_column("1"))
        )
        self.pending_of_cores = made(
            sa.select(JOBS.c.priority, JOBS.c.seq)
            .with_hint(JOBS, "INDEXED BY jobs_pending", "sqlite")
            .where(_PENDING, JOBS.c.tenant == _P("tenant"), JOBS.c.cores == _P("cores"))
            .order_by(JOBS.c.priority.desc(), JOBS.c.seq)
            .limit(_P("n"))
        )
        self.running = made(
            hinted("jobs_status")
            .where(JOBS.c.status == sa.literal_column(f"'{JobStatus.RUNNING.value}'"))
            .order_by(JOBS.c.seq)
        )
        self.pending_since = made(
            sa.select(JOBS.c.updated_at, JOBS.c.attempt)
            .with_hint(JOBS, "INDEXED BY jobs_status", "sqlite")
            .where(_PENDING)
            .order_by(JOBS.c.seq)
            .limit(sa.literal_column("1000"))
        )
        self.of_workflow_version = made(
            hinted("jobs_workflow_version")
            .where(JOBS.c.workflow_version == _P("version"))
            .limit(sa.literal_column("1"))
        )
        event_columns = (
            JOB_EVENTS.c.seq,
            JOBS.c.id,
            JOB_EVENTS.c.kind,
            JOB_EVENTS.c.status,
            JOB_EVENTS.c.attempt,
            JOB_EVENTS.c.at,
            JOB_EVENTS.c.data,
            JOBS.c.tenant,
        )
        of_all = (
            sa.select(*event_columns)
            .join_from(JOB_EVENTS, JOBS, JOBS.c.seq == JOB_EVENTS.c.job_seq)
            .where(JOB_EVENTS.c.seq > _P("after_seq"))
            .order_by(JOB_EVENTS.c.seq)
            .limit(_P("n"))
        )
        self.events = made(of_all)
        self.events_of_tenant = made(
            of_all.where(JOB_EVENTS.c.tenant == _P("tenant")).with_hint(
                JOB_EVENTS, "INDEXED BY job_events_tenant", "sqlite"
            )
        )
        self.events_of_job = made(of_all.where(JOBS.c.id == _P("job_id"), of_tenant))
        self.newest_event = "SELECT seq FROM sqlite_sequence WHERE name = 'job_events'"
        self.newest_event_of_tenant = "SELECT max(seq) FROM job_events WHERE tenant = :tenant"
        self._briefs = {
            size: made(sa.select(*BRIEF_COLUMNS).where(JOBS.c.id.in_([_P(f"id{i}") for i in range(size)])))
            for size in _SIZES
        }
        self._in_seqs = {
            size: made(joined_jobs().where(JOBS.c.seq.in_([_P(f"s{i}") for i in range(size)])))
            for size in _SIZES
        }

    def by_seqs(self, seqs: list[int]) -> tuple[str, dict[str, int]]:
        """The jobs with these seqs, at most 512, in any order; the last one fills the spare places."""
        size = next(size for size in _SIZES if size >= len(seqs))
        filled = seqs + [seqs[-1]] * (size - len(seqs))
        return self._in_seqs[size], {f"s{i}": seq for i, seq in enumerate(filled)}

    def briefs(self, job_ids: list[str]) -> tuple[str, dict[str, str]]:
        """What `brief_of` takes of these jobs, at most 512; as `by_seqs`."""
        size = next(size for size in _SIZES if size >= len(job_ids))
        filled = job_ids + [job_ids[-1]] * (size - len(job_ids))
        return self._briefs[size], {f"id{i}": job_id for i, job_id in enumerate(filled)}


# A few sizes of one statement instead of one for each length, so that the driver finds them prepared.
_SIZES: Final = (1, 8, 64, 512)

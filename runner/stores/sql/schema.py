"""The tables, as the migrations leave them. A test holds this and `migrations/` together.

Times are integers: microseconds since the epoch, UTC. JSON is text. Nothing here needs a type
conversion by SQLAlchemy, so statements are compiled once and run on the driver's own cursor.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

REVISION: Final = "0002"
METADATA: Final = sa.MetaData()

# On SQLite only INTEGER PRIMARY KEY is the row's own number.
_BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")

JOBS: Final = sa.Table(
    "jobs",
    METADATA,
    sa.Column("seq", _BIG, primary_key=True),
    sa.Column("id", sa.Text, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("workflow", sa.Text, nullable=False),
    sa.Column("name", sa.Text),
    sa.Column("name_folded", sa.Text),
    sa.Column("engine", sa.Text, nullable=False),
    sa.Column("cores", sa.Integer, nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("timeout_s", sa.Double),
    sa.Column("max_retries", sa.Integer, nullable=False),
    sa.Column("retries_left", sa.Integer, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("created_at", _BIG, nullable=False),
    # The greatest created_at up to this seq. It never falls as seq grows, so that a range of times
    # becomes a range of seq; store_facts.created_lag_us says how far a created_at may lie below it.
    sa.Column("created_ceiling", _BIG, nullable=False),
    sa.Column("updated_at", _BIG, nullable=False),
    sa.Column("started_at", _BIG),
    sa.Column("completed_at", _BIG),
    sa.Column("cancel_requested_at", _BIG),
    sa.Column("exit_code", sa.Integer),
    sa.Column("exit_signal", sa.Integer),
    sa.Column("error_message", sa.Text),
    sa.Column("progress", sa.Text),
    sa.Column("usage", sa.Text),
    sa.Column("idempotency_key", sa.Text),
    sa.Column("idempotency_fingerprint", sa.Text),
    sqlite_autoincrement=True,
)
sa.Index("jobs_id", JOBS.c.id, unique=True)
sa.Index("jobs_status", JOBS.c.status, JOBS.c.seq)
sa.Index("jobs_workflow_status", JOBS.c.workflow, JOBS.c.status, JOBS.c.seq)
sa.Index("jobs_created", JOBS.c.created_ceiling, JOBS.c.seq, JOBS.c.created_at)
_pending = sa.text("status = 'pending'")
sa.Index(
    "jobs_pending",
    JOBS.c.cores,
    JOBS.c.priority.desc(),
    JOBS.c.seq,
    sqlite_where=_pending,
    postgresql_where=_pending,
)
_has_key = sa.text("idempotency_key IS NOT NULL")
sa.Index(
    "jobs_idempotency_key",
    JOBS.c.idempotency_key,
    unique=True,
    sqlite_where=_has_key,
    postgresql_where=_has_key,
)
# Each job comes in once, at its end, and nearly always last: 2.5 of the 60 us that an end costs.
_has_ended = sa.text("completed_at IS NOT NULL")
sa.Index("jobs_completed", JOBS.c.completed_at, sqlite_where=_has_ended, postgresql_where=_has_ended)
_has_name = sa.text("name_folded IS NOT NULL")
for _length in (1, 2):
    sa.Index(
        f"jobs_name_start_{_length}",
        sa.text(f"substr(name_folded, 1, {_length})"),
        JOBS.c.seq,
        sqlite_where=_has_name,
        postgresql_where=_has_name,
    )

# What never changes and may be large, kept apart so that a change of status rewrites a small row.
JOB_SPECS: Final = sa.Table(
    "job_specs",
    METADATA,
    sa.Column("seq", _BIG, sa.ForeignKey("jobs.seq", ondelete="CASCADE"), primary_key=True),
    sa.Column("spec", sa.Text, nullable=False),
)

# No foreign key: it would need an index of its own. A job's labels are deleted by name, with it.
JOB_LABELS: Final = sa.Table(
    "job_labels",
    METADATA,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, primary_key=True),
    sa.Column("seq", _BIG, primary_key=True),
    sqlite_with_rowid=False,
)

JOB_EVENTS: Final = sa.Table(
    "job_events",
    METADATA,
    sa.Column("seq", _BIG, primary_key=True),
    sa.Column("job_seq", _BIG, sa.ForeignKey("jobs.seq", ondelete="CASCADE"), nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("at", _BIG, nullable=False),
    sa.Column("data", sa.Text, nullable=False),
    sqlite_autoincrement=True,
)
sa.Index("job_events_job", JOB_EVENTS.c.job_seq, JOB_EVENTS.c.seq)

JOB_COUNTS: Final = sa.Table(
    "job_counts",
    METADATA,
    sa.Column("workflow", sa.Text, primary_key=True),
    sa.Column("status", sa.Text, primary_key=True),
    sa.Column("jobs", _BIG, nullable=False),
    sqlite_with_rowid=False,
)

# Written by the transaction that deletes the job, so that no crash parts the two.
JOB_LEFTOVERS: Final = sa.Table(
    "job_leftovers",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sqlite_with_rowid=False,
)

STORE_FACTS: Final = sa.Table(
    "store_facts",
    METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", _BIG, nullable=False),
    sqlite_with_rowid=False,
)
CREATED_LAG: Final = "created_lag_us"
CHECKED_AT: Final = "checked_at_us"
BURIED_AT: Final = "buried_at_us"

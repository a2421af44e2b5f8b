"""The tables, as the migrations leave them. A test holds this and `migrations/` together.

Times are integers: microseconds since the epoch, UTC. JSON is text. Nothing here needs a type
conversion by SQLAlchemy, so statements are compiled once and run on the driver's own cursor.

What an index is on SQLite alone is said here: to name another database imports what speaks to it, 70 ms of
each start. The migrations name both.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

REVISION: Final = "0005"
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
    sa.Column("owner", sa.Text, server_default=sa.text("'operator'"), nullable=False),
    sa.Column("tenant", sa.Text, server_default=sa.text("'default'"), nullable=False),
    sa.Column("isolation", sa.Text),
    sa.Column("workflow_version", sa.Text),
    sa.Column("workflow_commit", sa.Text),
    sa.Column("trace", sa.Text),
    sqlite_autoincrement=True,
)
sa.Index("jobs_id", JOBS.c.id, unique=True)
sa.Index("jobs_status", JOBS.c.status, JOBS.c.seq)
sa.Index("jobs_workflow_status", JOBS.c.workflow, JOBS.c.status, JOBS.c.seq)
sa.Index("jobs_tenant_status", JOBS.c.tenant, JOBS.c.status, JOBS.c.seq)
sa.Index("jobs_tenant_workflow_status", JOBS.c.tenant, JOBS.c.workflow, JOBS.c.status, JOBS.c.seq)
sa.Index("jobs_created", JOBS.c.created_ceiling, JOBS.c.seq, JOBS.c.created_at)
_pending = sa.text("status = 'pending'")
sa.Index(
    "jobs_pending",
    JOBS.c.tenant,
    JOBS.c.cores,
    JOBS.c.priority.desc(),
    JOBS.c.seq,
    sqlite_where=_pending,
)
_has_key = sa.text("idempotency_key IS NOT NULL")
sa.Index(
    "jobs_idempotency_key",
    JOBS.c.tenant,
    JOBS.c.idempotency_key,
    unique=True,
    sqlite_where=_has_key,
)
_has_version = sa.text("workflow_version IS NOT NULL")
sa.Index(
    "jobs_workflow_version",
    JOBS.c.workflow_version,
    JOBS.c.seq,
    sqlite_where=_has_version,
)
# Each job comes in once, at its end, and nearly always last: 2.5 of the 60 us that an end costs.
_has_ended = sa.text("completed_at IS NOT NULL")
sa.Index("jobs_completed", JOBS.c.completed_at, sqlite_where=_has_ended)
_has_name = sa.text("name_folded IS NOT NULL")
for _length in (1, 2):
    sa.Index(
        f"jobs_name_start_{_length}",
        sa.text(f"substr(name_folded, 1, {_length})"),
        JOBS.c.seq,
        sqlite_where=_has_name,
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
    sa.Column("tenant", sa.Text, server_default=sa.text("'default'"), nullable=False),
    sqlite_with_rowid=False,
)
# The labels of others must not make a tenant's search longer.
sa.Index("job_labels_tenant", JOB_LABELS.c.tenant, JOB_LABELS.c.key, JOB_LABELS.c.value, JOB_LABELS.c.seq)

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
    sa.Column("tenant", sa.Text, server_default=sa.text("'default'"), nullable=False),
    sqlite_autoincrement=True,
)
sa.Index("job_events_job", JOB_EVENTS.c.job_seq, JOB_EVENTS.c.seq)
# A tenant with few jobs must not walk past the events of all others.
sa.Index("job_events_tenant", JOB_EVENTS.c.tenant, JOB_EVENTS.c.seq)

# The rows of the tenant `*` are the sums over all tenants.
JOB_COUNTS: Final = sa.Table(
    "job_counts",
    METADATA,
    sa.Column("tenant", sa.Text, primary_key=True),
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

API_KEYS: Final = sa.Table(
    "api_keys",
    METADATA,
    sa.Column("prefix", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("scopes", sa.Text, nullable=False),
    sa.Column("secret_sha256", sa.LargeBinary, nullable=False),
    sa.Column("created_at", _BIG, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("expires_at", _BIG),
    sa.Column("revoked_at", _BIG),
    sqlite_with_rowid=False,
)

# Only those for which a quota was set.
TENANTS: Final = sa.Table(
    "tenants",
    METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("max_cores", _BIG),
    sa.Column("max_pending", _BIG),
    sa.Column("max_bytes", _BIG),
    sqlite_with_rowid=False,
)

AUDIT: Final = sa.Table(
    "audit",
    METADATA,
    sa.Column("seq", _BIG, primary_key=True),
    sa.Column("at", _BIG, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("address", sa.Text),
    sa.Column("request_id", sa.Text),
    sa.Column("data", sa.Text, nullable=False),
    sqlite_autoincrement=True,
)
sa.Index("audit_tenant", AUDIT.c.tenant, AUDIT.c.seq)
sa.Index("audit_subject", AUDIT.c.subject, AUDIT.c.seq)

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
ACCESS_VERSION: Final = "access_version"
CURSOR_KEYS: Final = ("cursor_key_0", "cursor_key_1")  # random; made by the migration

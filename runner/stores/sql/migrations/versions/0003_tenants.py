"""Owners and tenants of jobs, keys, quotas, and the record of changes."""

from secrets import randbits

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    owner, tenant = sa.text("'operator'"), sa.text("'default'")
    op.add_column("jobs", sa.Column("owner", sa.Text, server_default=owner, nullable=False))
    op.add_column("jobs", sa.Column("tenant", sa.Text, server_default=tenant, nullable=False))
    op.add_column("jobs", sa.Column("isolation", sa.Text))
    op.create_index("jobs_tenant_status", "jobs", ["tenant", "status", "seq"])
    op.create_index("jobs_tenant_workflow_status", "jobs", ["tenant", "workflow", "status", "seq"])
    pending = sa.text("status = 'pending'")
    op.drop_index("jobs_pending", "jobs")
    op.create_index(
        "jobs_pending",
        "jobs",
        ["tenant", "cores", sa.text("priority DESC"), "seq"],
        sqlite_where=pending,
        postgresql_where=pending,
    )
    has_key = sa.text("idempotency_key IS NOT NULL")
    op.drop_index("jobs_idempotency_key", "jobs")
    op.create_index(
        "jobs_idempotency_key",
        "jobs",
        ["tenant", "idempotency_key"],
        unique=True,
        sqlite_where=has_key,
        postgresql_where=has_key,
    )
    op.add_column("job_labels", sa.Column("tenant", sa.Text, server_default=tenant, nullable=False))
    op.create_index("job_labels_tenant", "job_labels", ["tenant", "key", "value", "seq"])
    _count_by_tenant()
    op.create_table(
        "api_keys",
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
    op.create_table(
        "tenants",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("max_cores", _BIG),
        sa.Column("max_pending", _BIG),
        sa.Column("max_bytes", _BIG),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "audit",
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
    op.create_index("audit_tenant", "audit", ["tenant", "seq"])
    op.create_index("audit_subject", "audit", ["subject", "seq"])
    facts = sa.table("store_facts", sa.column("name", sa.Text), sa.column("value", _BIG))
    op.bulk_insert(facts, [{"name": f"cursor_key_{part}", "value": randbits(63)} for part in range(2)])


def _count_by_tenant() -> None:
    """What was counted until now are the sums over all tenants, and of the one there was."""
    op.rename_table("job_counts", "job_counts_before")
    op.create_table(
        "job_counts",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("workflow", sa.Text, primary_key=True),
        sa.Column("status", sa.Text, primary_key=True),
        sa.Column("jobs", _BIG, nullable=False),
        sqlite_with_rowid=False,
    )
    columns = "INSERT INTO job_counts (tenant, workflow, status, jobs) SELECT "
    op.execute(columns + "'*', workflow, status, jobs FROM job_counts_before")
    op.execute(columns + "'default', workflow, status, jobs FROM job_counts_before")
    op.drop_table("job_counts_before")

"""Jobs, their labels, names, events and counts."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "jobs",
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
    op.create_index("jobs_id", "jobs", ["id"], unique=True)
    op.create_index("jobs_status", "jobs", ["status", "seq"])
    op.create_index("jobs_workflow_status", "jobs", ["workflow", "status", "seq"])
    op.create_index("jobs_created", "jobs", ["created_ceiling", "seq", "created_at"])
    pending = sa.text("status = 'pending'")
    op.create_index(
        "jobs_pending",
        "jobs",
        ["cores", sa.text("priority DESC"), "seq"],
        sqlite_where=pending,
        postgresql_where=pending,
    )
    has_key = sa.text("idempotency_key IS NOT NULL")
    op.create_index(
        "jobs_idempotency_key",
        "jobs",
        ["idempotency_key"],
        unique=True,
        sqlite_where=has_key,
        postgresql_where=has_key,
    )
    has_name = sa.text("name_folded IS NOT NULL")
    for length in (1, 2):
        op.create_index(
            f"jobs_name_start_{length}",
            "jobs",
            [sa.text(f"substr(name_folded, 1, {length})"), "seq"],
            sqlite_where=has_name,
            postgresql_where=has_name,
        )
    op.create_table(
        "job_specs",
        sa.Column("seq", _BIG, sa.ForeignKey("jobs.seq", ondelete="CASCADE"), primary_key=True),
        sa.Column("spec", sa.Text, nullable=False),
    )
    op.create_table(
        "job_labels",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, primary_key=True),
        sa.Column("seq", _BIG, primary_key=True),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "job_events",
        sa.Column("seq", _BIG, primary_key=True),
        sa.Column("job_seq", _BIG, sa.ForeignKey("jobs.seq", ondelete="CASCADE"), nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("at", _BIG, nullable=False),
        sa.Column("data", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("job_events_job", "job_events", ["job_seq", "seq"])
    op.create_table(
        "job_counts",
        sa.Column("workflow", sa.Text, primary_key=True),
        sa.Column("status", sa.Text, primary_key=True),
        sa.Column("jobs", _BIG, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "store_facts",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", _BIG, nullable=False),
        sqlite_with_rowid=False,
    )
    if op.get_context().dialect.name == "sqlite":
        # Only jobs with a name have a row here. Names are folded before they come in, because the
        # tokenizer's own folding differs from Python's.
        op.execute(
            "CREATE VIRTUAL TABLE job_names USING fts5("
            "name, content='', columnsize=0, tokenize='trigram case_sensitive 1')"
        )

"""Ended jobs in order of their end, and the deleted jobs whose files may still be there."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    has_ended = sa.text("completed_at IS NOT NULL")
    op.create_index(
        "jobs_completed", "jobs", ["completed_at"], sqlite_where=has_ended, postgresql_where=has_ended
    )
    op.create_table("job_leftovers", sa.Column("id", sa.Text, primary_key=True), sqlite_with_rowid=False)

"""Which version of its workflow each job runs, and the events of one tenant by themselves."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("workflow_version", sa.Text))
    op.add_column("jobs", sa.Column("workflow_commit", sa.Text))
    has_version = sa.text("workflow_version IS NOT NULL")
    op.create_index(
        "jobs_workflow_version",
        "jobs",
        ["workflow_version", "seq"],
        sqlite_where=has_version,
        postgresql_where=has_version,
    )
    tenant = sa.text("'default'")
    op.add_column("job_events", sa.Column("tenant", sa.Text, server_default=tenant, nullable=False))
    op.execute(
        "UPDATE job_events SET tenant = (SELECT jobs.tenant FROM jobs WHERE jobs.seq = job_events.job_seq) "
        "WHERE job_seq IN (SELECT seq FROM jobs WHERE tenant <> 'default')"
    )
    op.create_index("job_events_tenant", "job_events", ["tenant", "seq"])

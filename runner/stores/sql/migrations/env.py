"""Alembic's entry. The connection comes from `migrate.py`, in a transaction; no ini file, no logging."""

from alembic import context

from runner.stores.sql.schema import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()

"""The durable store: SQLAlchemy Core over SQLite."""

from runner.stores.sql.store import SqlStore

__all__ = ["SqlStore"]

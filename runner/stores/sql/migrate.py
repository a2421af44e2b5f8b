"""Bring a database to this program's revision, or say in one line why that cannot be."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from runner.errors import StoreUnavailable
from runner.stores.sql import sqlite
from runner.stores.sql.schema import REVISION

if TYPE_CHECKING:
    import sqlite3

    from alembic.config import Config

_MIGRATIONS = "runner.stores.sql:migrations"  # a package resource: the same in a source tree and in a wheel


def migrate(file: sqlite.SqliteFile) -> None:
    """Create or upgrade the tables in one transaction; all of it happens or none.

    Raises StoreUnavailable when the file belongs to another program or to a newer Snakeline, and
    whatever the driver raises when it cannot be read or written.
    """
    with closing(file.open(create=True)) as connection:
        if _revision(connection, file.path) == REVISION:
            return
    engine = sa.create_engine("sqlite://", creator=file.connect, poolclass=NullPool)
    try:
        with engine.connect() as wrapped:
            wrapped.exec_driver_sql("BEGIN IMMEDIATE")
            connection = wrapped.connection.driver_connection  # type: ignore[assignment]
            # Looked at again now that nobody else can write: another process may have been faster.
            found = _revision(connection, file.path)
            if found != REVISION:
                _upgrade(wrapped, found, file.path)
            wrapped.commit()
    except sa.exc.DBAPIError as error:
        raise error.orig or error from error
    file.sync_directory()


def is_current(file: sqlite.SqliteFile) -> bool:
    """Whether the file has this program's revision; false for an older one. Changes nothing.

    Raises as `migrate`.
    """
    with closing(file.open()) as connection:
        found = _revision(connection, file.path)
    if found not in (None, REVISION):
        _require_known(found, file.path)
    return found == REVISION


def _revision(connection: sqlite3.Connection, path: str) -> str | None:
    if sqlite.is_fresh(connection):
        return None
    if not sqlite.is_ours(connection):
        raise StoreUnavailable(f"The store {path} is a database of another program: choose another file.")
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return None if row is None else str(row[0])


def _upgrade(connection: sa.Connection, found: str | None, path: str) -> None:
    # Alembic takes 0.2 s to import and is needed only here.
    from alembic import command  # noqa: PLC0415

    config = _config()
    if found is not None:
        _require_known(found, path)
    else:
        driver: Any = connection.connection.driver_connection
        sqlite.claim(driver)
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _config() -> Config:
    from alembic.config import Config  # noqa: PLC0415

    config = Config()  # no file: an alembic.ini in the working directory is none of ours
    config.set_main_option("script_location", _MIGRATIONS)
    return config


def _require_known(found: str, path: str) -> None:
    """Raises StoreUnavailable for a revision that no migration here leads to or from."""
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if found not in known:
        raise StoreUnavailable(
            f"The store {path} was written by a newer Snakeline (revision {found}, "
            f"this one knows {REVISION}): start that version, or use another database."
        )

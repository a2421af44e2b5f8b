"""Bring a database to this program's revision, or say in one line why that cannot be."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from runner.errors import StoreUnavailable
from runner.stores.sql import sqlite, upgrade_copies
from runner.stores.sql.schema import REVISION

if TYPE_CHECKING:
    from collections.abc import Callable

    from alembic.config import Config

_MIGRATIONS = "runner.stores.sql:migrations"  # a package resource: the same in a source tree and in a wheel


def migrate(
    file: sqlite.SqliteFile, *, may_be_new: bool, before_upgrade: Callable[[str], object] = lambda _: None
) -> None:
    """Create or upgrade the tables in one transaction; all of it happens or none.

    `before_upgrade` is told the revision that is left behind, while nobody else can write. Raises what that
    raises, StoreUnavailable when the file belongs to another program or to a newer Snakeline, or is
    missing or empty and may not be, and whatever the driver raises when it cannot be read or written.
    """
    require_file(file, may_be_new=may_be_new)
    with closing(file.open(create=may_be_new)) as connection:
        found = revision_of(connection, file.path)
        if found == REVISION:
            return
        if found is None and not may_be_new:
            raise missing(file.path)
    engine = sa.create_engine("sqlite://", creator=file.connect, poolclass=NullPool, hide_parameters=True)
    try:
        with engine.connect() as wrapped:
            wrapped.exec_driver_sql("BEGIN IMMEDIATE")
            connection = wrapped.connection.driver_connection  # type: ignore[assignment]
            # Looked at again now that nobody else can write: another process may have been faster.
            found = revision_of(connection, file.path)
            if found != REVISION:
                if found is not None:
                    require_known(found, file.path)
                    before_upgrade(found)
                _upgrade(wrapped, found)
            wrapped.commit()
    except sa.exc.DBAPIError as error:
        raise error.orig or error from error
    file.sync_directory()


def require_file(file: sqlite.SqliteFile, *, may_be_new: bool) -> None:
    """Raises StoreUnavailable when there is no file, and none may be made now."""
    if os.path.lexists(file.path):
        return
    if os.path.lexists(sqlite.incoming(os.path.realpath(file.path))):
        raise StoreUnavailable(
            f"A restore of the store {file.path} was cut short: run `snakeline restore FILE` again."
        )
    if not may_be_new:
        raise missing(file.path)


def missing(path: str) -> StoreUnavailable:
    return StoreUnavailable(
        f"The store {path} is missing or empty, but files of its jobs are there: "
        "`snakeline restore FILE`, or set them aside with `snakeline check --repair`."
    )


def is_current(file: sqlite.SqliteFile, *, may_be_new: bool = True) -> bool:
    """Whether the file has this program's revision; false for an older one. Changes nothing.

    Raises as `migrate`.
    """
    with closing(file.open()) as connection:
        found = revision_of(connection, file.path)
    if found is None and not may_be_new:
        raise missing(file.path)
    if found not in (None, REVISION):
        require_known(found, file.path)
    return found == REVISION


def revision_of(connection: sqlite3.Connection, path: str) -> str | None:
    """The file's revision; None when there is nothing in it. Raises as `migrate`."""
    if sqlite.is_fresh(connection):
        return None
    if not sqlite.is_ours(connection):
        raise StoreUnavailable(f"The store {path} is a database of another program: choose another file.")
    try:
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.OperationalError as error:
        if "no such table" not in str(error):
            raise
        row = None
    if row is None:
        raise sqlite.damaged(path)
    return str(row[0])


def _upgrade(connection: sa.Connection, found: str | None) -> None:
    # Alembic takes 0.2 s to import and is needed only here.
    from alembic import command  # noqa: PLC0415

    config = _config()
    if found is None:
        driver: Any = connection.connection.driver_connection
        sqlite.claim(driver)
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _config() -> Config:
    from alembic.config import Config  # noqa: PLC0415

    config = Config()  # no file: an alembic.ini in the working directory is none of ours
    config.set_main_option("script_location", _MIGRATIONS)
    return config


def require_known(found: str, path: str) -> None:
    """Raises StoreUnavailable for a revision that no migration here leads to or from."""
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if found not in known:
        kept = next((copy for copy in upgrade_copies.found(path) if copy.revision in known), None)
        back = "use another database" if kept is None else f"go back with `snakeline restore {kept.path}`"
        raise StoreUnavailable(
            f"The store {path} was written by a newer Snakeline (revision {found}, "
            f"this one knows {REVISION}): start that version, or {back}."
        )

"""What a start does with an older store, without the start, and with the copy of it where one likes."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from runner import backup
from runner.data_dir import DataDir
from runner.stores.sql import before_upgrade, sqlite
from runner.stores.sql.migrate import migrate
from runner.stores.sql.schema import REVISION

if TYPE_CHECKING:
    from pathlib import Path

    from runner.settings import RunnerSettings


@dataclass(frozen=True, slots=True)
class Upgraded:
    """`before` is the revision that the store had and `copy` where it is as it was; None: it was current."""

    store: str
    before: str | None = None
    copy: str | None = None
    after: str = REVISION


def upgrade(settings: RunnerSettings, copy: Path | None = None) -> Upgraded:
    """Copy the store to `copy`, by default beside it, then upgrade it. Not while a service runs.

    Raises BackupRefused, StoreUnavailable, DataDirUnusable.
    """
    store = backup.store_of(settings, "upgrade")
    if not os.path.exists(store):
        raise backup.BackupRefused(f"There is no store at {store} yet.")
    found: list[tuple[str, str]] = []

    def keep(revision: str) -> None:
        if copy is not None and os.path.lexists(copy):
            raise backup.BackupRefused(f"{copy} exists: choose another file.")
        if copy is None:
            kept = before_upgrade.copy_of(store, revision)
        else:
            kept = os.fspath(backup.back_up(settings, copy).file)
        found.append((revision, kept))

    with closing(DataDir(settings.data_dir)):
        try:
            migrate(sqlite.SqliteFile(store), may_be_new=False, before_upgrade=keep)
        except (sqlite3.Error, sa.exc.SQLAlchemyError, OSError) as error:
            raise sqlite.cannot_open(error, store) from error
    return Upgraded(store, *found[0]) if found else Upgraded(store)

"""Copies a store before an upgrade changes it: whole, durable, and beside it."""

from __future__ import annotations

import filecmp
import os
import sqlite3
from contextlib import suppress
from typing import Final

from runner.errors import StoreUnavailable
from runner.stores.sql import snapshot, sqlite, swap, upgrade_copies

_SPARE_BYTES: Final = 8 * 2**20


def room_bytes(store: str) -> int:
    """What must be free on the disk: for the copy, and as much for the upgrade's log of what it changes."""
    path = os.path.realpath(store)
    present = sum(os.path.getsize(each) for each in (path, f"{path}-wal") if os.path.exists(each))
    return 2 * present + _SPARE_BYTES


def require_room(store: str) -> None:
    """Raises StoreUnavailable, with one line that says how much is missing."""
    needed = room_bytes(store)
    about = os.statvfs(os.path.dirname(os.path.realpath(store)))
    free = about.f_bavail * about.f_frsize
    if free < needed:
        raise StoreUnavailable(
            f"The store {store} has to be upgraded, and is copied before: that takes {_mib(needed)} MiB of "
            f"its disk, where {_mib(free)} are free. Make room, or have the copy elsewhere with "
            "`snakeline upgrade --copy FILE`."
        )


def copy_of(store: str, revision: str) -> str:
    """Copy the store, which is of this revision; the answer is where to.

    The copy is proven whole and is durable before it has its name. A start that is cut short again and again
    keeps one copy and not many: a second one with the same content is not kept. Of older ones
    `upgrade_copies.KEPT` stay. Raises StoreUnavailable, with one line.
    """
    incoming = upgrade_copies.incoming(store)
    try:
        swap.make_empty(incoming)  # what a start that was cut short has left is room
        require_room(store)
        if os.geteuid() == 0:  # as SQLite does with the store's log: the service may be somebody else
            owner = os.stat(store)
            os.chown(incoming, owner.st_uid, owner.st_gid, follow_symlinks=False)
        snapshot.copy(store, incoming, at_rest=False)
        snapshot.examine(incoming)
        kept = _same_as(incoming, store, revision)
        if kept is None:
            swap.sync(incoming)
            kept = upgrade_copies.new_name(store, revision)
            os.rename(incoming, kept)
        swap.sync_directory_of(kept)
        upgrade_copies.prune(store, kept)
    except StoreUnavailable as error:
        raise StoreUnavailable(str(error).replace(incoming, f"The store {store}")) from error
    except (sqlite3.Error, OSError) as error:
        raise _not_copied(error, store) from error
    finally:
        swap.discard(incoming)
    return kept


def _same_as(copy: str, store: str, revision: str) -> str | None:
    """An earlier copy with the same content, every byte compared."""
    for earlier in upgrade_copies.found(store):
        with suppress(OSError):
            if earlier.revision == revision and filecmp.cmp(copy, earlier.path, shallow=False):
                return earlier.path
    return None


def _not_copied(error: Exception, store: str) -> StoreUnavailable:
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
    elif sqlite.is_damage(error):
        return sqlite.damaged(store)
    else:
        reason = " ".join(str(error).split())
    return StoreUnavailable(
        f"The store {store} has to be upgraded, and cannot be copied before: {reason}. Mend that, or have "
        "the copy elsewhere with `snakeline upgrade --copy FILE`."
    )


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:,.1f}"

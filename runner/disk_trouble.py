"""What the kernel's errors say of a disk, and how whoever waits is told. Standard library only."""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING

from runner.errors import StorageFull

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.errors import BackendUnavailable, StoreUnavailable

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
IMMOVABLE = FULL | {errno.EXDEV}
"""Why a folder cannot be moved away that could be removed where it is."""
PASSING = FULL | {errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN}
"""What ails the machine and not the job: over when somebody makes room or mounts again."""


def no_room_for(what: str) -> StorageFull:
    return StorageFull(f"There is no room for {what}: make room in the data directory.")


@contextmanager
def telling_trouble(what: str, otherwise: type[StoreUnavailable | BackendUnavailable]) -> Iterator[None]:
    """What the disk has against the files that `what` names is told. Raises StorageFull, or `otherwise`."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise no_room_for(what) from error
        raise otherwise(f"{what.capitalize()} cannot be written now: {error.strerror}.") from error

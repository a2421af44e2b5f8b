"""Saves a file whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def saved(to: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A file that becomes `to` when all has gone well, and is gone otherwise.

    Until then it has a name of its own beside `to`: two that save the same do not disturb each other, and
    nothing that is there already is touched, nor a link followed. Raises OSError.
    """
    target = os.fspath(to)
    # Not made of the target's name: that may be as long as a name can be.
    partial = os.path.join(os.path.dirname(target), f".snakeline-{secrets.token_hex(8)}.part")
    if os.path.isdir(target):  # said before all of it is fetched
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), target)
    if os.path.lexists(target) and not os.path.isfile(target):
        raise FileExistsError(errno.EEXIST, "it is there, and is no plain file", target)
    file = open(partial, "xb")  # noqa: SIM115 - closed below, before it gets its name
    try:
        with file:
            yield file
        os.replace(partial, target)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(partial)

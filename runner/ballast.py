"""Room on the disk kept for what frees some: to open the store, and to delete rows from it."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# To open the store takes 32 KiB, to delete a row from it up to 128 KiB of its write-ahead log.
_BYTES: Final = 2**20


class Ballast:
    """The file `<data_dir>/ballast`, which only takes up room. A full disk could not be emptied without."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "ballast"

    def take(self) -> None:
        """Make the file if it is not there; without the room for it, another time."""
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError:
            return
        try:
            os.posix_fallocate(fd, 0, _BYTES)
        except OSError:
            self._release()  # a part of it would only make the disk fuller
        finally:
            os.close(fd)

    def is_needed(self) -> bool:
        """Whether the disk is so full that its room would make the difference."""
        try:
            about = os.statvfs(self._path.parent)
        except OSError:
            return False
        return about.f_bavail * about.f_frsize < _BYTES

    @contextmanager
    def released(self) -> Iterator[None]:
        """Its room is free meanwhile, for whoever is the first to take it."""
        self._release()
        try:
            yield
        finally:
            self.take()

    def _release(self) -> None:
        with suppress(OSError):
            os.unlink(self._path)

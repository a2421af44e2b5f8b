"""A file that is being received, within what may be received."""

from __future__ import annotations

import hashlib
import os
from typing import IO, TYPE_CHECKING

from runner.disk_trouble import telling_trouble
from runner.errors import StoreUnavailable, UploadTooLarge
from runner.new_files import new_file, write_all

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class FileSink:
    """A file that is being received."""

    def __init__(self, name: str, place: Path, spend: Callable[[int], None]) -> None:
        """Raises OSError."""
        self.name = name
        self.place = place
        self.size_bytes = 0
        self._spend = spend
        self._digest = hashlib.sha256()
        self._file: IO[bytes] = new_file(os.fspath(place))

    def write(self, data: bytes) -> None:
        """Raises UploadTooLarge, StorageFull, StoreUnavailable."""
        self._spend(len(data))
        self._digest.update(data)
        self.size_bytes += len(data)
        with telling_trouble("the job's files", StoreUnavailable):
            write_all(self._file, data)

    def close(self) -> None:
        """Safe to repeat."""
        self._file.close()

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


class Budget:
    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self.spent_bytes = 0

    def spend(self, size_bytes: int) -> None:
        """Raises UploadTooLarge."""
        self.spent_bytes += size_bytes
        if self.spent_bytes > self._limit_bytes:
            raise UploadTooLarge(self._limit_bytes)

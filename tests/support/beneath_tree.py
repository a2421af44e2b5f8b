"""A folder with files, one beside it with a secret, and both ways to open what is beneath the first."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from runner.beneath import by_openat2, name_by_name, open_file, open_folder, resolver

if TYPE_CHECKING:
    from pathlib import Path

    from runner.beneath import Resolve

INSIDE, SECRET = b"inside", b"secret"
HAS_OPENAT2 = resolver() is by_openat2
WAYS = [
    pytest.param(
        by_openat2, marks=pytest.mark.skipif(not HAS_OPENAT2, reason="no openat2 here"), id="openat2"
    ),
    pytest.param(name_by_name, id="name by name"),
]


class Tree:
    """`top` is the folder to open beneath; `outside` holds a secret that no path may lead to."""

    def __init__(self, directory: Path, resolve: Resolve) -> None:
        self.resolve = resolve
        self.top = directory / "top"
        self.outside = directory / "outside"
        for folder in (self.top, self.outside):
            (folder / "folder").mkdir(parents=True)
        (self.top / "file").write_bytes(INSIDE)
        (self.top / "folder" / "file").write_bytes(INSIDE)
        (self.outside / "file").write_bytes(SECRET)
        (self.outside / "folder" / "file").write_bytes(SECRET)
        self.fd = os.open(self.top, os.O_PATH | os.O_DIRECTORY)

    def read(self, path: bytes) -> bytes:
        fd = open_file(self.fd, path, resolve=self.resolve)
        try:
            return os.read(fd, 100)
        finally:
            os.close(fd)

    def names(self, path: bytes) -> list[str]:
        fd = open_folder(self.fd, path, resolve=self.resolve)
        try:
            return os.listdir(fd)
        finally:
            os.close(fd)

    def is_absent(self, path: bytes) -> bool:
        for opened in (self.read, self.names):
            with pytest.raises(FileNotFoundError):
                opened(path)
        return True

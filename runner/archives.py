"""Takes tar and ZIP archives apart that somebody else has made: plain files and folders, and nothing else.

What an archive says of itself is believed only as far as it is bounded here: how many entries it has, how
much comes out of it, how large a piece of it is held in memory. Nothing is written but new files below one
folder.
"""

from __future__ import annotations

import gzip
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from contextlib import closing
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final, Literal

from runner.new_files import new_file, write_all
from runner.tree_names import UnusableName

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runner.tree_names import TreeNames

Kind = Literal["tar", "zip"]

_SUFFIXES: Final[tuple[tuple[str, Kind], ...]] = (
    (".tar", "tar"),
    (".tar.gz", "tar"),
    (".tgz", "tar"),
    (".zip", "zip"),
)
_PIECE_BYTES: Final = 65_536
_MOST_AT_ONCE_BYTES: Final = 2**21  # a name or a table of contents; the libraries hold these in memory
_GZIP: Final = b"\x1f\x8b"
_BROKEN: Final = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, gzip.BadGzipFile, struct.error, EOFError),
    *(ValueError, OverflowError, RuntimeError, IndexError, KeyError),
)


class UnusableArchive(Exception):
    """The archive is broken, too large, or has in it what may not be; the text says which."""


@dataclass(slots=True)
class Allowance:
    """What the archives of one upload may have in them besides the content of files, all together."""

    entries: int = 10_000
    header_bytes: int = 2**25


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    is_folder: bool
    is_executable: bool
    open: Callable[[], IO[bytes]]


def kind_of(name: str) -> Kind | None:
    """What a file of this name is expected to be; None for no archive."""
    lower = name.lower()
    return next((kind for suffix, kind in _SUFFIXES if lower.endswith(suffix)), None)


def unpack(
    archive: str,
    kind: Kind,
    target: str,
    names: TreeNames,
    *,
    spend: Callable[[int], None],
    allowance: Allowance,
) -> list[str]:
    """Write the files in the archive to new files below the folder `target`; their paths.

    `names` says what they may be called. `spend` is told of bytes before they are written, and may raise.
    What is used of the `allowance` is taken off it. Raises UnusableArchive, and OSError when something cannot
    be written.
    """
    written = []
    try:
        with open(archive, "rb") as file:
            for entry in _zipped(file, allowance) if kind == "zip" else _tarred(file, allowance):
                allowance.entries -= 1
                if allowance.entries < 0:
                    raise UnusableArchive("has too many entries")
                path = entry.name.removeprefix("./").rstrip("/")
                if entry.is_folder and path in ("", "."):
                    continue
                _claim(names, path, entry)
                place = os.path.join(target, path)
                os.makedirs(place if entry.is_folder else os.path.dirname(place), mode=0o700, exist_ok=True)
                if not entry.is_folder:
                    _write(entry, place, spend)
                    written.append(path)
    except _BROKEN as error:
        raise UnusableArchive(f"cannot be read: {error}"[:200]) from error
    return written


def _claim(names: TreeNames, path: str, entry: _Entry) -> None:
    try:
        names.claim(path, is_folder=entry.is_folder)
    except UnusableName as error:
        raise UnusableArchive(f"has an entry {_shown(path)} that {error}") from error


def _write(entry: _Entry, place: str, spend: Callable[[int], None]) -> None:
    with closing(entry.open()) as content, new_file(place, is_executable=entry.is_executable) as out:
        while piece := content.read(_PIECE_BYTES):
            spend(len(piece))
            write_all(out, piece)


def _shown(name: str) -> str:
    return ascii(name[:80])


# ---------------------------------------------------------------- tar


def _tarred(file: IO[bytes], allowance: Allowance) -> Iterator[_Entry]:
    is_packed = file.read(2) == _GZIP
    file.seek(0)
    with closing(gzip.GzipFile(fileobj=file)) if is_packed else closing(file) as content:
        stream: Any = _Forward(content, allowance)
        with closing(tarfile.TarFile(fileobj=stream)) as tar:
            while (member := tar.next()) is not None:
                kept: list[Any] = vars(tar)["members"]
                kept.clear()  # there may be millions before one is refused
                if not (member.isreg() or member.isdir()) or member.issparse() or member.size < 0:
                    raise UnusableArchive(
                        f"has an entry {_shown(member.name)} that is no plain file or folder: "
                        "links, devices and files with holes are not taken"
                    )
                if member.isreg():
                    stream.expect(member.size)
                is_executable = bool(member.mode & stat.S_IXUSR)
                yield _Entry(member.name, member.isdir(), is_executable, _opener(tar, member))


def _opener(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Callable[[], IO[bytes]]:
    def opened() -> IO[bytes]:
        file = tar.extractfile(member)
        assert file is not None
        return file

    return opened


class _Forward:
    """What tarfile needs of a file, of one that is only read on and on, in small pieces.

    A header may claim to be of any size, and a packed archive to have terabytes between two of them.
    """

    def __init__(self, file: IO[bytes] | gzip.GzipFile, allowance: Allowance) -> None:
        self._file = file
        self._at = 0
        self._expected = 0
        self._allowance = allowance

    def expect(self, size_bytes: int) -> None:
        """So much is the content of a file; who writes it keeps the limit for that."""
        self._expected += size_bytes

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MOST_AT_ONCE_BYTES:
            raise UnusableArchive("has a header that is too large")
        data = self._file.read(size)
        self._at += len(data)
        self._expected -= len(data)
        if self._expected < 0:
            self._allowance.header_bytes += self._expected
            self._expected = 0
            if self._allowance.header_bytes < 0:
                raise UnusableArchive("is mostly headers")
        return data

    def tell(self) -> int:
        return self._at

    def seek(self, position: int) -> None:
        if position < self._at:
            raise UnusableArchive("leads back into itself")
        while self._at < position and self.read(min(position - self._at, _PIECE_BYTES)):
            pass


# ---------------------------------------------------------------- ZIP


def _zipped(file: IO[bytes], allowance: Allowance) -> Iterator[_Entry]:
    pieces: Any = _SmallPieces(file)
    with closing(zipfile.ZipFile(pieces)) as archive:
        if len(archive.infolist()) > allowance.entries:
            raise UnusableArchive("has too many entries")
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise UnusableArchive(f"has an entry {_shown(info.filename)} that is no plain file or folder")
            if info.flag_bits & 1:
                raise UnusableArchive("is encrypted")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise UnusableArchive("is packed in an unusual way: only stored and deflated files are taken")
            is_executable = kind == stat.S_IFREG and bool(info.external_attr >> 16 & stat.S_IXUSR)
            yield _Entry(info.filename, info.is_dir(), is_executable, lambda info=info: archive.open(info))  # type: ignore[misc]


class _SmallPieces:
    """A file of which nobody reads much at once: zipfile holds the whole table of contents in memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.tell = file.tell

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return self._file.seek(offset, whence)
        except OSError as error:
            raise UnusableArchive("cannot be read: it leads out of itself") from error

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MOST_AT_ONCE_BYTES:
            # The end, with a comment, is read to the end of the file.
            size = _MOST_AT_ONCE_BYTES
            data = self._file.read(size + 1)
            if len(data) > size:
                raise UnusableArchive("has a table of contents that is too large")
            return data
        return self._file.read(size)

    def seekable(self) -> bool:
        return True

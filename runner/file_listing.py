"""The files below a folder, in pages: sorted by path, with bounded memory however many there are.

Its owner may change it meanwhile: a page tells of each file what was true when it was looked at,
and a file that was there all the time is on exactly one page. Standard library only.
"""

from __future__ import annotations

import heapq
import os
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from runner.beneath import is_path, is_plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    ListFolder = Callable[[bytes], "Iterable[FolderEntry]"]
    """The entries of the folder at a path, b"" for the top; FileNotFoundError, PermissionError."""

_AT_ONCE: Final = 2000  # names of one folder held in memory
_DEEPEST: Final = 64  # folders within each other that are looked through
_MOST_READ: Final = 100_000  # entries after which no further folder is looked into for one page
_LARGEST: Final = 500_000  # entries of one folder that are looked at
_MOST_WALKED: Final = 2_000_000  # entries that are looked at to take all files


class TooManyFiles(Exception):
    """There are more than are looked at in one go."""


class FolderEntry(NamedTuple):
    """`file` is a regular one without a second name; size and time are told of those alone."""

    name: bytes
    kind: Literal["file", "folder", "other"]
    size_bytes: int = 0
    modified_ns: int = 0  # since the epoch


class ListedFile(NamedTuple):
    path: bytes
    size_bytes: int
    modified_ns: int


@dataclass(frozen=True, slots=True)
class FileQuery:
    """Which files: those whose path begins with `prefix`, from the path `start` on.

    Without `hidden`, none that has a name beginning with a dot in its path. `only` says of each path whether
    it is wanted.
    """

    prefix: bytes = b""
    start: bytes = b""
    limit: int = 50
    hidden: bool = False
    only: Callable[[bytes], bool] | None = None


@dataclass(frozen=True, slots=True)
class FilePage:
    """`next_start` is where the next page begins, None on the last; a page before that may be short or empty.

    `total` counts the files of the query wherever its pages start. When there are too many to count it is a
    lower bound and `total_is_exact` is false; of a folder with more than 500,000 entries not all are seen.
    `left_out` counts what is there and no plain file: links, files with a second name, FIFOs, sockets,
    devices, and folders that can't be looked through.
    """

    items: tuple[ListedFile, ...] = ()
    total: int = 0
    total_is_exact: bool = True
    left_out: int = 0
    next_start: bytes | None = None


def entries_of(folder_fd: int) -> Iterator[FolderEntry]:
    """What is in the folder. Raises OSError."""
    with os.scandir(folder_fd) as entries:
        for entry in entries:
            name = os.fsencode(entry.name)
            if entry.is_dir(follow_symlinks=False):
                yield FolderEntry(name, "folder")
            elif entry.is_file(follow_symlinks=False):
                try:
                    about = entry.stat(follow_symlinks=False)
                except OSError:  # gone
                    continue
                yield FolderEntry(
                    name, "file" if is_plain(about) else "other", about.st_size, about.st_mtime_ns
                )
            else:
                yield FolderEntry(name, "other")


def list_files(list_folder: ListFolder, query: FileQuery) -> FilePage:
    """A page of the plain files below a folder. What vanishes or can't be read meanwhile is passed over."""
    top = _top_of(query)
    if top is None:
        return FilePage()
    walk = _WholeWalk(list_folder, top, query, most_read=_MOST_READ)
    found = heapq.nsmallest(query.limit + 1, walk)
    if walk.is_whole:
        items, next_start = found[: query.limit], found[-1].path if len(found) > query.limit else None
    else:
        items, next_start = _page(list_folder, top, query)
    return FilePage(tuple(items), walk.files, walk.is_whole, walk.left_out, next_start)


def every_file(list_folder: ListFolder, query: FileQuery) -> Iterator[ListedFile]:
    """All the plain files of the query, in no order and whatever its limit; each folder is open meanwhile.

    Raises TooManyFiles behind the last that was found, where there are more.
    """
    top = _top_of(query)
    if top is None:
        return
    walk = _WholeWalk(list_folder, top, query, most_read=_MOST_WALKED)
    yield from walk
    if not walk.is_whole:
        raise TooManyFiles


def _top_of(query: FileQuery) -> bytes | None:
    """The folder to begin at, with a slash; None where no file can be."""
    top = query.prefix[: query.prefix.rfind(b"/") + 1]
    return None if top and not (is_path(top[:-1]) and (query.hidden or not _is_hidden(top))) else top


def _is_hidden(path: bytes) -> bool:
    return path.startswith(b".") or b"/." in path


# ---------------------------------------------------------------- all there are

_Folder = tuple["_Folder | None", bytes]  # the folder it is in, and its name with a slash


class _WholeWalk:
    """The query's files from its `start` on, in no order; those before it are counted as well.

    After too many entries it ends early, and `is_whole` is false.
    """

    def __init__(self, list_folder: ListFolder, top: bytes, query: FileQuery, *, most_read: int) -> None:
        self._list_folder = list_folder
        self._query = query
        self._top = top
        self._most_read = most_read
        self._waiting: list[_Folder] = [(None, top)]
        self.files = 0
        self.left_out = 0
        self.is_whole = True

    def __iter__(self) -> Iterator[ListedFile]:
        start = self._query.start
        read = 0
        while self._waiting:
            if read >= self._most_read:
                self.is_whole = False
                return
            folder = self._waiting.pop()
            path = _path_of(folder)
            is_deepest = path.count(b"/") >= _DEEPEST
            before = read
            try:
                for name, kind, size_bytes, modified_ns in islice(self._list_folder(path[:-1]), _LARGEST):
                    read += 1
                    key = name + b"/" if kind == "folder" else name
                    if not _is_wanted(self._query, self._top, path, key):
                        continue
                    if kind == "file":
                        self.files += 1
                        if path + key >= start:
                            yield ListedFile(path + key, size_bytes, modified_ns)
                    elif kind == "folder" and not is_deepest:
                        self._waiting.append((folder, key))
                    else:
                        self.left_out += 1
            except (FileNotFoundError, PermissionError):
                if folder[0] is not None:
                    self.left_out += 1
            if read - before >= _LARGEST:
                self.is_whole = False


def _path_of(folder: _Folder) -> bytes:
    # Kept as a chain: of many folders waiting, each would hold the path that all of them share.
    names = []
    above: _Folder | None = folder
    while above is not None:
        above, name = above
        names.append(name)
    return b"".join(reversed(names))


def _is_wanted(query: FileQuery, top: bytes, path: bytes, key: bytes) -> bool:
    if key.startswith(b".") and not query.hidden:
        return False
    if path == top and not key.startswith(query.prefix[len(top) :]):
        return False
    return query.only is None or key.endswith(b"/") or query.only(path + key)


# ---------------------------------------------------------------- a page of too many


def _page(list_folder: ListFolder, top: bytes, query: FileQuery) -> tuple[list[ListedFile], bytes | None]:
    items: list[ListedFile] = []
    walk = _OrderedWalk(list_folder, top, query)
    for file in walk:
        if len(items) == query.limit:
            return items, file.path
        items.append(file)
    return items, walk.stopped_at


@dataclass(slots=True)
class _Level:
    """A folder on the way down; `path` is empty or ends with a slash, as the names of folders in it do."""

    path: bytes
    start: bytes = b""  # where the names to be read next begin
    entries: list[FolderEntry] = field(default_factory=list)  # read and next in order, the first one last
    is_read: bool = False


class _OrderedWalk:
    """The query's files in bytewise order of their paths, from its `start` on.

    A folder sorts as its name with a slash, which is where the paths below it sort. `stopped_at` is set when
    too much was read: all paths before it are done. At least one folder is read.
    """

    def __init__(self, list_folder: ListFolder, top: bytes, query: FileQuery) -> None:
        self._list_folder = list_folder
        self._top = top
        self._query = query
        self._levels = _way_to(query.start, top) if query.start.startswith(query.prefix) else [_Level(top)]
        self._read = 0
        self.stopped_at: bytes | None = None

    def __iter__(self) -> Iterator[ListedFile]:
        while self._levels:
            level = self._levels[-1]
            if level.entries:
                entry = level.entries.pop()
                path = level.path + entry.name
                if entry.kind == "file":
                    yield ListedFile(path, entry.size_bytes, entry.modified_ns)
                elif path.count(b"/") <= _DEEPEST:
                    self._levels.append(_Level(path))
            elif level.is_read:
                self._levels.pop()
            elif self._read >= _MOST_READ:
                self.stopped_at = level.path + level.start
                return
            else:
                self._read_more(level)

    def _read_more(self, level: _Level) -> None:
        """The folder's next entries, at most `_AT_ONCE`; all of the folder is read for that."""
        found: list[FolderEntry] = []
        with suppress(FileNotFoundError, PermissionError):
            found = heapq.nsmallest(_AT_ONCE, self._wanted(level))
        level.is_read = len(found) < _AT_ONCE
        if found:
            level.start = _behind(found[-1].name)
        level.entries = found[::-1]

    def _wanted(self, level: _Level) -> Iterator[FolderEntry]:
        for entry in islice(self._list_folder(level.path[:-1]), _LARGEST):
            self._read += 1
            if entry.kind == "other":
                continue
            key = entry.name + b"/" if entry.kind == "folder" else entry.name
            if key >= level.start and _is_wanted(self._query, self._top, level.path, key):
                yield entry._replace(name=key) if entry.kind == "folder" else entry


def _way_to(start: bytes, top: bytes) -> list[_Level]:
    """The folders on the way from `top` to the path `start`, each with what is left to read in it.

    So none of them has to be read to come back to where the page before ended.
    """
    levels = [_Level(top)]
    *folders, name = start[len(top) :].split(b"/")
    for folder in folders:
        above = levels[-1]
        above.start = _behind(folder + b"/")
        levels.append(_Level(above.path + folder + b"/"))
    levels[-1].start = name
    return levels


def _behind(key: bytes) -> bytes:
    """The least key that sorts behind this one, and behind all that is in it if it is a folder."""
    return key[:-1] + b"0" if key.endswith(b"/") else key + b"\0"

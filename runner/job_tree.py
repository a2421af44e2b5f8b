"""The tree of files of one job: how much of the disk it takes, and how it is removed.

A job may have left anything there: links, folders it closed to itself, folders nested without end, another
file system mounted in its midst. Everything here goes by directory descriptors, follows no link and
crosses into no other mount, so that nothing outside of the tree is read or touched.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Final, Self

from runner.beneath import mount_of

if TYPE_CHECKING:
    from collections.abc import Callable

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_BLOCK_BYTES: Final = 512  # of st_blocks, whatever the file system's own are
_AT_ONCE: Final = 1000  # entries of one folder that are held in memory
_MODE: Final = 0o700


def open_folder(name: str, parent_fd: int) -> int:
    """A descriptor of the folder itself. Raises OSError, for a link in its place as well."""
    return os.open(name, _FOLDER, dir_fd=parent_fd)


def disk_bytes(parent_fd: int, name: str, rest: Callable[[], None]) -> int:
    """What the tree takes on the disk: no holes, and each hard-linked file once. 0 when it is not there.

    What can't be read is left out. `rest` is called often, and may end the walk by raising.
    """
    try:
        about = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
    except OSError:
        return 0
    blocks = about.st_blocks
    if not stat.S_ISDIR(about.st_mode):
        return blocks * _BLOCK_BYTES
    linked: set[tuple[int, int]] = set()
    try:
        walk = Walk(parent_fd, name)
    except OSError:
        return blocks * _BLOCK_BYTES
    with walk, suppress(OSError):  # moved under our feet: what was seen until then
        while True:
            level = walk.level
            if not level.listed:
                level.listed = True
                blocks += _list(walk.fd, level, linked, rest)
            if level.folders:
                with suppress(OSError):
                    walk.enter(level.folders.pop())
            elif not walk.leave():
                break
    return blocks * _BLOCK_BYTES


def _list(fd: int, level: Level, linked: set[tuple[int, int]], rest: Callable[[], None]) -> int:
    """The blocks of one folder's entries; its folders are noted to be entered."""
    blocks = 0
    with os.scandir(fd) as entries:
        for number, entry in enumerate(entries):
            if number % _AT_ONCE == 0:
                rest()
            try:
                about = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if stat.S_ISDIR(about.st_mode):
                level.folders.append(entry.name)
            elif about.st_nlink > 1:
                if (about.st_dev, about.st_ino) in linked:
                    continue
                linked.add((about.st_dev, about.st_ino))
            blocks += about.st_blocks
    return blocks


def remove(parent_fd: int, name: str, rest: Callable[[], None]) -> None:
    """Remove the tree, or what stands in its place; nothing there is no error.

    It goes on past what can't be removed, and raises the first such trouble at the end, an OSError.
    `rest` as above.
    """
    try:
        about = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
        if not stat.S_ISDIR(about.st_mode):
            os.unlink(name, dir_fd=parent_fd)
            return
        walk = Walk(parent_fd, name, by_force=True)
    except FileNotFoundError:
        return
    with walk:
        _empty(walk, rest)
    try:
        os.rmdir(name, dir_fd=parent_fd)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise walk.trouble or error from error


def _empty(walk: Walk, rest: Callable[[], None]) -> None:
    while True:
        level = walk.level
        if level.folders:
            name = level.folders.pop()
            try:
                walk.enter(name)
            except OSError as error:
                walk.note(error)
        elif not level.listed or (level.is_long and level.removed):
            level.listed, level.removed = True, 0
            _remove_files(walk, rest)
        else:
            name = level.name
            if not walk.leave():
                return
            try:
                os.rmdir(name, dir_fd=walk.fd)
                walk.level.removed += 1
            except OSError as error:
                walk.note(error)


def _remove_files(walk: Walk, rest: Callable[[], None]) -> None:
    """The files among the next entries; its folders are noted to be entered."""
    rest()
    level = walk.level
    with os.scandir(walk.fd) as entries:
        some = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in islice(entries, _AT_ONCE)]
    level.is_long = len(some) == _AT_ONCE
    for name, is_folder in some:
        if is_folder:
            level.folders.append(name)
            continue
        try:
            os.unlink(name, dir_fd=walk.fd)
            level.removed += 1
        except OSError as error:
            walk.note(error)


# ---------------------------------------------------------------- walking


@dataclass(slots=True)
class Level:
    """A folder on the way from the top to where the walk is."""

    name: str
    identity: tuple[int, int]
    listed: bool = False
    folders: list[str] = field(default_factory=list)  # to be entered
    removed: int = 0
    is_long: bool = False  # it had more entries than were looked at


class Walk:
    """A walk with one descriptor, however deep it goes: up is `..`, proven to be where it came from.

    `fd` is the folder it is in. With `by_force` folders are opened to their owner on the way.
    """

    def __init__(self, parent_fd: int, name: str, *, by_force: bool = False) -> None:
        self._by_force = by_force
        self._mount = mount_of(parent_fd)
        self._levels: list[Level] = []
        self.trouble: OSError | None = None
        self.fd = self._open(parent_fd, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    @property
    def level(self) -> Level:
        return self._levels[-1]

    def note(self, error: OSError) -> None:
        """Keep the first trouble; that a file has gone meanwhile is none."""
        if self.trouble is None and not isinstance(error, FileNotFoundError):
            self.trouble = error

    def enter(self, name: str) -> None:
        """Go into a folder of this one. Raises OSError: then the walk is where it was."""
        fd = self._open(self.fd, name)
        os.close(self.fd)
        self.fd = fd

    def leave(self) -> bool:
        """Go back up; false at the top. Raises OSError when the folder was moved meanwhile."""
        if len(self._levels) == 1:
            return False
        fd = os.open("..", _FOLDER, dir_fd=self.fd)
        try:
            self._require_identity(fd, self._levels[-2].identity)
        except BaseException:
            os.close(fd)
            raise
        os.close(self.fd)
        self.fd = fd
        self._levels.pop()
        return True

    def _open(self, parent_fd: int, name: str) -> int:
        fd = self._open_by_force(parent_fd, name) if self._by_force else open_folder(name, parent_fd)
        try:
            self._require_mount(fd, name)
            # Unsearchable, it could be entered and not left any more.
            os.stat("..", dir_fd=fd)
            self._levels.append(Level(name, _identity(fd)))
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _open_by_force(self, parent_fd: int, name: str) -> int:
        try:
            fd = open_folder(name, parent_fd)
        except PermissionError:
            return self._opened_to_owner(parent_fd, name)
        try:
            if os.fstat(fd).st_mode & _MODE != _MODE:
                self._require_mount(fd, name)
                os.fchmod(fd, _MODE)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _opened_to_owner(self, parent_fd: int, name: str) -> int:
        """Without the right to read it: by a descriptor that needs none, and never by its name again."""
        path_fd = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
        try:
            self._require_mount(path_fd, name)
            os.chmod(f"/proc/self/fd/{path_fd}", _MODE)
            return os.open(".", _FOLDER, dir_fd=path_fd)
        finally:
            os.close(path_fd)

    def _require_mount(self, fd: int, name: str) -> None:
        if mount_of(fd) != self._mount:
            raise OSError(errno.EXDEV, "another file system is mounted there", name)

    def _require_identity(self, fd: int, identity: tuple[int, int]) -> None:
        if _identity(fd) != identity:
            raise OSError(errno.ESTALE, "moved while it was walked", self.level.name)


def _identity(fd: int) -> tuple[int, int]:
    about = os.fstat(fd)
    return about.st_dev, about.st_ino

"""Gives trees of files from one user to another, as root. Standard library only.

Everything goes by descriptors, follows no link and crosses into no other mount: what is in the tree may have
been put there to make root change the owner of something else.
"""

from __future__ import annotations

import ctypes
import os
import stat
from typing import TYPE_CHECKING, TypeAlias

from runner.job_tree import Walk

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

_AT_EMPTY_PATH = 0x1000
_fchownat = ctypes.CDLL(None, use_errno=True).fchownat
_fchownat.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_uint, ctypes.c_uint, ctypes.c_int]

_Inode = tuple[int, int]
_Visitor: TypeAlias = "Callable[[int, str], bool]"  # a folder's descriptor, a name in it: is it a folder?


def give(parent_fd: int, name: str, *, owners: Collection[int], uid: int, gid: int, links: bool) -> None:
    """Make `uid` and `gid` the owners of what belongs to one of `owners` in this tree.

    What belongs to anybody else stays as it is. `links` says whether a file may have names outside of the
    tree: if not, one that has is left alone, because it may be a file of the same owner that was linked
    into the tree. The kernel takes set-user-id bits away (chown(2)). Nothing there is no error. It goes on
    past what can't be changed, and raises the first such trouble at the end, an OSError.
    """
    change = _Change(frozenset(owners), uid, gid, links=links)
    _walk(parent_fd, name, change.entry)
    if inside := change.linked_inside_alone():
        again = _Change(frozenset(owners), uid, gid, links=True, only=inside)
        _walk(parent_fd, name, again.entry)


def _walk(parent_fd: int, name: str, entry: _Visitor) -> None:
    """Call `entry` for the top and everything below it. Raises as `give` does."""
    try:
        if not entry(parent_fd, name):
            return
        walk = Walk(parent_fd, name)
    except FileNotFoundError:
        return
    with walk:
        _each(walk, entry)
    if walk.trouble is not None:
        raise walk.trouble


def _each(walk: Walk, entry: _Visitor) -> None:
    while True:
        level = walk.level
        if not level.listed:
            level.listed = True
            with os.scandir(walk.fd) as entries:
                for each in entries:
                    try:
                        if entry(walk.fd, each.name):
                            level.folders.append(each.name)
                    except OSError as error:
                        walk.note(error)
        if level.folders:
            try:
                walk.enter(level.folders.pop())
            except OSError as error:
                walk.note(error)
        elif not walk.leave():
            return


class _Change:
    """What is done to each entry; files with several names are noted and left, unless `links`."""

    def __init__(
        self, owners: frozenset[int], uid: int, gid: int, *, links: bool, only: Collection[_Inode] = ()
    ) -> None:
        self._owners = owners
        self._uid, self._gid = uid, gid
        self._links = links
        self._only = only
        self._names: dict[_Inode, int] = {}  # how many of its names were met
        self._all: dict[_Inode, int] = {}  # how many it has

    def linked_inside_alone(self) -> set[_Inode]:
        """The files that were left and have no name elsewhere."""
        return {inode for inode, count in self._all.items() if self._names[inode] == count}

    def entry(self, folder_fd: int, name: str) -> bool:
        """Change this one if it is to be changed; whether it is a folder. Raises OSError."""
        # What is looked at is what is changed, whatever the name means by then.
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder_fd)
        try:
            about = os.fstat(fd)
            is_folder = stat.S_ISDIR(about.st_mode)
            if about.st_uid in self._owners:
                inode = about.st_dev, about.st_ino
                if not is_folder and about.st_nlink > 1 and not self._links:
                    self._names[inode] = self._names.get(inode, 0) + 1
                    self._all[inode] = about.st_nlink
                elif not self._only or inode in self._only:
                    change_owner(fd, self._uid, self._gid)
            return is_folder
        finally:
            os.close(fd)


def change_owner(fd: int, uid: int, gid: int) -> None:
    """The owner of what the descriptor names, one of O_PATH as well. Raises OSError."""
    if _fchownat(fd, b"", uid, gid, _AT_EMPTY_PATH) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))

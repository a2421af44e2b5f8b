"""inotify(7) for a thread of its own: watches, and what they saw, as plain numbers.

The library that logs are followed with makes several objects of each event; where a hundred jobs write, that
is most of what following them costs.
"""

from __future__ import annotations

import ctypes
import os
import struct
from functools import cache
from typing import Final, NamedTuple

MODIFY: Final = 0x2
ATTRIB: Final = 0x4
MOVED_TO: Final = 0x80
CREATE: Final = 0x100
DELETE_SELF: Final = 0x400
MOVE_SELF: Final = 0x800
OVERFLOW: Final = 0x4000
IGNORED: Final = 0x8000
ONLYDIR: Final = 0x0100_0000
DONT_FOLLOW: Final = 0x0200_0000

_HEAD: Final = struct.Struct("iIII")  # struct inotify_event: wd, mask, cookie, len
_READ_BYTES: Final = 64 * 2**10


class Seen(NamedTuple):
    """One event: of which watch, what, and the name in a watched folder."""

    watch: int
    mask: int
    name: bytes


class Inotify:
    """One instance. `fd` is readable when something was seen."""

    def __init__(self) -> None:
        """Raises OSError: the kernel has none left."""
        self.fd: int = _checked(_library().inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def add(self, path: str, mask: int) -> int:
        """The number of the watch. Raises OSError: FileNotFoundError, or ENOSPC at the kernel's limit."""
        return _checked(_library().inotify_add_watch(self.fd, os.fsencode(path), mask))

    def remove(self, watch: int) -> None:
        """One that has gone with its file is no error."""
        _library().inotify_rm_watch(self.fd, watch)

    def read(self) -> list[Seen]:
        """What was seen since, some hundreds at most; nothing when there is nothing."""
        try:
            data = os.read(self.fd, _READ_BYTES)
        except BlockingIOError:
            return []
        found, offset = [], 0
        while offset < len(data):
            watch, mask, _, length = _HEAD.unpack_from(data, offset)
            offset += _HEAD.size
            found.append(Seen(watch, mask, data[offset : offset + length].rstrip(b"\0")))
            offset += length
        return found

    def close(self) -> None:
        os.close(self.fd)


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(None, use_errno=True)
    library.inotify_add_watch.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32]
    return library


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result

"""Opening files in a folder whose owner may replace anything meanwhile: nothing outside of it is ever opened.

Symbolic links, links of /proc, mounted file systems, `..`, files with a second name (a hard link, which may
belong to somebody else), FIFOs, sockets and devices: all of these count as absent. What is handed out is the
very file that was looked at, and looking disturbs nobody: no FIFO gets a reader, no device is opened.

The kernel does it at one stroke (openat2(2), Linux 5.6). Where that call is missing or forbidden, the same is
done name by name. Standard library only.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    Resolve = Callable[[int, bytes, int, bool], int]
    """From a folder's descriptor, a path below it, the flags of open(2) and whether other file systems may be
    entered to a descriptor; OSError."""

PATH_BYTES: Final = 4095  # PATH_MAX without its NUL

_NUMBER: Final = 437  # of openat2, the same on every architecture Python is built for but alpha
_NO_XDEV: Final = 0x01
_NO_MAGICLINKS: Final = 0x02
_NO_SYMLINKS: Final = 0x04
_BENEATH: Final = 0x08
_RESOLVE: Final = _NO_XDEV | _NO_MAGICLINKS | _NO_SYMLINKS | _BENEATH
_TRIES: Final = 64

_LOOK: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_STEP: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

# A link in its way (ELOOP, ENOTDIR), a mount (EXDEV), a name that no file can have, a lease on the file
# that its holder does not give up (EAGAIN).
_ABSENT: Final = frozenset(
    {
        errno.ENOENT,
        errno.ELOOP,
        errno.ENOTDIR,
        errno.EXDEV,
        errno.ENAMETOOLONG,
        errno.EILSEQ,
        errno.EAGAIN,
        errno.ENXIO,
        errno.ENODEV,
    }
)
# What the probe meets where openat2 is missing (ENOSYS, gVisor and old kernels) or filtered (seccomp).
_UNUSABLE: Final = frozenset({errno.ENOSYS, errno.EPERM, errno.EACCES, errno.EINVAL, errno.E2BIG})


def open_file(folder_fd: int, path: bytes, *, resolve: Resolve | None = None) -> int:
    """A descriptor to read the regular file at `path` below the folder, which must be its only name.

    Raises FileNotFoundError when nothing or anything else is there, and other OSErrors (no permission, no
    descriptor left) as they come.
    """
    look_fd = _resolved(folder_fd, path, _LOOK, resolve)
    try:
        if not is_plain(os.fstat(look_fd)):
            raise _absent(path)
        # Of the same file, whatever stands at its path by now.
        return _checked(lambda: os.open(f"/proc/self/fd/{look_fd}", _READ), path)
    finally:
        os.close(look_fd)


def open_folder(folder_fd: int, path: bytes, *, across: bool = False, resolve: Resolve | None = None) -> int:
    """A descriptor to list the folder at `path` below the folder. Raises as `open_file` does.

    With `across`, what is mounted on the way or at its end is entered: for folders of the service's own.
    """
    return _resolved(folder_fd, path, _FOLDER, resolve, across=across)


def look(folder_fd: int, path: bytes, *, resolve: Resolve | None = None) -> os.stat_result:
    """What is at `path` itself: a link is not followed there either. Raises as `open_file` does."""
    fd = _resolved(folder_fd, path, _LOOK, resolve)
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def read_file(folder_fd: int, path: bytes, limit_bytes: int) -> bytes:
    """The first `limit_bytes` of a file. Raises as `open_file` does."""
    with open(open_file(folder_fd, path), "rb", buffering=0) as file:
        content = b""
        while len(content) < limit_bytes and (part := file.read(limit_bytes - len(content))):
            content += part
        return content


def is_plain(about: os.stat_result) -> bool:
    """A regular file that nothing else in the file system is a name of."""
    return stat.S_ISREG(about.st_mode) and about.st_nlink == 1


def is_path(path: bytes) -> bool:
    """Whether it leads down from a folder, name by name, and could be the path of a file."""
    names = path.split(b"/")
    return len(path) <= PATH_BYTES and b"\0" not in path and not {b"", b".", b".."} & set(names)


def _resolved(
    folder_fd: int, path: bytes, flags: int, resolve: Resolve | None, *, across: bool = False
) -> int:
    if not is_path(path):
        raise _absent(path)
    call = resolver() if resolve is None else resolve
    return _checked(lambda: call(folder_fd, path, flags, across), path)


def _checked(opened: Callable[[], int], path: bytes) -> int:
    try:
        return opened()
    except OSError as error:
        if error.errno in _ABSENT:
            raise _absent(path) from error
        raise


def _absent(path: bytes) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, "there is no plain file or folder", path)


# ---------------------------------------------------------------- two ways down


@cache
def resolver() -> Resolve:
    """The way that works in this process: openat2 where the kernel has it and lets us use it."""
    here = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.close(by_openat2(here, b".", _STEP, False))
    except OSError as error:
        if error.errno not in _UNUSABLE:
            raise
        return name_by_name
    finally:
        os.close(here)
    return by_openat2


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


@cache
def _system_call() -> Callable[..., int]:
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    call.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t)
    return call


@cache
def _how(flags: int, resolve: int) -> tuple[_OpenHow, int]:
    """The structure, kept for ever, and its address; the kernel only reads it."""
    how = _OpenHow(flags, 0, resolve)
    return how, ctypes.addressof(how)


def by_openat2(folder_fd: int, path: bytes, flags: int, across: bool) -> int:  # noqa: FBT001 - as Resolve says
    """All of `path` in one call, with none of it followed out of the folder."""
    _, address = _how(flags, _RESOLVE & ~_NO_XDEV if across else _RESOLVE)
    for _ in range(_TRIES):
        fd = _system_call()(_NUMBER, folder_fd, path, address, ctypes.sizeof(_OpenHow))
        if fd >= 0:
            return fd
        number = ctypes.get_errno()
        if number not in (errno.EAGAIN, errno.EINTR):  # renamed meanwhile, or a signal: ask again
            break
    raise OSError(number, os.strerror(number), path)


def name_by_name(folder_fd: int, path: bytes, flags: int, across: bool) -> int:  # noqa: FBT001 - as Resolve says
    """Each name from the folder before it, without following a link, and never into another mount."""
    mount = mount_of(folder_fd)
    *folders, last = path.split(b"/")
    fd = folder_fd
    try:
        for step, step_flags in [*((name, _STEP) for name in folders), (last, flags | os.O_NOFOLLOW)]:
            inner = os.open(step, step_flags, dir_fd=fd)
            if fd != folder_fd:
                os.close(fd)
            fd = inner
            if not across:
                _require_mount(fd, mount)
    except BaseException:
        if fd != folder_fd:
            with suppress(OSError):
                os.close(fd)
        raise
    return fd


def _require_mount(fd: int, mount: str) -> None:
    if mount_of(fd) != mount:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))


def mount_of(fd: int) -> str:
    """Which mount a descriptor is on: a bind mount of the same file system has the same st_dev (proc(5))."""
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as lines:
        return next(line for line in lines if line.startswith("mnt_id:"))

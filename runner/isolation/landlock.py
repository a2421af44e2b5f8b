"""Landlock: what files a job may read and write, kept by the kernel (landlock(7)). Standard library only.

A job reads the system, but nothing of the service's data, and writes only in places of its own. Rules can
only allow, and hold for everything below a folder; so what is to stay hidden is left out by allowing its
neighbours, all along the way from `/` down to it. The folders on that way cannot be listed by the job.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
from typing import TYPE_CHECKING, Final

from runner.isolation.syscalls import syscall, try_syscall

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from collections.abc import Set as AbstractSet

LEAST_ABI: Final = 2
"""Linux 5.19. The first version forbids every rename from one folder into another, which breaks programs."""

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = (1 << bit for bit in range(4))
_MAKE_CHAR, _MAKE_BLOCK = 1 << 6, 1 << 11
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15
_LAST_FILE_RIGHT: Final = {1: 12, 2: 13, 3: 14, 4: 14}  # bit numbers; from 5 on it is 15
_SCOPE_ABSTRACT_SOCKETS, _SCOPE_SIGNALS = 1 << 0, 1 << 1
_SCOPES_SINCE = 6

_READ: Final = _EXECUTE | _READ_FILE | _READ_DIR
_FOR_FILES: Final = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
# A device node made by a job would be a way around every other rule.
_NEVER: Final = _MAKE_CHAR | _MAKE_BLOCK

_PATH: Final = os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW

DEVICES: Final = (
    *("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"),
    *("/dev/tty", "/dev/ptmx"),
)
"""Written to by any program. No other device is open to a job, the disks that hold the data least of all."""

TERMINALS: Final = "/dev/pts"
"""A job of the service's user could read there what that user types elsewhere, passwords as well."""

_ACCELERATORS: Final = ("nvidia", "dri", "kfd")


class _RulesetAttributes(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


_rule = _PathBeneath()  # one for all: made anew it costs more than the call it is for
_rule_at = ctypes.addressof(_rule)


def abi_version() -> int:
    """Landlock's version in this kernel; 0 where it is missing, switched off or filtered."""
    try:
        return syscall(_CREATE_RULESET, 0, 0, _CREATE_RULESET_VERSION)
    except OSError:
        return 0


def file_rights(abi: int) -> int:
    """Every right to files that this version knows, as a mask."""
    return (1 << (_LAST_FILE_RIGHT.get(abi, 15) + 1)) - 1


class Ruleset:
    """Rules in the making: what is not allowed before `enforce` is forbidden after it."""

    def __init__(self, abi: int) -> None:
        """Raises OSError."""
        self._handled = file_rights(abi)
        scopes = _SCOPE_SIGNALS | _SCOPE_ABSTRACT_SOCKETS if abi >= _SCOPES_SINCE else 0
        attributes = _RulesetAttributes(self._handled, 0, scopes)
        size = 24 if scopes else 8  # an older kernel takes no more than it knows
        self._fd = syscall(_CREATE_RULESET, ctypes.addressof(attributes), size, 0)

    def allow_system(self, view: SystemView, devices: Iterable[str]) -> None:
        """Reading of everything in view; devices only as named."""
        # Every job does this for some fifty paths: what could be left out of the loop was.
        _open, _close, add, ruleset = os.open, os.close, try_syscall, self._fd
        for rights, paths in ((_READ, view.folders()), (_READ & _FOR_FILES, view.files())):
            _rule.allowed_access = rights
            for path in paths:
                try:
                    fd = _open(path, _PATH)
                except OSError:
                    continue  # gone since it was listed
                _rule.parent_fd = fd
                add(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, _rule_at, 0)  # refused if replaced since
                _close(fd)
        for path in devices:
            self.allow_all(path)

    def allow_reading(self, path: str) -> None:
        """Read and execute the file, or everything below the folder. Nothing if it is not there."""
        self._allow(path, _READ)

    def allow_all(self, path: str) -> None:
        """Everything to the file, or below the folder, but to make devices. Nothing if it is not there."""
        self._allow(path, self._handled & ~_NEVER)

    def _allow(self, path: str, rights: int) -> None:
        try:
            fd = os.open(path, _PATH)
        except OSError:
            return  # gone since it was listed, or no rule is needed for what this user cannot reach
        try:
            mode = os.fstat(fd).st_mode
            if not stat.S_ISLNK(mode):  # a link is no way: where it leads to, other rules say
                self._allow_fd(fd, rights if stat.S_ISDIR(mode) else rights & _FOR_FILES)
        finally:
            os.close(fd)

    def _allow_fd(self, fd: int, rights: int) -> None:
        _rule.allowed_access = rights & self._handled
        _rule.parent_fd = fd
        syscall(_ADD_RULE, self._fd, _RULE_PATH_BENEATH, _rule_at, 0)

    def enforce(self) -> None:
        """Hold this process and everything it starts to the rules, for good. Needs no_new_privs."""
        syscall(_RESTRICT_SELF, self._fd, 0)
        os.close(self._fd)
        self._fd = -1


class SystemView:
    """What jobs may see of the file system: the fewest paths that cover all but `hidden` and `/dev`.

    `hidden` are absolute paths without links; one that ends with `*` means every name that begins so. The
    folders on the way to a hidden one are listed again when something was added to them or removed.
    """

    def __init__(self, hidden: Iterable[str]) -> None:
        self._hidden = frozenset({*hidden, "/dev"})
        self._folders: list[str] = []
        self._files: list[str] = []
        self._stamps: dict[str, int] = {}

    def look(self) -> None:
        """List the paths, if something has changed."""
        if not self._stamps or any(_stamp(folder) != stamp for folder, stamp in self._stamps.items()):
            self._stamps = {}
            entries = list(self._list("/", self._hidden))
            self._folders = [path for path, is_folder in entries if is_folder]
            self._files = [path for path, is_folder in entries if not is_folder]

    def folders(self) -> Sequence[str]:
        """As of the last look."""
        return self._folders

    def files(self) -> Sequence[str]:
        """As of the last look."""
        return self._files

    def _list(self, folder: str, hidden: AbstractSet[str]) -> Iterator[tuple[str, bool]]:
        self._stamps[folder] = _stamp(folder)
        try:
            with os.scandir(folder) as entries:
                here = [(e.path, e.is_dir(follow_symlinks=False)) for e in entries if not e.is_symlink()]
        except OSError:
            return  # what this user cannot list, the job cannot either
        prefixes = tuple(each[:-1] for each in hidden if each[-1] == "*")
        for path, is_folder in here:
            if path in hidden or path.startswith(prefixes):
                continue
            inside = {each for each in hidden if each.startswith(path + "/")}
            if inside:
                yield from self._list(path, inside)
            else:
                yield path, is_folder


def _stamp(folder: str) -> int:
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return 0


def devices_here() -> list[str]:
    """The devices open to jobs on this machine: those of every program, and graphics processors."""
    found = [*DEVICES]
    with contextlib.suppress(OSError):
        found += [f"/dev/{name}" for name in sorted(os.listdir("/dev")) if name.startswith(_ACCELERATORS)]
    return found


def aliases(path: str, mountinfo: str) -> list[str]:
    """Every other place where `path`, or a part of it, is mounted as well (proc_pid_mountinfo(5)).

    `path` has no links. What can be reached by another way would not be hidden.
    """
    mounts = [_mount(line) for line in mountinfo.splitlines() if line.count(" ") > 5]
    at = max((m for m in mounts if _is_below(path, m[2])), key=lambda m: len(m[2]), default=None)
    if at is None:
        return []
    device, root, point = at
    inside = _joined(root, os.path.relpath(path, point))
    found = []
    for other_device, other_root, other_point in mounts:
        if other_device != device or other_point == point:
            continue
        if _is_below(inside, other_root):
            found.append(_joined(other_point, os.path.relpath(inside, other_root)))
        elif _is_below(other_root, inside):
            found.append(other_point)
    return sorted({each for each in found if each != path and not _is_below(each, path)})


def _mount(line: str) -> tuple[str, str, str]:
    fields = line.split(" ")
    return fields[2], unescaped(fields[3]), unescaped(fields[4])


def unescaped(text: str) -> str:
    """A path as /proc/self/mountinfo writes it: space, tab, newline and backslash are octal."""
    for octal, plain in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(octal, plain)
    return text


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _joined(folder: str, relative: str) -> str:
    return os.path.normpath(os.path.join(folder, relative))

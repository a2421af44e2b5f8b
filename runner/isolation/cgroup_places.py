"""Where on this machine the groups of attempts can be made: found out by looking and by trying."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runner.isolation.cgroups import UNIFIED
from runner.isolation.landlock import unescaped

if TYPE_CHECKING:
    from collections.abc import Iterable

CONTROLLERS: Final = ("memory", "pids", "cpu")
_V1_ONLY: Final = "freezer"  # version 2 has it built in
ASIDE: Final = ".service"
"""How the name of the group ends to which a service moves that stands in the way of controllers."""
_DELEGATED: Final = ("user.delegate", "trusted.delegate")


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A mounted hierarchy, its controllers, and the folder of the group this process is in.

    `is_unified` is one of version 2.
    """

    is_unified: bool
    controllers: frozenset[str]
    mount: str
    own: str


def hierarchies(mountinfo: str, own_groups: str) -> list[Hierarchy]:
    """What /proc/self/mountinfo and /proc/self/cgroup tell.

    A mount that does not show this process's group is left out: it belongs to somebody else.
    """
    groups: dict[str, str] = {}  # by controller; "" is version 2
    for line in own_groups.splitlines():
        _, names, path = (*line.split(":", 2), "", "")[:3]
        groups |= dict.fromkeys(names.split(","), path)
    found: dict[str, Hierarchy] = {}
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if len(fields) < 6 or len(kind) < 3 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        root, mount = unescaped(fields[3]), unescaped(fields[4])
        options = set(kind[2].split(",")) if kind[0] == "cgroup" else {""}
        controllers = frozenset(options & groups.keys())
        path = next((groups[name] for name in controllers), "")
        if path and _shows(root, path):
            inside = path.removeprefix(root.rstrip("/"))
            own = (mount + inside).rstrip("/")
            found[mount] = Hierarchy(kind[0] == "cgroup2", controllers - {""}, mount, own)
    return list(found.values())


def _shows(root: str, path: str) -> bool:
    if "/.." in path:  # it is outside of our cgroup namespace
        return False
    return path.startswith(root.rstrip("/") + "/") or path == root


def identity(data_dir: str) -> str:
    """Tells the groups of this data directory from those of every other service on the machine."""
    known_by = os.path.realpath(data_dir)
    with contextlib.suppress(FileNotFoundError):
        about = os.stat(data_dir)
        known_by += f":{about.st_dev}:{about.st_ino}"
    return hashlib.sha256(known_by.encode()).hexdigest()[:12]


def prepare(found: Iterable[Hierarchy], *, aside: str | None) -> dict[str, str]:
    """The folders in which attempts' groups can be made, by role; empty where there is none.

    `aside` is the name of the group this process moves to if it stands in the way of controllers; without
    one it stays where it is.
    """
    places: dict[str, str] = {}
    for hierarchy in found:
        if hierarchy.is_unified:
            places |= _prepare_unified(hierarchy, aside)
    for hierarchy in found:
        wanted = [c for c in (*CONTROLLERS, _V1_ONLY) if c in hierarchy.controllers and c not in places]
        is_needed = not hierarchy.is_unified and (UNIFIED not in places or wanted != [_V1_ONLY])
        if is_needed and os.access(hierarchy.own, os.W_OK | os.X_OK):
            places |= dict.fromkeys(wanted, hierarchy.own)
    return places


def _prepare_unified(hierarchy: Hierarchy, aside: str | None) -> dict[str, str]:
    base = _base_of(hierarchy)
    if not os.access(base, os.W_OK | os.X_OK):
        return {}
    available = _words(f"{base}/cgroup.controllers")
    wanted = [c for c in CONTROLLERS if c in available]
    if not all(c in _words(f"{base}/cgroup.subtree_control") for c in wanted):
        # A group but the root has either processes or controllers for those below it. Some controllers can
        # be had all the same, and nothing could then join the groups below.
        is_root = not os.path.exists(f"{base}/cgroup.type")
        may_move = aside is not None and _is_ours_alone(base)
        if (
            not is_root
            and _words(f"{base}/cgroup.procs")
            and not (may_move and _move_aside(base, str(aside)))
        ):
            return {UNIFIED: base}
    enabled = [c for c in wanted if _enable(base, c)]
    return {UNIFIED: base, **dict.fromkeys(enabled, base)}


def _base_of(hierarchy: Hierarchy) -> str:
    """The group that was handed to this service whole (systemd's Delegate=), or else its own."""
    if os.path.basename(hierarchy.own).startswith("snakeline-") and hierarchy.own.endswith(ASIDE):
        return os.path.dirname(hierarchy.own)  # an earlier service has moved our parent there
    folder = hierarchy.own
    while folder.startswith(hierarchy.mount + "/"):
        if _is_delegated(folder) and os.access(folder, os.W_OK):
            return folder
        folder = os.path.dirname(folder)
    return hierarchy.own


def _is_delegated(folder: str) -> bool:
    for attribute in _DELEGATED:
        with contextlib.suppress(OSError):
            if os.getxattr(folder, attribute) == b"1":
                return True
    return False


def _enable(folder: str, controller: str) -> bool:
    path = f"{folder}/cgroup.subtree_control"
    return controller in _words(path) or _write(path, f"+{controller}")


def _is_ours_alone(base: str) -> bool:
    """Whether nobody but this process, its parents and its children is in the group.

    A group that systemd has not handed over is left as it is.
    """
    if os.path.isdir("/run/systemd/system") and not _is_delegated(base):
        return False
    members = {int(pid) for pid in _words(f"{base}/cgroup.procs")}
    related = {os.getpid()}
    related |= _ancestors(os.getpid())
    return all(pid in related or os.getpid() in _ancestors(pid) for pid in members)


def _ancestors(pid: int) -> set[int]:
    found: set[int] = set()
    while pid > 1:
        try:
            with open(f"/proc/{pid}/stat", "rb") as stat:
                pid = int(stat.read().rsplit(b") ", 1)[1].split()[1])
        except (OSError, ValueError, IndexError):
            break
        found.add(pid)
    return found


def _move_aside(base: str, aside: str) -> bool:
    """Move every process of the group into one below it; false when some would not go."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(f"{base}/{aside}")
    for _ in range(3):  # what was forked meanwhile
        members = _words(f"{base}/cgroup.procs")
        if not members:
            return True
        for pid in members:
            _write(f"{base}/{aside}/cgroup.procs", pid)
    return not _words(f"{base}/cgroup.procs")


def _words(path: str) -> list[str]:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().split()
    except (OSError, ValueError):
        return []


def _write(path: str, text: str) -> bool:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(fd, text.encode())
    except OSError as error:
        return error.errno == errno.EEXIST
    finally:
        os.close(fd)
    return True

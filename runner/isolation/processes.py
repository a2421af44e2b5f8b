"""A process and its descendants: naming them, signalling all of them, ending all of them.

Used by the shim, which runs in the engine's own interpreter: standard library only. No signal is sent by
a bare pid: a pid is turned into a pidfd, then proven to be the process that was meant, then signalled.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from typing import TYPE_CHECKING, Protocol

from runner.isolation.syscalls import prctl

if TYPE_CHECKING:
    from collections.abc import Callable


class Group(Protocol):
    """A control group, as runner/isolation/cgroups.py has it."""

    def kill(self) -> None: ...

    def processes(self) -> set[int]: ...


_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """Orphans among our descendants become our children, wherever they moved (prctl(2))."""
    prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int) -> None:
    """Be killed when the thread that forked us ends; at once if it already has.

    Only for children of a single-threaded process: the kernel watches the thread, not the process.
    """
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(255)


def give_way() -> None:
    """Let other sessions have the processor first: jobs are in no hurry, those who call the service are.

    Sessions are scheduled as groups, each with a niceness of its own (sched(7)). Where there are none, or
    the kernel has no time for it now, everything stays as it is.
    """
    with contextlib.suppress(OSError):
        _write("/proc/self/autogroup", b"10")


def close_from(lowest: int) -> None:
    """Close every descriptor from `lowest` on: those that are open, not all that could be."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) >= lowest:
            with contextlib.suppress(OSError):  # the listing's own is closed already
                os.close(int(name))


class ProcessTitle:
    """What `ps` shows of this process: written over the memory of its command line (proc_pid_cmdline(5)).

    Longer titles are cut to the room the command line has. Where the kernel does not tell the place, the
    title stays as it is: it is for people's eyes only.
    """

    def __init__(self) -> None:
        self._start = self._room = 0
        self._name = ctypes.create_string_buffer(16)
        with contextlib.suppress(OSError, ValueError, IndexError), open("/proc/self/stat", "rb") as stat:
            fields = stat.read().rsplit(b") ", 1)[1].split()
            self._start = int(fields[45])
            self._room = int(fields[46]) - self._start

    def set(self, name: str, title: str) -> None:
        """`name` has at most 15 bytes."""
        self._name.value = name.encode()[:15]
        with contextlib.suppress(OSError):
            prctl(_PR_SET_NAME, ctypes.addressof(self._name))
        if self._start and self._room > 1:
            line = title.encode()[: self._room - 1].ljust(self._room, b"\0")
            ctypes.memmove(self._start, line, self._room)


def _write(path: str, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, content)
    finally:
        os.close(fd)


def descendants(pid: int) -> list[int]:
    """All descendants of `pid`, parents first. A moving tree may hide some: ask again."""
    children = _listed_children if os.path.exists("/proc/thread-self/children") else _children_by_scan()
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = children(waiting.pop())
        found.extend(below)
        waiting.extend(below)
    return found


def _listed_children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{task}/children", "rb") as listing:
                found.extend(map(int, listing.read().split()))
    return found


def _children_by_scan() -> Callable[[int], list[int]]:
    """For kernels without lists of children (CONFIG_PROC_CHILDREN): one look at every process."""
    families: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        parent = parent_of(int(name)) if name.isdigit() else None
        if parent is not None:
            families.setdefault(parent, []).append(int(name))
    return lambda pid: families.get(pid, [])


def parent_of(pid: int) -> int | None:
    """The parent's pid; None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return int(stat.read().rsplit(b") ", 1)[1].split()[1])
    except (OSError, IndexError, ValueError):
        return None


def signal_descendants(number: int) -> int:
    """Send `number` to every descendant of this process; how many there were.

    Between pidfd and signal each is proven to be a descendant still, so that a reused pid is never hit.
    """
    me = os.getpid()
    tree = descendants(me)
    family = {me, *tree}
    for pid in tree:
        try:
            handle = os.pidfd_open(pid)
        except OSError:
            continue
        try:
            if parent_of(pid) in family:
                signal.pidfd_send_signal(handle, number)
        except (ProcessLookupError, PermissionError):
            pass
        finally:
            os.close(handle)
    return len(tree)


def reap() -> bool:
    """Collect every child that has ended; whether any child is left."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return True


def kill_descendants(*, within_s: float, group: Group | None = None) -> int:
    """SIGKILL all descendants until none is left; how many are left when time is up.

    A subreaper's loop: whoever forks away from the signal comes back as our child and is met again. From
    a control group nobody can.
    """
    deadline = time.monotonic() + within_s
    while True:
        if group is not None:
            group.kill()
        signal_descendants(signal.SIGKILL)
        if not reap() and not (group is not None and group.processes()):
            return 0
        if time.monotonic() > deadline:
            members = group.processes() if group is not None else set()
            return len(members.union(descendants(os.getpid())))
        time.sleep(0.002)  # noqa: TID251 - dying takes the kernel a moment, and there is no descriptor to wait on


def kill_marked(marker: bytes, title: bytes) -> int:
    """SIGKILL every process with `marker` (`NAME=value`) in its initial environment, or titled as ours.

    `title` is the end of a title that `ProcessTitle` has set: a shim, or an engine that was forked warm and
    has the launcher's environment. How many were met is answered. The last resort for an attempt whose
    shim is gone or cannot be found: a process that emptied its environment is missed.
    Asked again until nobody is met twice in a row, for what was forked meanwhile; at most two seconds.
    """
    met: set[int] = set()
    quiet = 0
    deadline = time.monotonic() + 2.0
    while quiet < 2 and time.monotonic() < deadline:
        found = _kill_marked_once(marker, title)
        quiet = 0 if found else quiet + 1
        met.update(found)
    return len(met)


def _kill_marked_once(marker: bytes, title: bytes) -> list[int]:
    met = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            handle = os.pidfd_open(int(name))
        except OSError:
            continue
        try:
            marked = False
            with contextlib.suppress(PermissionError), open(f"/proc/{name}/environ", "rb") as environ:
                marked = marker in environ.read().split(b"\0")
            if not marked:  # a shim shows its title to everybody, its environment to none
                with open(f"/proc/{name}/cmdline", "rb") as cmdline:
                    line = cmdline.read().rstrip(b"\0 ")
                marked = line.startswith(b"snakeline: ") and line.endswith(title)
            if marked:
                # It answers to the pidfd only if it is the process that was just looked at.
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                met.append(int(name))
        except OSError:
            pass
        finally:
            os.close(handle)
    return met

"""A control group per attempt: it limits memory, processes and processor time, and ends all at one stroke.

Works with version 2, with version 1, and with the mixture in which version 1 has the controllers and
version 2 nothing but the processes (cgroups(7)). Standard library only: shims and their children use it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

UNIFIED: Final = "unified"
"""The role of the version 2 group; the other roles are controllers, of either version."""

_PERIOD_US: Final = 100_000
_SHARES_PER_CORE: Final = 110
"""Of 1024, a whole group's: a job gives way to the service, as a session of niceness 10 does."""
_GONE: Final = frozenset({errno.ENOENT, errno.ENODEV})


class AttemptGroup:
    """The group of one attempt: a folder per hierarchy, by role; one of version 2 may have several roles."""

    def __init__(self, parents: Mapping[str, str], name: str) -> None:
        """`name` has to be like no other's in the folders `parents`, whoever made it."""
        self._name = name
        self._places = {role: f"{parent}/{name}" for role, parent in parents.items()}
        self._folders = tuple(dict.fromkeys(self._places.values()))

    @property
    def has_memory(self) -> bool:
        return "memory" in self._places

    def make(self, *, memory_bytes: int | None, processes: int | None, cores: int | None) -> None:
        """Make it anew with these limits; what an earlier try left is ended first. Raises OSError."""
        for folder in self._folders:
            try:
                os.mkdir(folder, 0o755)
            except FileExistsError:
                self.kill()
                if not self.remove(within_s=1.0):
                    raise
                return self.make(memory_bytes=memory_bytes, processes=processes, cores=cores)
        try:
            self._require_groups()
            if memory_bytes is not None:
                self._limit_memory(memory_bytes)
            if processes is not None and (pids := self._places.get("pids")):
                _write(f"{pids}/pids.max", str(processes))
            if cores is not None and (cpu := self._places.get("cpu")):
                self._limit_cpu(cpu, cores)
        except BaseException:
            self.remove(within_s=0)
            raise
        return None

    def _require_groups(self) -> None:
        """Where nothing is mounted any more there is a folder, and nothing in it."""
        for folder in self._folders:
            if not os.path.exists(f"{folder}/cgroup.procs"):
                raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), folder)

    def _limit_memory(self, limit_bytes: int) -> None:
        memory = self._places.get("memory")
        if memory is None:
            return
        if memory == self._places.get(UNIFIED):
            _write(f"{memory}/memory.max", str(limit_bytes))
            _write_if_there(f"{memory}/memory.swap.max", "0")
        else:
            _write(f"{memory}/memory.limit_in_bytes", str(limit_bytes))
            # Memory and swap together; kernels that do not count swap do not have it.
            if not _write_if_there(f"{memory}/memory.memsw.limit_in_bytes", str(limit_bytes)):
                _write_if_there(f"{memory}/memory.swappiness", "0")

    def _limit_cpu(self, cpu: str, cores: int) -> None:
        quota = cores * _PERIOD_US
        if cpu == self._places.get(UNIFIED):
            _write(f"{cpu}/cpu.max", f"{quota} {_PERIOD_US}")
            _write(f"{cpu}/cpu.weight", str(min(10_000, _SHARES_PER_CORE * 100 // 1024 * cores)))
        else:
            _write(f"{cpu}/cpu.cfs_quota_us", str(quota))
            _write(f"{cpu}/cpu.shares", str(min(262_144, _SHARES_PER_CORE * cores)))

    def join(self) -> None:
        """Become a member, with everything started from here on. Raises OSError."""
        for folder in self._folders:
            _write(f"{folder}/cgroup.procs", "0")

    # ------------------------------------------------------------ ending

    def processes(self) -> set[int]:
        """The members' pids as this process sees them, groups below included; zombies are left out."""
        found: set[int] = set()
        for folder in self._folders[:1]:
            for below in _tree(folder):
                with contextlib.suppress(OSError), open(f"{below}/cgroup.procs", "rb") as file:
                    found.update(map(int, file.read().split()))
        return found - {0}  # 0: a process of another pid namespace

    def signal(self, number: int) -> int:
        """Send `number` to every member, each proven to be one; how many there were."""
        members = self.processes()
        for pid in members:
            with contextlib.suppress(OSError):
                handle = os.pidfd_open(pid)
                try:
                    if self._has(pid):
                        signal.pidfd_send_signal(handle, number)
                finally:
                    os.close(handle)
        return len(members)

    def _has(self, pid: int) -> bool:
        with open(f"/proc/{pid}/cgroup", "rb") as file:
            groups = os.fsdecode(file.read()).replace("\n", "/\n")
        return f"/{self._name}/" in groups

    def kill(self) -> None:
        """SIGKILL every member: nobody can fork away from it. Never raises; ask `processes` what is left."""
        unified = self._places.get(UNIFIED)
        if unified is not None and _write_if_there(f"{unified}/cgroup.kill", "1"):
            return
        if pids := self._places.get("pids"):
            _write_if_there(f"{pids}/pids.max", "0")  # and so nothing is forked meanwhile
        freezer = self._places.get("freezer")
        if unified is not None:
            _write_if_there(f"{unified}/cgroup.freeze", "1")
        elif freezer is not None:
            _write_if_there(f"{freezer}/freezer.state", "FROZEN")
        try:
            self.signal(signal.SIGKILL)
        finally:
            if unified is not None:
                _write_if_there(f"{unified}/cgroup.freeze", "0")
            elif freezer is not None:
                _write_if_there(f"{freezer}/freezer.state", "THAWED")

    # ------------------------------------------------------------ what it tells

    def oom_kills(self) -> int:
        """How many members the kernel killed because memory was used up, the group's or the machine's."""
        memory = self._places.get("memory")
        if memory is None:
            return 0
        name = "memory.events" if memory == self._places.get(UNIFIED) else "memory.oom_control"
        for line in _read(f"{memory}/{name}").splitlines():
            key, _, value = line.partition(" ")
            if key == "oom_kill" and value.isdigit():
                return int(value)
        return 0

    def memory_peak_bytes(self) -> int:
        """The most memory it had at once; 0 where the kernel does not tell."""
        memory = self._places.get("memory")
        if memory is None:
            return 0
        name = "memory.peak" if memory == self._places.get(UNIFIED) else "memory.max_usage_in_bytes"
        text = _read(f"{memory}/{name}").strip()
        return int(text) if text.isdigit() else 0

    # ------------------------------------------------------------ removal

    def remove(self, *, within_s: float) -> bool:
        """Remove the folders, those that the job made in them too; false while somebody is in there."""
        deadline = time.monotonic() + within_s
        while True:
            left = [folder for folder in self._folders if not _remove(folder)]
            if not left:
                return True
            if time.monotonic() >= deadline:
                return False
            # Dying takes the kernel a moment.
            select.select([], [], [], 0.002)

    def exists(self) -> bool:
        return any(os.path.isdir(folder) for folder in self._folders)


def _tree(folder: str) -> Iterator[str]:
    yield folder
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _tree(entry.path)


def _remove(folder: str) -> bool:
    try:
        os.rmdir(folder)
        return True
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno in _GONE:
            return True
        if error.errno != errno.EBUSY:
            return False
    try:  # with groups inside it is not empty either, and answers the same
        inside = [path for path in _tree(folder) if path != folder]
        for path in reversed(inside):
            os.rmdir(path)
        os.rmdir(folder)
    except OSError:
        return False
    return True


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _write_if_there(path: str, text: str) -> bool:
    try:
        _write(path, text)
    except OSError:
        return False
    return True


def _read(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, 65536).decode(errors="replace")
    except OSError:
        return ""
    finally:
        os.close(fd)

"""A control group around a whole service: the kernel's own list of everything that it and its jobs started.

To enter it is to join the groups and to take mounts out of one's own sight: a process does so itself, or
it is executed (`python cage.py PROCS,… UNMOUNTED,… COMMAND…`) and then becomes the command.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shlex
import signal
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.support.forked_service import Surroundings

_CLONE_NEWNS: Final = 0x00020000
_MS_REC_PRIVATE: Final = 0x4000 | 1 << 18
_MNT_DETACH: Final = 2


def cgroup_mounts() -> dict[str, list[str]]:
    """Where the hierarchies of version 1 ("cgroup") and 2 ("cgroup2") are mounted."""
    found: dict[str, list[str]] = {"cgroup": [], "cgroup2": []}
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, kind, *_ = line.split()
        if kind in found:
            found[kind].append(mount)
    return found


def own_groups() -> dict[str, str]:
    """This process's group in each hierarchy, by controllers; "" is version 2."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    return {controllers: path for _, controllers, path in (line.split(":", 2) for line in lines)}


class Cage:
    """What was started inside of it is listed by `processes`, whatever it did to get out of sight."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders

    def command(self, *, without: Sequence[str] = ()) -> list[str]:
        """What to put before a command that is to run inside, and not to see the mounts `without`."""
        return [sys.executable, "-I", "-S", __file__, *self._arguments(without)]

    def surroundings(self, *, without: Sequence[str] = ()) -> Surroundings:
        """For a forked service that is to be inside, and not to see the mounts `without`."""
        return shlex.join(["tests.support.cage", *self._arguments(without)])

    def _arguments(self, without: Sequence[str]) -> tuple[str, str]:
        return ",".join(str(folder / "cgroup.procs") for folder in self._folders), ",".join(without)

    def processes(self) -> set[int]:
        return {pid for folder in self._folders for pid in _members(folder)}

    def names(self) -> dict[int, str]:
        """The processes with their command lines, for whoever reads a failure."""
        lines = {}
        for pid in self.processes():
            with contextlib.suppress(OSError):
                lines[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()[:150]
        return lines

    def clear(self) -> None:
        """End everything inside, and take the groups away."""
        for folder in self._folders:
            with contextlib.suppress(OSError):
                (folder / "cgroup.kill").write_text("1")
        while inside := self.processes():
            for pid in inside:
                with contextlib.suppress(OSError):
                    handle = os.pidfd_open(pid)
                    try:
                        signal.pidfd_send_signal(handle, signal.SIGKILL)
                    finally:
                        os.close(handle)
        for folder in self._folders:
            for path, _, _ in os.walk(folder, topdown=False):
                os.rmdir(path)


@contextlib.contextmanager
def cage() -> Iterator[Cage | None]:
    """A cage in a hierarchy of version 1 that nobody uses, and in version 2; None where there is neither."""
    own, mounts = own_groups(), cgroup_mounts()
    name = f"cage-{uuid.uuid4().hex[:8]}"
    folders = []
    for mount in [*mounts["cgroup2"], *(m for m in mounts["cgroup"] if m.endswith("/systemd"))]:
        path = own.get("" if mount in mounts["cgroup2"] else "name=systemd", "/")
        folder = Path(f"{mount}{path}") / name
        with contextlib.suppress(OSError):
            folder.mkdir()
            folders.append(folder)
    if not folders:
        yield None
        return
    caged = Cage(folders)
    try:
        yield caged
    finally:
        caged.clear()


@contextlib.contextmanager
def small_memory(limit_mb: int) -> Iterator[Cage | None]:
    """A cage with so many MiB of memory and no swap; None where there is no such group to be had."""
    name, limit = f"cage-{uuid.uuid4().hex[:8]}", str(limit_mb * 2**20)
    path = own_groups().get("memory")
    mount = next((m for m in cgroup_mounts()["cgroup"] if m.endswith("/memory")), None)
    folder, files = Path(f"{mount}{path}") / name, ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
    if mount is None or path is None:
        mount = next(iter(cgroup_mounts()["cgroup2"]), None)
        folder = Path(f"{mount}{own_groups().get('', '/')}") / name
        files = ("memory.max", "memory.swap.max")
    try:
        folder.mkdir()
    except OSError:
        yield None
        return
    caged = Cage([folder])
    try:
        with contextlib.suppress(FileNotFoundError):  # without swap there may be no such limit
            for number, file in enumerate(files):
                is_swap = number and file == "memory.swap.max"
                (folder / file).write_text("0" if is_swap else limit)
        yield caged if (folder / files[0]).exists() else None
    finally:
        caged.clear()


def _members(folder: Path) -> Iterator[int]:
    for path, _, _ in os.walk(folder):
        with contextlib.suppress(OSError):
            yield from map(int, Path(path, "cgroup.procs").read_text().split())


def _unmount(mounts: Sequence[str]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    done = [libc.unshare(_CLONE_NEWNS), libc.mount(None, b"/", None, _MS_REC_PRIVATE, None)]
    done += [libc.umount2(mount.encode(), _MNT_DETACH) for mount in mounts]
    if any(done):
        raise OSError(ctypes.get_errno(), "the mounts cannot be taken away")


def enter(arguments: Sequence[str]) -> None:
    lists, mounts = arguments
    for path in lists.split(","):
        Path(path).write_text("0")
    if mounts:
        _unmount(mounts.split(","))


def main(argv: list[str]) -> None:
    enter(argv[:2])
    command = argv[2:]
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])

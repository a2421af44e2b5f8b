"""Control groups of a test's own, and what the kernel tells of a process's. For root alone."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runner.isolation import cgroup_places
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


def own_folder(controller: str) -> Path:
    """The folder of this process's group in the version 1 hierarchy of `controller`; skips without one."""
    found = cgroup_places.hierarchies(
        Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text()
    )
    for hierarchy in found:
        writable = os.access(hierarchy.own, os.W_OK)
        if controller in hierarchy.controllers and not hierarchy.is_unified and writable:
            return Path(hierarchy.own)
    pytest.skip(f"no writable version 1 hierarchy of {controller} here")


class Freezer:
    """Processes put in here cannot be killed until they are thawed: a stand-in for a hanging disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def freeze(self, pid: int) -> None:
        (self._folder / "cgroup.procs").write_text(str(pid))
        (self._folder / "freezer.state").write_text("FROZEN")
        wait_until(lambda: self._state() == "FROZEN", what="the freezer to freeze")

    def thaw(self) -> None:
        (self._folder / "freezer.state").write_text("THAWED")

    def _state(self) -> str:
        return (self._folder / "freezer.state").read_text().strip()

    def members(self) -> list[int]:
        return [int(pid) for pid in (self._folder / "cgroup.procs").read_text().split()]


@contextlib.contextmanager
def freezer(name: str) -> Iterator[Freezer]:
    """What is still in it at the end is killed."""
    folder = own_folder("freezer") / f"snakeline-test-{name}-{os.getpid()}"
    folder.mkdir()
    found = Freezer(folder)
    try:
        yield found
    finally:
        found.thaw()
        for pid in found.members():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)  # noqa: TID251 - a member of our own group
        wait_until(lambda: _removed(folder), what="the freezer to be empty")


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:
        return False
    return True

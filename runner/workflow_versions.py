"""The versions of workflows that jobs run: `<data_dir>/workflows/versions/<digits of the version>`."""

from __future__ import annotations

import errno
import os
import re
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import structlog

from runner import job_tree
from runner.file_sync import sync_file_system
from runner.folder_copy import copy_tree, folders_around
from runner.folder_version import PREFIX, version_of

if TYPE_CHECKING:
    from collections.abc import Callable

_log = structlog.get_logger(__name__)

_DIGITS: Final = re.compile(r"[0-9a-f]{64}")
_KEPT_S: Final = 3600.0
"""So long a version stays that nobody has a job of: one may just be submitted."""


class WorkflowVersions:
    """Copies of workflows' folders, each named after what it holds. Thread-safe.

    A copy is whole and durable before it has its name, and never changes. It stays as long as a job runs or
    ran this version.
    """

    def __init__(self, data_dir: Path) -> None:
        self._root = data_dir / "workflows" / "versions"
        self._lock = threading.Lock()
        self._wanted_at: dict[str, float] = {}
        self._making: set[str] = set()

    def around(self) -> set[tuple[int, int]]:
        """What no copy may go into: the folders that all copies are in."""
        os.makedirs(self._root, mode=0o700, exist_ok=True)
        return folders_around(os.path.join(self._root, "one"))

    def keep(self, folder: Path, around: set[tuple[int, int]]) -> str:
        """The version of the folder as it is now; from here on there is a copy of it. Raises OSError."""
        version = version_of(os.fspath(folder), around)
        if self.want(version):
            return version
        fresh = f".new-{uuid4().hex}"
        place = self._root / fresh
        with self._lock:
            self._making.add(fresh)
        try:
            copy_tree(os.fspath(folder), os.fspath(place), _go_on, around)
            version = version_of(os.fspath(place), set())  # it may have changed while it was copied
            sync_file_system(place)
            with suppress(FileExistsError):
                self._name(place, version)
            self.want(version)
        finally:
            self._remove(fresh, _go_on)
            with self._lock:
                self._making.discard(fresh)
        return version

    def folder_of(self, version: str) -> Path:
        """Where its copy is, if there is one."""
        return self._root / version.removeprefix(PREFIX)

    def sweep(self, is_needed: Callable[[str], bool], rest: Callable[[], None]) -> None:
        """Remove every version that is not needed, and what was left by copies cut short.

        `rest` is called often, and may end the sweep by raising. Raises what `is_needed` raises.
        """
        try:
            names = os.listdir(self._root)
        except FileNotFoundError:
            return
        for name in names:
            if _DIGITS.fullmatch(name) and not is_needed(PREFIX + name) and self._give_up(name):
                _log.info("workflow.version_removed", version=PREFIX + name)
                self._remove(f".old-{name}", rest)
            with self._lock:
                is_litter = name.startswith(".") and name not in self._making
            if is_litter:
                self._remove(name, rest)
            rest()

    def _name(self, place: Path, version: str) -> None:
        """Raises FileExistsError: another has made it meanwhile."""
        try:
            os.rename(place, self.folder_of(version))
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise FileExistsError from None
            raise
        sync_file_system(self._root)

    def want(self, version: str) -> bool:
        """Whether it is there; it stays for a while then."""
        with self._lock:
            self._wanted_at[version] = time.monotonic()
            return self.folder_of(version).is_dir()

    def _give_up(self, name: str) -> bool:
        """At one stroke nobody finds it any more, unless somebody has just asked for it."""
        with self._lock:
            wanted_at = self._wanted_at.get(PREFIX + name)
            if wanted_at is not None and time.monotonic() - wanted_at < _KEPT_S:
                return False
            self._wanted_at.pop(PREFIX + name, None)
            with suppress(OSError):
                os.rename(self._root / name, self._root / f".old-{name}")
                return True
        return False

    def _remove(self, name: str, rest: Callable[[], None]) -> None:
        try:
            fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            job_tree.remove(fd, name, rest)
        except OSError as error:
            _log.warning("workflow.version_left_behind", name=name, error=error.strerror)
        finally:
            os.close(fd)


def _go_on() -> None:
    """Somebody waits for it."""

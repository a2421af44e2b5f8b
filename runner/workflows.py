"""The registered workflows: folders or commits of git repositories, read from disk when they have changed."""

from __future__ import annotations

import os
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from runner.errors import WorkflowNotFound
from runner.git_pins import SUFFIX, GitPin, UnusablePin, read_pin
from runner.jobs import UPLOADED
from runner.workflow_folder import PARTS, UnusableWorkflow, read_workflow

if TYPE_CHECKING:
    from runner.ports import Workflow

_log = structlog.get_logger(__name__)

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,199}")  # a file can be called so, suffix and all
_Stamp = tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class _Entry:
    pin_stamp: _Stamp
    folder: str
    signature: tuple[_Stamp, ...]
    workflow: Workflow | None  # None: it cannot be used


class FolderRegistry:
    """Thread-safe. A new, changed or removed workflow counts from the next call on, without a restart."""

    def __init__(
        self, workflows_dir: Path, checkouts_dir: Path | None = None, *, max_attachment_bytes: int = 0
    ) -> None:
        """`checkouts_dir` has what was fetched of git repositories; without one nothing was."""
        self._root = workflows_dir.absolute()
        self._checkouts = checkouts_dir
        self._max_attachment_bytes = max_attachment_bytes
        self._entries: dict[str, _Entry] = {}
        self._lock = threading.Lock()

    @property
    def checkouts_dir(self) -> Path:
        return self._root / "nothing was fetched" if self._checkouts is None else self._checkouts

    def candidates(self) -> tuple[str, ...]:
        """Every name that a folder or a `NAME.git.toml` claims, usable or not."""
        try:
            with os.scandir(self._root) as found:
                names = {
                    entry.name.removesuffix(SUFFIX)
                    for entry in found
                    if entry.name.endswith(SUFFIX) or entry.is_dir()
                }
        except OSError as error:
            _log.warning("workflows.unreadable", path=str(self._root), error=error.strerror)
            return ()
        return tuple(sorted(filter(_is_name, names)))

    def names(self) -> tuple[str, ...]:
        found = self.candidates()
        with self._lock:
            # Also names that callers have made up, which `get` has looked for.
            for gone in self._entries.keys() - set(found):
                del self._entries[gone]
        return tuple(name for name in found if self._current(name) is not None)

    def get(self, name: str) -> Workflow:
        """Raises WorkflowNotFound, also for a folder that cannot be used: the service's log says why."""
        entry = self._current(name) if _is_name(name) else None
        if entry is None or entry.workflow is None:
            raise WorkflowNotFound(name, self.names())
        return entry.workflow

    def examine(self, name: str) -> Workflow | None:
        """As it is now, read anew; None without a Snakefile. Raises UnusableWorkflow."""
        folder, pin = self._place(name)
        if pin is not None and not pin.checkout(self.checkouts_dir).is_dir():
            raise UnusableWorkflow(name + SUFFIX, "its commit is not here: run `snakeline workflows fetch`")
        commit = None if pin is None else pin.commit
        return read_workflow(name, Path(folder), max_bytes=self._max_attachment_bytes, commit=commit)

    def is_left_out(self, name: str) -> bool:
        """Whether it is a workflow that cannot be used."""
        try:
            self.examine(name)
        except UnusableWorkflow:
            return True
        return False

    def pins(self) -> list[GitPin]:
        """Every `NAME.git.toml` that can be read."""
        found = []
        for name in self.candidates():
            try:
                found.append(read_pin(name, self._root / (name + SUFFIX)))
            except (UnusablePin, FileNotFoundError):
                continue
        return found

    def _current(self, name: str) -> _Entry | None:
        # Six stats for every submit: as plain text, which costs a third of what path objects do.
        pin_stamp = _stamp(f"{self._root}/{name}{SUFFIX}")
        with self._lock:
            known = self._entries.get(name)
            folder = f"{self._root}/{name}"
            if pin_stamp is not None:
                pin_stamp = (*pin_stamp, os.path.lexists(folder))  # both of one name are neither
                is_same = known is not None and known.pin_stamp == pin_stamp
                folder = known.folder if known is not None and is_same else self._pinned_folder(name)
            signature = tuple([_stamp(f"{folder}/{part}") for part in PARTS])
            if (
                known is None
                or known.signature != signature
                or known.pin_stamp != pin_stamp
                or known.folder != folder
            ):
                known = _Entry(pin_stamp, folder, signature, self._read(name))
                self._entries[name] = known
        return known if known.workflow is not None else None

    def _read(self, name: str) -> Workflow | None:
        try:
            return self.examine(name)
        except UnusableWorkflow as error:
            _log.error("workflow.left_out", workflow=name, file=error.file, reason=str(error))
            return None

    def _pinned_folder(self, name: str) -> str:
        try:
            return self._place(name)[0]
        except UnusableWorkflow:
            return f"{self._root}/{name}"  # what is the matter is told when it is read

    def _place(self, name: str) -> tuple[str, GitPin | None]:
        """Where the workflow's folder is or would be. Raises UnusableWorkflow."""
        file = name + SUFFIX
        try:
            pin = read_pin(name, self._root / file)
        except FileNotFoundError:
            return f"{self._root}/{name}", None
        except UnusablePin as error:
            raise UnusableWorkflow(file, str(error)) from error
        if os.path.lexists(self._root / name):
            raise UnusableWorkflow(file, f"there is a folder {name} as well: remove one of the two")
        return os.path.join(pin.checkout(self.checkouts_dir), pin.folder), pin


def _is_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and name != UPLOADED


def _stamp(path: str) -> _Stamp:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_size, status.st_ino, status.st_mode)

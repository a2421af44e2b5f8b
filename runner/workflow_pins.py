"""Each registered workflow at the version that a job submitted now would run."""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runner.attempt_files import AttemptFiles
from runner.disk_trouble import FULL, no_room_for
from runner.errors import JobFilesGone, WorkflowUnavailable
from runner.folder_version import look_at, version_of
from runner.jobs import UPLOADED
from runner.ports import PinnedWorkflow, Workflow
from runner.workflow_folder import snakefile_in

if TYPE_CHECKING:
    from runner.errors import StorageFull
    from runner.folder_version import Look
    from runner.jobs import Job
    from runner.ports import WorkflowRegistry
    from runner.workflow_versions import WorkflowVersions

_SHARE: Final = 0.05
"""The part of the time in which a workflow that is submitted all the time is looked at."""
_SHORT_S: Final = 0.001


@dataclass(frozen=True, slots=True)
class _Pin:
    """`workflow` is the registered one, as the registry has it: another object as soon as it has changed."""

    workflow: Workflow
    look: Look
    pinned: PinnedWorkflow
    due_at: float

    def is_good_for(self, workflow: Workflow, look: Look) -> bool:
        return self.workflow is workflow and self.look.is_settled and self.look.digest == look.digest


class FolderPins:
    """Thread-safe. A folder is looked at again after 20 times as long as the last look took.

    So what has changed in it counts after that time at the latest: under a millisecond for a dozen files, a
    second for ten thousand.
    """

    def __init__(self, data_dir: Path, registry: WorkflowRegistry, versions: WorkflowVersions) -> None:
        self._data_dir = data_dir
        self._registry = registry
        self._versions = versions
        self._pins: dict[str, _Pin] = {}
        self._shown: dict[str, tuple[Look, str]] = {}
        self._locks: dict[str, threading.Lock] = defaultdict(threading.Lock)

    def pinned(self, name: str) -> PinnedWorkflow | None:
        workflow = self._registry.get(name)
        pin = self._pins.get(name)
        if pin is None or pin.workflow is not workflow:
            return None
        if time.monotonic() < pin.due_at or self._looks_the_same(pin):
            return pin.pinned
        return None

    def _looks_the_same(self, pin: _Pin) -> bool:
        """Whether a short look finds nothing changed; False as well where it would not be short."""
        if pin.look.took_s > _SHORT_S or not pin.look.is_settled:
            return False
        lock = self._locks[pin.workflow.name]
        if not lock.acquire(blocking=False):
            return False
        try:
            look = look_at(os.fspath(pin.workflow.folder), self._versions.around())
            if look.digest == pin.look.digest:
                self._pins[pin.workflow.name] = replace(pin, look=look, due_at=_due_at(look))
                return True
        except OSError:
            pass  # `pin` tells what is the matter
        finally:
            lock.release()
        return False

    def pin(self, name: str) -> PinnedWorkflow:
        self._registry.get(name)  # so that no lock is made for a name that somebody has made up
        with self._locks[name]:
            workflow = self._registry.get(name)
            pin = self._pins.get(name)
            if pin is not None and pin.workflow is workflow and time.monotonic() < pin.due_at:
                return pin.pinned
            try:
                around = self._versions.around()
                look = look_at(os.fspath(workflow.folder), around)
                if pin is not None and pin.is_good_for(workflow, look):
                    pinned = pin.pinned
                else:
                    pinned = self._keep(workflow, around)
            except OSError as error:
                raise _unavailable(name, error) from error
            if pin is not None:
                self._versions.want(pin.pinned.version)  # a job with it may just be on its way to the store
            self._pins[name] = _Pin(workflow, look, pinned, _due_at(look))
            return pinned

    def version(self, workflow: Workflow) -> str | None:
        name = workflow.name
        with self._locks[name]:
            try:
                around = self._versions.around()
                look = look_at(os.fspath(workflow.folder), around)
                known = self._shown.get(name)
                if known is None or known[0].digest != look.digest or not known[0].is_settled:
                    known = (look, version_of(os.fspath(workflow.folder), around))
                self._shown[name] = known
            except OSError:
                return None
            return known[1]

    def of(self, job: Job) -> Workflow:
        name = job.spec.workflow
        files = AttemptFiles.of(self._data_dir, job.id, job.attempt)
        if name == UPLOADED:
            return _at(name, files.workflow, files.work)
        if job.workflow_version is None:  # accepted by an earlier release
            return self._registry.get(name)
        return _at(name, os.fspath(self._versions.folder_of(job.workflow_version)), files.work)

    def held(self) -> set[str]:
        """The versions that a job submitted now would have."""
        return {pin.pinned.version for pin in list(self._pins.values())}

    def _keep(self, workflow: Workflow, around: set[tuple[int, int]]) -> PinnedWorkflow:
        version = self._versions.keep(workflow.folder, around)
        folder = self._versions.folder_of(version)
        snakefile = snakefile_in(folder)
        if snakefile is None:
            raise WorkflowUnavailable(workflow.name, "its Snakefile is a link that leads out of the folder")
        return PinnedWorkflow(replace(workflow, folder=folder, snakefile=snakefile), version)


def _at(name: str, folder: str, work: str) -> Workflow:
    """The workflow in the folder that it was kept in, or else in the job's own copy of that."""
    for place in map(Path, (folder, work)):
        if (snakefile := snakefile_in(place)) is not None:
            return Workflow(name, place, snakefile, "", None)
    raise JobFilesGone("The workflow is no longer kept as this job was to run it: submit the job again.")


def _due_at(look: Look) -> float:
    return time.monotonic() + look.took_s / _SHARE


def _unavailable(name: str, error: OSError) -> WorkflowUnavailable | StorageFull:
    if error.errno in FULL:
        return no_room_for("a copy of the workflow")
    what = os.path.basename(os.fsdecode(error.filename)) if error.filename else ""
    return WorkflowUnavailable(name, f"{error.strerror}{what and ': '}{what}")

"""Launches attempts: from a claimed job to a command that the backend runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from runner.attempt_files import AttemptFiles
from runner.disk_trouble import PASSING
from runner.errors import EngineUnavailable, JobFilesGone, WorkflowNotFound
from runner.ports import LaunchRequest
from runner.recurring_trouble import RecurringTrouble

if TYPE_CHECKING:
    from pathlib import Path

    from runner.jobs import Job
    from runner.ports import Backend, Engine, Handle, WorkflowPins
    from runner.uploads import Uploads

_log = structlog.get_logger(__name__)


class Launching:
    """It belongs to the supervisor's thread."""

    def __init__(
        self, data_dir: Path, *, engine: Engine, backend: Backend, pins: WorkflowPins, uploads: Uploads
    ) -> None:
        self._data_dir = data_dir
        self._engine = engine
        self._backend = backend
        self._pins = pins
        self._uploads = uploads
        self._trouble = RecurringTrouble()

    def launch(self, job: Job, handle: Handle) -> None:
        """Ask the backend to start the attempt.

        Raises BackendUnavailable: nothing was started. `failure` tells what any other error means.
        """
        self._uploads.settle(job)
        workflow = self._pins.of(job)
        files = AttemptFiles.of(self._data_dir, handle.job_id, handle.attempt)
        command = self._engine.command(job, workflow, files)
        self._backend.launch(LaunchRequest.of(handle, command, workflow.folder, job.spec))

    def failure(self, error: Exception, handle: Handle) -> str | None:
        """Why the attempt can't be launched, for people; None when it can be later."""
        match error:
            case EngineUnavailable() | WorkflowNotFound() | JobFilesGone():
                return str(error)
            case OSError():
                if error.errno in PASSING:
                    if times := self._trouble.came(str(error.strerror)):
                        _log.warning(
                            "supervisor.launch_postponed",
                            job_id=handle.job_id,
                            error=error.strerror,
                            times=times,
                        )
                    return None
                return f"The job's files could not be written: {error.strerror}."
            case _:
                _log.error("supervisor.launch_failed", job_id=handle.job_id, exc_info=error)
                return f"The job could not be launched: {error!r}; the service's log says more."

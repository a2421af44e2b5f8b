"""What is done about an attempt whose shim left no record: ending what it left, and finding out why."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import structlog

from runner.attempt_files import AttemptFiles, lock_holder
from runner.backends.survivors import shim_of
from runner.isolation.probe import leftovers
from runner.isolation.processes import kill_marked
from runner.job_files import open_in_job

if TYPE_CHECKING:
    from runner.isolation.confinement import Measures
    from runner.monitor import Monitor
    from runner.ports import Handle

_log = structlog.get_logger(__name__)

KILL_WITHIN_S = 2.0


def end(handle: Handle, measures: Measures, monitor: Monitor | None) -> str:
    """End its processes, which nobody else is left to do; what is to be told of that.

    By its control group and its user, if it had one; then by marks on processes, which is the last resort.
    """
    trouble = ""
    swept = _end_group(handle, measures) if monitor is None else 0
    swept += kill_marked(
        f"SNAKELINE_JOB_ID={handle.job_id}".encode(), f" job {handle.job_id}/{handle.attempt}".encode()
    )
    if monitor is not None:
        try:
            swept += monitor.hand_back(handle.job_id, handle.attempt)
        except OSError as error:
            _log.error("attempt.not_handed_back", job_id=handle.job_id, error=str(error))
            trouble = f"; what it left could not be ended or taken back: {error.strerror or error}"
    if swept:
        return f"; {swept} of its processes were still running and were killed{trouble}"
    return trouble


def end_leftovers(data_dir: str, measures: Measures) -> None:
    """At the start: end and remove the groups of attempts that no shim holds any more.

    What is left of them is reported nowhere else: their jobs may be deleted.
    """
    for job_id, attempt in leftovers(measures):
        files = AttemptFiles.of(data_dir, job_id, attempt)
        if lock_holder(files.lock) is None and shim_of(files) is None:
            group = measures.group(job_id, attempt)
            assert group is not None
            members = group.processes()
            if members:
                group.kill()
                _log.warning("attempt.leftovers_killed", job_id=job_id, processes=len(members))
            group.remove(within_s=KILL_WITHIN_S)


def _end_group(handle: Handle, measures: Measures) -> int:
    """Kill what is in the attempt's group and remove it; how many there were."""
    group = measures.group(handle.job_id, handle.attempt)
    if group is None:
        return 0
    members = group.processes()
    if members:
        group.kill()
    if not group.remove(within_s=KILL_WITHIN_S):
        _log.error("attempt.survivors", job_id=handle.job_id, processes=len(group.processes()))
    return len(members)


def were_removed(files: AttemptFiles) -> bool:
    """Whether the attempt's files were there once: what is made after them is, and they are not.

    A job can do that to itself, and must not be started again for it. One that removes the folder of a
    later attempt alone leaves nothing to tell it from an attempt whose files were never written.
    """
    before = AttemptFiles(files.job_dir, files.attempt - 1)
    return (
        not os.path.exists(files.spec)
        and os.path.exists(files.home)
        and (files.attempt == 1 or not os.path.exists(before.directory))
    )


def last_words(files: AttemptFiles) -> str:
    """What the shim said before it died of itself; a full disk may have cut it short or left nothing."""
    try:
        lines = read_beginning(files, files.crash).decode(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return f": {lines[-1]}" if lines else ""


def read_beginning(files: AttemptFiles, path: str) -> bytes:
    """The beginning of a file of the attempt. Raises FileNotFoundError for what a job put in its place."""
    with open(open_in_job(files, path), "rb", buffering=0) as file:
        return file.read(65536)

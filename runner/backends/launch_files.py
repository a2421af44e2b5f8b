"""What the service writes for a shim to begin with."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from runner.attempt_files import ExitRecord, ShimSpec
from runner.isolation.confinement import Limits

if TYPE_CHECKING:
    from runner.attempt_files import AttemptFiles
    from runner.ports import LaunchRequest, StopReason


def write_request(
    files: AttemptFiles,
    request: LaunchRequest,
    *,
    stop_grace_s: float,
    log_segment_bytes: int,
    max_processes: int | None,
) -> None:
    """The command's own files, then `spec.json`.

    Not synced: after a power cut an attempt that was not started is written again. Raises OSError.
    """
    command = request.command
    os.makedirs(files.directory, mode=0o700, exist_ok=True)
    for path, content in command.files.items():
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        write(path, content)
    limits = Limits(memory_bytes=request.memory_bytes, processes=max_processes, cores=request.cores)
    spec = ShimSpec(
        job_id=request.handle.job_id,
        attempt=request.handle.attempt,
        argv=list(command.argv),
        environment=dict(command.environment),
        work_dir=files.work,
        prepare=[list(argv) for argv in command.prepare],
        source=None if request.source is None else os.fspath(request.source),
        warm_entry=command.warm_entry,
        timeout_s=request.timeout_s,
        stop_grace_s=stop_grace_s,
        log_segment_bytes=log_segment_bytes,
        title=command.title,
        confinement=limits.dump(),
    )
    # Never half written for a reader: a shim of an earlier try may just be starting.
    write(files.spec + ".new", spec.dump())
    os.rename(files.spec + ".new", files.spec)


def withdraw(files: AttemptFiles, why: StopReason) -> ExitRecord:
    """End an attempt that no shim has started: the start mark, once made, keeps every shim out.

    Raises OSError: it was started, and nothing was done.
    """
    now = time.time()
    never = ExitRecord(None, None, None, why, now, now, 0, 0, 0, 0, 0)
    prepared = files.exit + ".withdrawn"
    write(prepared, never.dump())
    os.close(os.open(files.started, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    os.rename(prepared, files.exit)
    return never


def write(path: str, content: bytes) -> None:
    """Raises OSError, also where an earlier attempt left a FIFO or a link."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    fd = os.open(path, flags, 0o600)
    with open(fd, "wb") as file:
        file.write(content)

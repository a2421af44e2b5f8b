"""What the service writes for a shim to begin with."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from runner.attempt_files import ShimSpec

if TYPE_CHECKING:
    from runner.attempt_files import AttemptFiles
    from runner.ports import LaunchRequest


def write_request(
    files: AttemptFiles, request: LaunchRequest, *, stop_grace_s: float, log_segment_bytes: int
) -> None:
    """The command's own files, then `spec.json`.

    Not synced: after a power cut an attempt that was not started is written again. Raises OSError.
    """
    command = request.command
    os.makedirs(files.directory, mode=0o700, exist_ok=True)
    for path, content in command.files.items():
        write(path, content)
    spec = ShimSpec(
        job_id=request.handle.job_id,
        attempt=request.handle.attempt,
        argv=list(command.argv),
        environment=dict(command.environment),
        work_dir=files.work,
        prepare=[list(argv) for argv in command.prepare],
        source=os.fspath(request.source),
        warm_entry=command.warm_entry,
        timeout_s=request.timeout_s,
        stop_grace_s=stop_grace_s,
        log_segment_bytes=log_segment_bytes,
        title=command.title,
    )
    # Never half written for a reader: a shim of an earlier try may just be starting.
    write(files.spec + ".new", spec.dump())
    os.rename(files.spec + ".new", files.spec)


def write(path: str, content: bytes) -> None:
    """Raises OSError, also where an earlier attempt left a FIFO or a link."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    fd = os.open(path, flags, 0o600)
    with open(fd, "wb") as file:
        file.write(content)

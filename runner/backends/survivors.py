"""What could not be killed: its shim stays, after the record, until nothing is left. Standard library only.

As long as it stays it holds the lock of a file in `<data_dir>/survivors`, named after the attempt. That is
how a service that was restarted learns of it, and why nothing has to be asked again and again.
"""

from __future__ import annotations

import contextlib
import os
import select
from typing import TYPE_CHECKING, Final

from runner.attempt_files import lock_holder, try_lock

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.attempt_files import AttemptFiles

_KILL_WITHIN_S: Final = 0.1
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 10.0


def outlive(files: AttemptFiles, lock_fd: int, try_to_end: Callable[[float], int]) -> None:
    """In the shim, after the record: let the attempt be told as ended, and wait until nothing of it is left.

    `try_to_end` kills once more, for so many seconds, and answers how much is left.
    """
    note = _note(files)
    held = None
    with contextlib.suppress(OSError):  # a full disk: a restarted service then does not know
        os.makedirs(os.path.dirname(note), mode=0o700, exist_ok=True)
        held = try_lock(note)
    os.close(lock_fd)
    wait_s = _FIRST_WAIT_S
    while try_to_end(_KILL_WITHIN_S):
        select.select([], [], [], wait_s)
        wait_s = min(wait_s * 2, _LONGEST_WAIT_S)
    if held is not None:
        with contextlib.suppress(OSError):
            os.unlink(note)


def _note(files: AttemptFiles) -> str:
    data_dir = os.path.dirname(os.path.dirname(files.job_dir))
    return f"{data_dir}/survivors/{os.path.basename(files.job_dir)}.{files.attempt}"


def found(data_dir: str) -> list[tuple[str, int, int]]:
    """In the service: each attempt that has survivors, as job, number and the pid of its shim.

    Notes that nobody holds any more are removed. Raises OSError.
    """
    folder = f"{data_dir}/survivors"
    attempts = []
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    for name in names:
        job_id, _, attempt = name.rpartition(".")
        pid = lock_holder(f"{folder}/{name}") if job_id and attempt.isdecimal() else None
        if pid is not None:
            attempts.append((job_id, int(attempt), pid))
        else:
            with contextlib.suppress(OSError):
                os.unlink(f"{folder}/{name}")
    return attempts


def shim_of(files: AttemptFiles) -> int | None:
    """The pid of the shim that waits for this attempt's survivors. Raises OSError."""
    return lock_holder(_note(files))

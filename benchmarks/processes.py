"""What processes use, as the kernel tells it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from runner.attempt_files import AttemptFiles, lock_holder

if TYPE_CHECKING:
    from collections.abc import Iterable


def cpu_s(pid: int) -> float:
    """User and system time the process has used so far, without its children."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def tree(pid: int) -> list[int]:
    """The process and all its descendants that are alive."""
    with suppress(psutil.NoSuchProcess):
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    return []


def end_tree(pid: int) -> None:
    """SIGKILL a child of ours and all its descendants, who have nothing to lose."""
    with suppress(psutil.NoSuchProcess):
        top = psutil.Process(pid)
        for process in (*top.children(recursive=True), top):
            with suppress(psutil.NoSuchProcess):
                process.kill()  # psutil makes sure that it is still the same process


def pss_bytes(pids: Iterable[int]) -> int:
    """Proportional set size: shared pages count in parts, so that the sum is what is really used."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def shim_pids(data_dir: Path) -> list[int]:
    """The shims of all running attempts: those who hold the attempts' locks."""
    found = []
    jobs = data_dir / "jobs"
    for job_id in os.listdir(jobs) if jobs.is_dir() else ():
        attempts = jobs / job_id / "attempts"
        for attempt in os.listdir(attempts) if attempts.is_dir() else ():
            holder = lock_holder(AttemptFiles.of(data_dir, job_id, int(attempt)).lock)
            if holder is not None:
                found.append(holder)
    return found

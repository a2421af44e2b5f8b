"""Keeps a job's memory limit where no control group does: best effort. Standard library only.

The shim looks at its tree while such a job runs. What is taken and given back between two looks is not
seen, nor what is in files of a tmpfs that no process has mapped.
"""

from __future__ import annotations

import contextlib
import os
import time

from runner.isolation.processes import descendants

LOOK_EVERY_S = 0.25
_LOOK_AGAIN_S = 0.02
_SHARE = 20  # rest twenty times as long as a look took: a twentieth of a core at most


class MemoryWatch:
    """The memory of this process's descendants against one limit; None is no limit, and nothing is looked at.

    `next_at` is when to look again, on the monotonic clock. `peak_bytes` is the most that was seen; it
    counts what processes share once for each, unless that was beyond the limit.
    """

    def __init__(self, limit_bytes: int | None, *, counts_kills: bool) -> None:
        """`counts_kills`: note what the machine does for lack of memory, as nobody counts it by job."""
        self.peak_bytes = 0
        self.next_at = None if limit_bytes is None else time.monotonic() + LOOK_EVERY_S
        self._limit_bytes = limit_bytes
        self._was_exceeded = False
        self._kills_before = machine_oom_kills() if counts_kills else None

    def is_exceeded(self) -> bool:
        """Look, if it is time to: whether they take more than they may, in two looks in a row.

        A process that is about to execute another program (vfork(2)) counts twice for a moment.
        """
        now = time.monotonic()
        if self.next_at is None or self._limit_bytes is None or now < self.next_at:
            return False
        taken = self._taken_bytes(self._limit_bytes)
        self.peak_bytes = max(self.peak_bytes, taken)
        before, self._was_exceeded = self._was_exceeded, taken > self._limit_bytes
        after = time.monotonic()
        pause_s = _LOOK_AGAIN_S if self._was_exceeded else LOOK_EVERY_S
        self.next_at = after + max(pause_s, _SHARE * (after - now))
        return before and self._was_exceeded

    def machine_oom_kills(self) -> int:
        """How many processes the machine has killed for lack of memory since; 0 where it is not known."""
        if self._kills_before is None:
            return 0
        return max(0, (machine_oom_kills() or 0) - self._kills_before)

    def _taken_bytes(self, limit_bytes: int) -> int:
        tree = descendants(os.getpid())
        resident = {pid: _resident_bytes(pid) for pid in tree}
        if sum(resident.values()) <= limit_bytes:
            return sum(resident.values())
        # It may be that they share much, as forks do. Their shares cost the kernel a walk over all pages.
        return sum(_share_bytes(pid, resident[pid]) for pid in tree)


def machine_oom_kills() -> int | None:
    """How many processes this kernel has killed for lack of memory so far; None if it does not tell."""
    with contextlib.suppress(OSError, ValueError), open("/proc/vmstat", "rb") as vmstat:
        for line in vmstat.read().splitlines():
            if line.startswith(b"oom_kill "):
                return int(line.split()[1])
    return None


def _resident_bytes(pid: int) -> int:
    """What it has in memory and in swap; 0 when it is gone (proc_pid_status(5))."""
    return _sum_of(f"/proc/{pid}/status", (b"VmRSS:", b"VmSwap:")) or 0


def _share_bytes(pid: int, resident_bytes: int) -> int:
    """Its share of pages that several have, with all of its own; all it has where that can't be told."""
    share = _sum_of(f"/proc/{pid}/smaps_rollup", (b"Pss:", b"SwapPss:"))
    return resident_bytes if share is None else share


def _sum_of(path: str, names: tuple[bytes, ...]) -> int | None:
    """The sum of these lines, in bytes; None where the file can't be read."""
    try:
        with open(path, "rb") as file:
            lines = file.read().splitlines()
    except OSError:
        return None
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(names))

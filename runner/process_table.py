"""Every process of the machine in one look: which belong to which, and what whole trees of them use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

import psutil

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_DEAD: Final = frozenset({psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD})
"""Only its account is left."""


@dataclass(frozen=True, slots=True)
class TreeUse:
    """What the processes below one process use, and have used until now."""

    cpu_s: float
    rss_bytes: int
    processes: int
    read_bytes: int
    written_bytes: int


class ProcessTable:
    """Which process was whose child at one moment."""

    def __init__(
        self, processes: Mapping[int, psutil.Process], children: Mapping[int, Sequence[psutil.Process]]
    ) -> None:
        self._processes = processes
        self._children = children

    @classmethod
    def now(cls) -> Self:
        processes = {process.pid: process for process in psutil.process_iter()}
        children: dict[int, list[psutil.Process]] = {}
        for process in processes.values():
            try:
                children.setdefault(process.ppid(), []).append(process)
            except psutil.Error:
                continue
        return cls(processes, children)

    def tree_below(self, top: int) -> TreeUse | None:
        """The sums over all descendants of `top` that are still there; None when there are none.

        The kernel adds the CPU and I/O of a process to the account of whoever waits for it. `top` itself is
        left out, but not what it has waited for. Another user's I/O is not told.
        """
        if top not in self._processes or top not in self._children:
            return None
        try:
            account = self._processes[top].cpu_times()
        except psutil.Error:
            return None
        cpu_s = account.children_user + account.children_system
        rss, read, written, found, alive = 0, 0, 0, 0, 0
        waiting = [top]
        while waiting:
            for process in self._children.get(waiting.pop(), ()):
                waiting.append(process.pid)
                try:
                    with process.oneshot():  # one file is read for both of these
                        account, status = process.cpu_times(), process.status()
                        found += 1
                        cpu_s += sum(account[:4])  # its own, and of children that it has waited for
                        if status in _DEAD:
                            continue
                        alive += 1
                        rss += process.memory_info().rss
                        io = process.io_counters()  # last: another user's is not told
                except psutil.Error:
                    continue
                read += io.read_bytes
                written += io.write_bytes
        if not found:
            return None
        return TreeUse(
            cpu_s=cpu_s,
            rss_bytes=rss,
            processes=alive,
            read_bytes=read,
            written_bytes=written,
        )


def started_after_boot_s(pid: int) -> float | None:
    """When this process was started, by a clock that nobody sets (CLOCK_BOOTTIME); None when it is gone."""
    try:
        return psutil.Process(pid).create_time() - psutil.boot_time()
    except psutil.Error:
        return None

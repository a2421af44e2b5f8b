"""Looks at running jobs from time to time: what their process trees use."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil
import structlog

from runner.jobs import Usage
from runner.samples import Sample

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from runner.ports import Handle

    _Trees = Mapping[int, Sequence[psutil.Process]]

_log = structlog.get_logger(__name__)

_IDLE_SHARE = 400  # rest 400 times as long as a look took: a quarter of a percent of a core
_USAGE_EVERY_S = 2.0


@dataclass(slots=True)
class _Watched:
    pid: Callable[[], int | None]
    usage: Usage | None = None
    max_rss_bytes: int = 0


class Sampler:
    """One thread for all jobs. It rests longer the longer a look takes, so its cost stays bounded."""

    def __init__(self, report: Callable[[Sequence[Sample]], None]) -> None:
        """`report` is called on the sampler's thread with what has changed."""
        self._report = report
        self._watched: dict[Handle, _Watched] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._some = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stopping.set()
        self._some.set()
        if self._thread.is_alive():
            self._thread.join()

    def add(self, handle: Handle, pid: Callable[[], int | None]) -> None:
        """Watch an attempt from now on; `pid` tells its top process once that is known."""
        with self._lock:
            self._watched[handle] = _Watched(pid)
        self._some.set()

    def finish(self, handle: Handle) -> int:
        """Stop watching: the largest memory seen, 0 when it was never looked at."""
        with self._lock:
            watched = self._watched.pop(handle, None)
            if not self._watched:
                self._some.clear()
        return watched.max_rss_bytes if watched is not None else 0

    def _run(self) -> None:
        rest_s = _USAGE_EVERY_S
        while not self._stopping.wait(rest_s):
            self._some.wait()
            began = time.thread_time()
            with self._lock:
                watched = dict(self._watched)
            try:
                trees = _trees() if watched else {}
                samples = [s for handle, w in watched.items() if (s := _look(handle, w, trees))]
                if samples:
                    self._report(samples)
            except Exception:  # noqa: BLE001 - a sample more or less, but the thread must live
                _log.exception("sampler.failed")
            rest_s = max(_USAGE_EVERY_S, _IDLE_SHARE * (time.thread_time() - began))


def _look(handle: Handle, watched: _Watched, trees: _Trees) -> Sample | None:
    pid = watched.pid()
    usage = None if pid is None else _usage_of(pid, trees, watched.max_rss_bytes)
    if usage is None:
        return None
    watched.max_rss_bytes = usage.max_rss_bytes
    if watched.usage is not None and not _worth_telling(watched.usage, usage):
        return None
    watched.usage = usage
    return Sample(handle, usage=usage)


def _worth_telling(before: Usage, now: Usage) -> bool:
    """A job that sleeps causes no writes: half a second of CPU or a tenth more memory do."""
    return now.cpu_s >= before.cpu_s + 0.5 or now.max_rss_bytes > before.max_rss_bytes * 1.1


def _trees() -> dict[int, list[psutil.Process]]:
    """Every process by its parent, in one look for all jobs."""
    families: dict[int, list[psutil.Process]] = {}
    for process in psutil.process_iter():
        try:
            families.setdefault(process.ppid(), []).append(process)
        except psutil.Error:
            continue
    return families


def _usage_of(top: int, trees: _Trees, peak_bytes: int) -> Usage | None:
    """The sums over all processes below `top`; None when there are none.

    The kernel adds the CPU and I/O of processes that were waited for to their parent's account.
    """
    waiting = [top]
    cpu_s, rss, read, written, seen = 0.0, 0, 0, 0, 0
    while waiting:
        for process in trees.get(waiting.pop(), ()):
            waiting.append(process.pid)
            try:
                with process.oneshot():
                    times = process.cpu_times()
                    rss += process.memory_info().rss
                    seen += 1
                    cpu_s += times.user + times.system + times.children_user + times.children_system
                    io = process.io_counters()  # last: another user's is not told
            except psutil.Error:
                continue
            read += io.read_bytes
            written += io.write_bytes
    if not seen:
        return None
    return Usage(round(cpu_s, 2), max(rss, peak_bytes), read, written)

"""Looks at running jobs from time to time: their progress, and what their process trees use."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil
import structlog

from runner.jobs import Progress, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from runner.ports import Handle, RunReader

    _Trees = Mapping[int, Sequence[psutil.Process]]

_log = structlog.get_logger(__name__)

_IDLE_SHARE = 400  # rest 400 times as long as a look took: a quarter of a percent of a core
_PROGRESS_EVERY_S = 0.5
_USAGE_EVERY_S = 2.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What is new of one attempt; None where nothing is."""

    handle: Handle
    progress: Progress | None
    usage: Usage | None


@dataclass(slots=True)
class _Watched:
    reader: RunReader
    pid: Callable[[], int | None]
    usage: Usage | None = None
    max_rss_bytes: int = 0
    reading: threading.Lock = field(default_factory=threading.Lock)


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

    def add(self, handle: Handle, reader: RunReader, pid: Callable[[], int | None]) -> None:
        """Watch an attempt from now on; `pid` tells its top process once that is known."""
        with self._lock:
            self._watched[handle] = _Watched(reader, pid)
        self._some.set()

    def finish(self, handle: Handle) -> tuple[RunReader, int] | None:
        """Stop watching: the reader, now the caller's, and the largest memory seen; None if unknown."""
        with self._lock:
            watched = self._watched.pop(handle, None)
            if not self._watched:
                self._some.clear()
        if watched is None:
            return None
        with watched.reading:
            return watched.reader, watched.max_rss_bytes

    def _run(self) -> None:
        usage_due = time.monotonic() + _USAGE_EVERY_S
        while not self._stopping.is_set():
            self._some.wait()
            began = time.thread_time()
            now = time.monotonic()
            with self._lock:
                watched = dict(self._watched)
            trees = None
            try:
                if now >= usage_due and watched:
                    trees = _trees()
                samples = [s for handle, w in watched.items() if (s := self._look(handle, w, trees))]
                if samples:
                    self._report(samples)
            except Exception:  # noqa: BLE001 - a sample more or less, but the thread must live
                _log.exception("sampler.failed")
            cost_s = time.thread_time() - began
            if trees is not None:
                usage_due = time.monotonic() + max(_USAGE_EVERY_S, _IDLE_SHARE * cost_s)
            self._stopping.wait(max(_PROGRESS_EVERY_S, _IDLE_SHARE * cost_s if trees is None else 0.0))

    def _look(self, handle: Handle, watched: _Watched, trees: _Trees | None) -> Sample | None:
        progress = None
        with watched.reading:
            if handle in self._watched and watched.reader.advance():
                progress = watched.reader.state.progress
        usage = None
        pid = watched.pid()
        if trees is not None and pid is not None:
            usage = _usage_of(pid, trees, watched.max_rss_bytes)
        if usage is not None:
            watched.max_rss_bytes = usage.max_rss_bytes
            if watched.usage is not None and not _worth_telling(watched.usage, usage):
                usage = None
            else:
                watched.usage = usage
        return Sample(handle, progress, usage) if progress or usage else None


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
                    io = process.io_counters()
            except psutil.Error:
                continue
            cpu_s += times.user + times.system + times.children_user + times.children_system
            read += io.read_bytes
            written += io.write_bytes
            seen += 1
    if not seen:
        return None
    return Usage(round(cpu_s, 2), max(rss, peak_bytes), read, written)

"""Looks at running jobs from time to time: what their process trees use."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from runner.attempt_files import AttemptFiles
from runner.jobs import Usage
from runner.process_table import ProcessTable, started_after_boot_s
from runner.recurring_trouble import RecurringTrouble
from runner.samples import Sample
from runner.usage_samples import UsageSample, add_sample, read_samples

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from runner.ports import Handle
    from runner.process_table import TreeUse

_log = structlog.get_logger(__name__)

_IDLE_SHARE = 400  # rest 400 times as long as a look took: a quarter of a percent of a core
_USAGE_EVERY_S = 2.0
_EARLIEST_S = 0.5
"""Over less time the kernel's ticks count too much."""
_NOTHING = Usage(0.0, 0, 0, 0)


@dataclass(slots=True)
class _Watched:
    pid: Callable[[], int | None]
    usage: Usage | None = None  # as it was last told
    latest: Usage | None = None  # None before the first look
    # Since the last sample that was kept, and when the next one is wanted.
    rss_bytes: int = 0
    processes: int = 0
    due_s: float = 0.0
    started_s: float | None = None  # after the boot
    is_trouble_told: bool = False


class Sampler:
    """One thread for all jobs. It rests longer the longer a look takes, so its cost stays bounded.

    What it sees is told when it is news, and kept beside the attempt's log: runner/usage_samples.py.
    """

    def __init__(self, data_dir: str | os.PathLike[str], report: Callable[[Sequence[Sample]], None]) -> None:
        """`report` is called on the sampler's thread with what has changed."""
        self._data_dir = data_dir
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
        return watched.latest.max_rss_bytes if watched is not None and watched.latest is not None else 0

    def _run(self) -> None:
        failures = RecurringTrouble()
        rest_s = _USAGE_EVERY_S
        while not self._stopping.wait(rest_s):
            self._some.wait()
            began = time.thread_time()
            with self._lock:
                watched = dict(self._watched)
            try:
                if watched:
                    self._look(watched)
            except Exception as error:  # noqa: BLE001 - a sample more or less, but the thread must live
                if times := failures.came(repr(error)):
                    _log.exception("sampler.failed", times=times)
            rest_s = max(_USAGE_EVERY_S, _IDLE_SHARE * (time.thread_time() - began))

    def _look(self, watched: dict[Handle, _Watched]) -> None:
        table = ProcessTable.now()
        samples = []
        for handle, each in watched.items():
            try:
                sample = self._look_at(table, handle, each)
            except Exception as error:  # noqa: BLE001 - whatever one job has done, the others are looked at
                _tell_trouble(handle, each, repr(error))
                continue
            if sample is not None:
                samples.append(sample)
        if samples:
            self._report(samples)

    def _look_at(self, table: ProcessTable, handle: Handle, watched: _Watched) -> Sample | None:
        pid = watched.pid()
        found = None if pid is None else table.tree_below(pid)
        if pid is None or found is None:
            return None
        if watched.started_s is None:
            watched.started_s = started_after_boot_s(pid)
        files = AttemptFiles.of(self._data_dir, handle.job_id, handle.attempt)
        before = _seen_before(files) if watched.latest is None else watched.latest
        watched.latest = now = _sum_of(before, found)
        self._keep(handle, files, watched, found)
        if watched.usage is not None and not _worth_telling(watched.usage, now):
            return None
        watched.usage = now
        return Sample(handle, usage=now)

    def _keep(self, handle: Handle, files: AttemptFiles, watched: _Watched, found: TreeUse) -> None:
        watched.rss_bytes = max(watched.rss_bytes, found.rss_bytes)
        watched.processes = max(watched.processes, found.processes)
        now = watched.latest
        if now is None or watched.started_s is None:
            return
        age_s = max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - watched.started_s)
        if age_s < max(watched.due_s, _EARLIEST_S):
            return
        sample = UsageSample(
            age_s, now.cpu_s, watched.rss_bytes, watched.processes, now.read_bytes, now.written_bytes
        )
        try:
            step_s = add_sample(files, sample, started_at=time.time() - age_s)
        except OSError as error:
            _tell_trouble(handle, watched, error.strerror or str(error))
            return
        watched.rss_bytes = watched.processes = 0
        watched.due_s = age_s + step_s - _USAGE_EVERY_S / 2


def _tell_trouble(handle: Handle, watched: _Watched, error: str) -> None:
    if not watched.is_trouble_told:
        _log.warning("usage.not_kept", job_id=handle.job_id, attempt=handle.attempt, error=error)
    watched.is_trouble_told = True


def _seen_before(files: AttemptFiles) -> Usage:
    """What the service saw of the attempt before it was started again."""
    try:
        found = read_samples(files)
    except OSError:
        return _NOTHING
    if found is None or not found.samples:
        return _NOTHING
    last = found.samples[-1]
    peak_bytes = max(sample.rss_bytes for sample in found.samples)
    return Usage(last.cpu_s, peak_bytes, last.read_bytes, last.written_bytes)


def _sum_of(before: Usage, now: TreeUse) -> Usage:
    """Sums never go back, though a process that nobody waits for takes its account along."""
    return replace(
        before,
        cpu_s=max(before.cpu_s, round(now.cpu_s, 2)),
        max_rss_bytes=max(before.max_rss_bytes, now.rss_bytes),
        read_bytes=max(before.read_bytes, now.read_bytes),
        written_bytes=max(before.written_bytes, now.written_bytes),
    )


def _worth_telling(before: Usage, now: Usage) -> bool:
    """A job that sleeps causes no writes: half a second of CPU or a tenth more memory do."""
    return now.cpu_s >= before.cpu_s + 0.5 or now.max_rss_bytes > before.max_rss_bytes * 1.1

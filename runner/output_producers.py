"""Which task of a job has made which of its files."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from runner.tasks import TaskStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from runner.jobs import Job
    from runner.tasks import Task

    TasksOf = Callable[[Job, int], Iterable[Task]]
    """The tasks of an attempt."""

_MOST_KEPT: Final = 200_000  # files, of all jobs together; one with a long path counts as several
_PATH_BYTES: Final = 128  # that count as one file
_LONGEST_PATH: Final = 4095  # of any file there is
_ATTEMPTS: Final = 20  # the latest, that are asked
_REST: Final = 10.0  # times as long as it took to ask a running attempt


class Producer(NamedTuple):
    """The task of the latest attempt that has finished it."""

    number: int
    rule: str
    attempt: int


class Producers:
    """Of one job: the declared outputs of its finished tasks. What is in a declared folder is its task's."""

    def __init__(self, of_paths: Mapping[bytes, Producer]) -> None:
        self._of_paths = of_paths

    def of(self, path: bytes) -> Producer | None:
        """The task that has made the file at this path below the working directory."""
        while path:
            producer = self._of_paths.get(path)
            if producer is not None:
                return producer
            path = path[: max(path.rfind(b"/"), 0)]
        return None


@dataclass(frozen=True, slots=True)
class _Known:
    of_paths: dict[bytes, Producer]
    is_final: bool
    weight: int
    at: float = field(default_factory=time.monotonic)
    took_s: float = 0.0

    def is_good(self, *, has_ended: bool) -> bool:
        """Whether it need not be found out again for an attempt that has ended or runs."""
        return self.is_final or (not has_ended and time.monotonic() - self.at < _REST * self.took_s)


class OutputProducers:
    """Answers for any job. Thread-safe; remembers those asked for last.

    Of a running attempt the answer may be behind by ten times as long as it takes to find out: by tens of
    milliseconds where there are a hundred tasks.
    """

    def __init__(
        self, data_dir: str | os.PathLike[str], tasks_of: TasksOf, *, most: int = _MOST_KEPT
    ) -> None:
        self._jobs_dir = os.path.join(os.fsencode(data_dir), b"jobs")
        self._tasks_of = tasks_of
        self._most = most
        self._known: OrderedDict[tuple[str, int], _Known] = OrderedDict()
        self._kept = 0
        self._lock = threading.Lock()

    def of_job(self, job: Job) -> Producers:
        """Raises OSError when this process is short of something."""
        of_paths: dict[bytes, Producer] = {}
        for attempt in range(max(1, job.attempt - _ATTEMPTS + 1), job.attempt + 1):
            of_paths |= self._of_attempt(job, attempt).of_paths
        return Producers(of_paths)

    def _of_attempt(self, job: Job, attempt: int) -> _Known:
        key = job.id, attempt
        has_ended = attempt < job.attempt or job.status.is_terminal
        with self._lock:
            known = self._known.get(key)
            if known is not None and known.is_good(has_ended=has_ended):
                self._known.move_to_end(key)
                return known
        found = self._look(job, attempt, has_ended=has_ended)
        with self._lock:
            self._kept += found.weight - self._forget(key)
            self._known[key] = found
            while self._kept > self._most and len(self._known) > 1:
                self._kept -= self._forget(next(iter(self._known)))
        return found

    def _look(self, job: Job, attempt: int, *, has_ended: bool) -> _Known:
        begun = time.monotonic()
        work = os.path.join(self._jobs_dir, job.id.encode(), b"work", b"")
        found: dict[bytes, Producer] = {}
        weight = 0
        for task in self._tasks_of(job, attempt):
            if task.status is not TaskStatus.COMPLETED:
                continue
            producer = Producer(task.number, task.rule, attempt)
            for output in task.output:
                path = _below(work, output)
                if path and weight < self._most:
                    weight += _weight(path) if path not in found else 0
                    found[path] = producer
        return _Known(found, has_ended, weight, took_s=time.monotonic() - begun)

    def _forget(self, key: tuple[str, int]) -> int:
        """How much was known of it."""
        known = self._known.pop(key, None)
        return 0 if known is None else known.weight


def _weight(path: bytes) -> int:
    """The events say what it is, so it may be of any length."""
    return 1 + len(path) // _PATH_BYTES


def _below(work: bytes, output: str) -> bytes | None:
    """The path from the working directory down, as listings have it; None when it leads elsewhere."""
    try:
        path = os.fsencode(output).removeprefix(work)
    except UnicodeEncodeError:  # half of a surrogate pair, from events that nobody's Snakemake wrote
        return None
    if path.startswith(b"/") or len(path) > _LONGEST_PATH:
        return None
    names = [name for name in path.split(b"/") if name not in (b"", b".")]
    return None if b".." in names else b"/".join(names)

"""How much of the disk the files of all jobs take."""

from __future__ import annotations

import os
from array import array
from bisect import bisect_left
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from runner import job_tree
from runner.jobs import JobStatus
from runner.ports import JobQuery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from runner.ports import EndedJob, JobStore

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_PAGE: Final = 200
_UNFINISHED: Final = (JobStatus.PENDING, JobStatus.RUNNING)


class DiskUsage:
    """Counts in passes over all jobs. Belongs to one thread, but for `used_bytes`.

    An ended job is measured once, for its files do not change any more; one that has not ended in each
    pass. A pass is as exact as that: what changes behind its back is seen by the next one. 24 bytes
    of memory per ended job, twice that during a pass.
    """

    def __init__(self, data_dir: Path, store: JobStore) -> None:
        self._data_dir = data_dir
        self._store = store
        self._counted = _Sizes()  # by the last whole pass
        self._counting = _Sizes()  # by the pass that goes on
        self._unfinished_bytes = 0
        self._is_whole = False

    @property
    def used_bytes(self) -> int | None:
        """What the last pass found, less what was deleted since; None before the first has ended."""
        return self.known_bytes if self._is_whole else None

    @property
    def known_bytes(self) -> int:
        """As `used_bytes`; during the first pass what it has found so far, which is too little."""
        ended = self._counted if self._is_whole else self._counting
        return ended.total + self._unfinished_bytes

    def bytes_of(self, job: EndedJob) -> int | None:
        """The job's part in `known_bytes`; None when it was not counted yet."""
        return (self._counted if self._is_whole else self._counting).get(job)

    def forget(self, jobs: Sequence[EndedJob]) -> None:
        """These were deleted."""
        for job in jobs:
            self._counted.clear(job)
            self._counting.clear(job)

    def count(self, rest: Callable[[], None]) -> Iterator[None]:
        """One pass; it yields every few jobs. `rest` is called often, and may end the pass by raising.

        Raises StoreUnavailable, and OSError when `jobs` can't be opened or is a link.
        """
        self._counting = _Sizes()
        after: EndedJob | None = None
        while page := self._store.ended(after=after, limit=_PAGE):
            after = page[-1]
            with _JobsFolder(self._data_dir) as jobs_fd:
                for job in page:
                    known = self._counted.get(job)
                    size = job_tree.disk_bytes(jobs_fd, job.id, rest) if known is None else known
                    self._counting.append(job, size)
            rest()
            yield
        unfinished = 0
        after_seq: int | None = None
        while True:
            query = JobQuery(statuses=_UNFINISHED, order="asc", limit=_PAGE, after_seq=after_seq)
            jobs = self._store.list(query)
            with _JobsFolder(self._data_dir) as jobs_fd:
                unfinished += sum(job_tree.disk_bytes(jobs_fd, job.id, rest) for job in jobs.items)
            rest()
            yield
            if not jobs.has_more:
                break
            after_seq = jobs.items[-1].seq
        self._counted, self._counting = self._counting, _Sizes()
        self._unfinished_bytes = unfinished
        self._is_whole = True


class _Sizes:
    """The bytes of ended jobs, in the order of their ends; three numbers for each."""

    def __init__(self) -> None:
        self.total = 0
        self._ends = array("q")
        self._seqs = array("q")
        self._sizes = array("q")

    def append(self, job: EndedJob, size: int) -> None:
        """The job must have ended after all that are here."""
        self._ends.append(_micros(job))
        self._seqs.append(job.seq)
        self._sizes.append(size)
        self.total += size

    def get(self, job: EndedJob) -> int | None:
        place = self._place(job)
        return None if place is None else self._sizes[place]

    def clear(self, job: EndedJob) -> None:
        """It takes nothing any more."""
        place = self._place(job)
        if place is not None:
            self.total -= self._sizes[place]
            self._sizes[place] = 0

    def _place(self, job: EndedJob) -> int | None:
        # A job that was retried has ended another time: it is not found, and measured again.
        end = _micros(job)
        place = bisect_left(self._ends, end)
        while place < len(self._ends) and self._ends[place] == end:
            if self._seqs[place] == job.seq:
                return place
            place += 1
        return None


def _micros(job: EndedJob) -> int:
    return (job.completed_at - _EPOCH) // _MICROSECOND


class _JobsFolder:
    """`<data_dir>/jobs` itself, not what a link in its place leads to."""

    def __init__(self, data_dir: Path) -> None:
        data_fd = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._fd = job_tree.open_folder("jobs", data_fd)
        finally:
            os.close(data_fd)

    def __enter__(self) -> int:
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

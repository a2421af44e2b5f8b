"""How much of the disk jobs take, all and each tenant's: their files, and what is large in the store."""

from __future__ import annotations

import json
import os
from array import array
from bisect import bisect_left
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from runner import job_tree
from runner.errors import JobNotFound, StoreUnavailable
from runner.job_store import JobQuery
from runner.jobs import JobStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from runner.job_store import EndedJob, JobStore
    from runner.jobs import JobSpec

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_PAGE: Final = 200
_USUAL_SPEC_BYTES: Final = 4096
_UNFINISHED: Final = (JobStatus.PENDING, JobStatus.RUNNING)


class DiskUsage:
    """Counts in passes over all jobs. Belongs to one thread, but for what is said to be for any.

    An ended job is measured once, for its files do not change any more unless `grown` says so; one that has
    not ended in each pass. A pass is as exact as that: what changes behind its back is seen by the next one.
    24 bytes of memory per ended job, twice that during a pass.
    """

    def __init__(self, data_dir: Path, store: JobStore) -> None:
        self._data_dir = data_dir
        self._store = store
        self._counted = _Sizes()  # by the last whole pass
        self._counting = _Sizes()  # by the pass that goes on
        self._unfinished: Counter[str] = Counter()  # by tenant
        self._is_whole = False
        self._told: set[str] = set()  # ended jobs that have grown; filled by other threads
        self._grown: set[str] = set()  # those of them that this pass measures again

    @property
    def used_bytes(self) -> int | None:
        """What the last pass found, less what was deleted since; None before the first has ended.

        For any thread.
        """
        return self.known_bytes if self._is_whole else None

    @property
    def known_bytes(self) -> int:
        """As `used_bytes`; during the first pass what it has found so far, which is too little."""
        ended = self._counted if self._is_whole else self._counting
        return ended.total + self._unfinished.total()

    def bytes_of_tenant(self, tenant: str) -> int | None:
        """The tenant's part in `used_bytes`. For any thread."""
        return self._counted.of_tenant[tenant] + self._unfinished[tenant] if self._is_whole else None

    def bytes_of(self, job: EndedJob) -> int | None:
        """The job's part in `known_bytes`; None when it was not counted yet."""
        return (self._counted if self._is_whole else self._counting).get(job)

    def grown(self, job_id: str) -> None:
        """Something was added to an ended job's files: the next pass measures it again. For any thread."""
        self._told.add(job_id)

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
        while self._told:
            self._grown.add(self._told.pop())
        after: EndedJob | None = None
        while page := self._store.ended(after=after, limit=_PAGE):
            after = page[-1]
            with _JobsFolder(self._data_dir) as jobs_fd:
                for job in page:
                    known = self._counted.get(job)
                    if known is None or job.id in self._grown:
                        known = job_tree.disk_bytes(jobs_fd, job.id, rest) + self._stored_bytes(job.id)
                    self._counting.append(job, known)
            rest()
            yield
        unfinished: Counter[str] = Counter()
        after_seq: int | None = None
        while True:
            query = JobQuery(statuses=_UNFINISHED, order="asc", limit=_PAGE, after_seq=after_seq)
            jobs = self._store.list(query)
            with _JobsFolder(self._data_dir) as jobs_fd:
                for running in jobs.items:
                    size = job_tree.disk_bytes(jobs_fd, running.id, rest)
                    unfinished[running.tenant] += size + _stored_bytes(running.spec)
            rest()
            yield
            if not jobs.has_more:
                break
            after_seq = jobs.items[-1].seq
        self._counted, self._counting = self._counting, _Sizes()
        self._unfinished = unfinished
        self._is_whole = True
        self._grown.clear()

    def _stored_bytes(self, job_id: str) -> int:
        try:
            return _stored_bytes(self._store.get(job_id).spec)
        except (JobNotFound, StoreUnavailable):  # deleted meanwhile, or a damaged row: not a whole pass's end
            return 0


def _stored_bytes(spec: JobSpec) -> int:
    """What the job takes in the store beyond a usual one: up to a megabyte, if somebody wants that."""
    values = len(json.dumps([dict(spec.parameters), dict(spec.labels)]))
    return max(0, values + sum(map(len, spec.targets)) - _USUAL_SPEC_BYTES)


class _Sizes:
    """The bytes of ended jobs, in the order of their ends; three numbers for each."""

    def __init__(self) -> None:
        self.total = 0
        self.of_tenant: Counter[str] = Counter()
        self._ends = array("q")
        self._seqs = array("q")
        self._sizes = array("q")

    def append(self, job: EndedJob, size: int) -> None:
        """The job must have ended after all that are here."""
        self._ends.append(_micros(job))
        self._seqs.append(job.seq)
        self._sizes.append(size)
        self._add(job, size)

    def _add(self, job: EndedJob, size: int) -> None:
        self.total += size
        self.of_tenant[job.tenant] += size

    def get(self, job: EndedJob) -> int | None:
        place = self._place(job)
        return None if place is None else self._sizes[place]

    def clear(self, job: EndedJob) -> None:
        """It takes nothing any more."""
        place = self._place(job)
        if place is not None:
            self._add(job, -self._sizes[place])
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

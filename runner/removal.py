"""Deletes jobs, rows and files, such that being cut short anywhere loses nothing and leaves nothing for good.

1. The row is deleted, if it is still the one that was meant; the same commit notes the job among the
   store's leftovers. From here on the job is gone for everybody.
2. Its directory is renamed to `<data_dir>/trash/<id>`: at one stroke nothing is left of it below `jobs`.
3. That is removed.
4. When the directories are synced, the note is deleted.

`finish` takes up 2 to 4 where they were cut short. Nothing else decides what is removed: a directory
without a row is left alone unless the store says that its job was deleted, because the rows may be those
of an older backup.
"""

from __future__ import annotations

import errno
import os
import re
import threading
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Final, Self

import structlog

from runner import job_tree
from runner.ballast import Ballast
from runner.disk_trouble import IMMOVABLE
from runner.errors import JobNotFound, StorageFull, StoreUnavailable
from runner.held_jobs import HeldJobs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from runner.access import AuditRecord
    from runner.job_store import JobStore
    from runner.jobs import Job

    Audit = Callable[[Job], AuditRecord]

_log = structlog.get_logger(__name__)

_ONE_NAME: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]*")
_TAKEN: Final = frozenset({errno.ENOTEMPTY, errno.EEXIST, errno.EISDIR, errno.ENOTDIR})


class JobRemoval:
    """The one way by which jobs are deleted. Thread-safe."""

    def __init__(self, data_dir: Path, store: JobStore, held: HeldJobs | None = None) -> None:
        """Jobs that somebody else holds stay as they are."""
        self._data_dir = data_dir
        self._store = store
        self._held = held or HeldJobs()
        self._ballast = Ballast(data_dir)
        self._ballast.take()
        with suppress(StoreUnavailable), self._folders():
            pass  # `trash` is made now: a full disk may have no room for it later
        self._lock = threading.Lock()
        self._in_hand: Counter[str] = Counter()  # ids that another call is at work on

    def remove(self, job: Job, *, why: str, audit: Audit | None = None) -> bool:
        """Delete an ended job; False when it has changed meanwhile or is held: then nothing was done.

        What `audit` says of the job is stored with the deletion, and stays when the job is gone.

        Files that can't be removed are logged, and tried again by `finish`. Raises StoreUnavailable, also
        when the place of all files can't be reached, and StorageFull.
        """
        return bool(self.remove_all([job], why=why, rest=_on_and_on, audit=audit))

    def remove_all(
        self, jobs: Sequence[Job], *, why: str, rest: Callable[[], None], audit: Audit | None = None
    ) -> list[Job]:
        """As `remove` for all of these, their rows in one commit; those that were deleted.

        `rest` is called often; if it raises, what is then half done is left to `finish`.
        """
        gone: list[Job] = []
        with self._holding(jobs) as free, self._taking(free), self._folders() as folders:
            refused: list[Job] = []
            for job in self._delete_rows(free, refused, why, audit):
                gone.append(job)
                _remove_files(job.id, folders, rest)
            if refused:
                # One by one: the files of each make room for the rows of the next.
                with self._ballast.released():
                    for job in refused:
                        if self._store.delete(job, audit=audit(job) if audit else None).result():
                            _tell(job, why)
                            gone.append(job)
                            _remove_files(job.id, folders, rest)
        return gone

    def finish(self, rest: Callable[[], None]) -> None:
        """Complete the deletions that were cut short. Raises StoreUnavailable, StorageFull."""
        with self._folders() as folders:
            self._empty_trash(folders, rest)
            self._ballast.take()
            after = ""
            while page := self._store.leftovers(after=after):
                after = page[-1]
                done = [job_id for job_id in page if self._finish_one(job_id, folders, rest)]
                if done and folders.sync():
                    self._store.forget_leftovers(done).result()

    # ------------------------------------------------------------ rows

    def _delete_rows(
        self, jobs: Sequence[Job], refused: list[Job], why: str, audit: Audit | None
    ) -> list[Job]:
        """Those deleted; `refused` gets those that found no room on the disk."""
        asked = [(job, self._store.delete(job, audit=audit(job) if audit else None)) for job in jobs]
        gone: list[Job] = []
        trouble: Exception | None = None
        for job, future in asked:
            try:
                if future.result():
                    _tell(job, why)
                    gone.append(job)
            except StorageFull:
                refused.append(job)
            except Exception as error:  # noqa: BLE001 - the others' answers count first
                trouble = error
        if trouble is not None and not gone:
            raise trouble
        return gone

    def _finish_one(self, job_id: str, folders: _Folders, rest: Callable[[], None]) -> bool:
        """Whether nothing is left to be done for this leftover."""
        if self._is_in_hand(job_id):
            return False
        try:
            self._store.get(job_id)
        except JobNotFound:
            return _remove_files(job_id, folders, rest)
        _log.warning("job.kept", job_id=job_id, detail="It was noted as deleted and has a row: it stays.")
        return True

    def _empty_trash(self, folders: _Folders, rest: Callable[[], None]) -> None:
        for name in os.listdir(folders.trash_fd):
            if self._is_in_hand(name.partition(".")[0]):
                continue
            try:
                job_tree.remove(folders.trash_fd, name, rest)
            except OSError as error:
                _log.warning("trash.left_behind", name=name, file=error.filename, error=error.strerror)

    # ------------------------------------------------------------ who is at work on what

    @contextmanager
    def _folders(self) -> Iterator[_Folders]:
        with _Folders.open(self._data_dir) as folders:
            yield folders

    @contextmanager
    def _holding(self, jobs: Sequence[Job]) -> Iterator[list[Job]]:
        """Those that nobody else holds."""
        held = [job for job in jobs if self._held.hold(job.id)]
        try:
            yield held
        finally:
            for job in held:
                self._held.release(job.id)

    @contextmanager
    def _taking(self, jobs: Sequence[Job]) -> Iterator[None]:
        job_ids = [job.id for job in jobs]
        with self._lock:
            self._in_hand.update(job_ids)
        try:
            yield
        finally:
            with self._lock:
                self._in_hand.subtract(job_ids)
                self._in_hand += Counter()  # without the zeros

    def _is_in_hand(self, job_id: str) -> bool:
        with self._lock:
            return self._in_hand[job_id] > 0


@dataclass(frozen=True, slots=True)
class _Folders:
    """The two directories that files are removed from; a link in place of one is not followed."""

    jobs_fd: int
    trash_fd: int

    @classmethod
    @contextmanager
    def open(cls, data_dir: Path) -> Iterator[Self]:
        """Raises StoreUnavailable."""
        with ExitStack() as stack:
            try:
                data_fd = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                stack.callback(os.close, data_fd)
                with suppress(FileExistsError):
                    os.mkdir("trash", 0o700, dir_fd=data_fd)
                fds = []
                for name in ("jobs", "trash"):
                    fds.append(job_tree.open_folder(name, data_fd))
                    stack.callback(os.close, fds[-1])
            except OSError as error:
                text = (
                    f"The files of jobs in {data_dir} cannot be reached ({error.filename}: {error.strerror})."
                )
                raise StoreUnavailable(text) from error
            yield cls(*fds)

    def sync(self) -> bool:
        """Make renames and removals durable, so that no power cut brings back what nobody notes any more."""
        try:
            os.fsync(self.jobs_fd)
            os.fsync(self.trash_fd)
        except OSError as error:
            _log.warning("trash.not_synced", error=error.strerror)
            return False
        return True


def _remove_files(job_id: str, folders: _Folders, rest: Callable[[], None]) -> bool:
    """Whether nothing is left; trouble is logged."""
    if not _ONE_NAME.fullmatch(job_id):
        _log.error("job.files_not_removed", job_id=job_id, detail="The id is no name of a directory.")
        return True
    try:
        for parent_fd, name in _moved(job_id, folders):
            job_tree.remove(parent_fd, name, rest)
    except OSError as error:
        _log.warning("job.files_left_behind", job_id=job_id, file=error.filename, error=error.strerror)
        return False
    return True


def _moved(job_id: str, folders: _Folders) -> Iterator[tuple[int, str]]:
    """Move the job's directory to the trash; then what is to be removed, and below which directory.

    Where it can't be moved, for want of room or because `trash` is on another file system, it is
    removed where it is. Raises OSError.
    """
    for number in count():
        name = f"{job_id}.{number}" if number else job_id
        try:
            os.rename(job_id, name, src_dir_fd=folders.jobs_fd, dst_dir_fd=folders.trash_fd)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno in _TAKEN:  # by an earlier one of the same id: both go
                yield folders.trash_fd, name
                continue
            if error.errno not in IMMOVABLE:
                raise
            yield folders.jobs_fd, job_id
            return
        yield folders.trash_fd, name
        return


def _tell(job: Job, why: str) -> None:
    ended = job.completed_at.isoformat() if job.completed_at else None
    _log.info("job.deleted", job_id=job.id, status=job.status.value, ended_at=ended, why=why)


def _on_and_on() -> None:
    pass

"""What is wrong with the files of jobs, and what can be done about it without losing any of them."""

from __future__ import annotations

import json
import os
import stat
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from runner.attempt_files import ExitRecord, InvalidRecord, ShimSpec, lock_holder
from runner.job_tree import disk_bytes, open_folder
from runner.jobs import JobStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from collections.abc import Set as AbstractSet
    from typing import Protocol

    class Row(Protocol):
        """What the store knows of a job."""

        @property
        def status(self) -> JobStatus: ...
        @property
        def attempt(self) -> int: ...
        @property
        def has_started(self) -> bool: ...


ORPHANS: Final = "orphans"
_RECORD_BYTES: Final = 65536  # as much as the service itself would read
_SPEC_BYTES: Final = 16 * 2**20
_EVENTS_BYTES: Final = 2**20
_UNFINISHED_RECORD: Final = "exit.json.tmp"
_LEFTOVERS: Final = (_UNFINISHED_RECORD, "spec.json.new", "config.json.new")


@dataclass(slots=True)
class Finding:
    """One thing that is not as it should be.

    `path` is relative to the data directory, or absolute for the store. `remedy` says what would be done
    about it; without one and without a `failure` nothing has to be. `failure` is why it can't be done.
    """

    kind: str
    path: str
    detail: str
    remedy: str | None = None
    size_bytes: int | None = None
    apply: Callable[[], None] | None = None
    failure: str | None = None
    is_done: bool = False


class JobDamage:
    """Looks through `<data_dir>/jobs`, for the holder of the data directory.

    Everything goes by descriptors of folders, and no link is followed: jobs may have left any. An attempt
    whose lock is held runs, and is left alone.
    """

    def __init__(self, data_dir_fd: int) -> None:
        self._data_dir_fd = data_dir_fd

    def find(self, rows: Mapping[str, Row] | None, leftovers: AbstractSet[str]) -> Iterator[Finding]:
        """What is wrong, in no order; a finding's `apply` is good until the next one is asked for.

        `rows` are the store's jobs, None where they are not known: then no folder is called an orphan.
        `leftovers` are deleted jobs, whose files the service itself removes.
        """
        try:
            jobs_fd = open_folder("jobs", self._data_dir_fd)
        except FileNotFoundError:
            yield from self._missing(rows, frozenset())
            return
        except OSError:
            yield Finding("unreadable", "jobs", "it is a link or no folder: nothing below it was looked at")
            return
        try:
            names = frozenset(os.listdir(jobs_fd))
            for name in sorted(names):
                if rows is not None and name not in rows:
                    if name not in leftovers:
                        yield self._orphan(jobs_fd, name)
                    continue
                yield from self._job(jobs_fd, name, None if rows is None else rows[name])
            yield from self._missing(rows, names)
        finally:
            os.close(jobs_fd)

    # ------------------------------------------------------------ folders without rows, rows without folders

    def _orphan(self, jobs_fd: int, name: str) -> Finding:
        found = Finding(
            "orphan",
            f"jobs/{name}",
            "the store has no such job",
            f"moved to {ORPHANS}/",
            disk_bytes(jobs_fd, name, _go_on),
        )
        if _runs(jobs_fd, name):
            found.detail = "the store has no such job, but it runs: left alone until it has ended"
            found.failure = "it runs"
        else:
            found.apply = lambda: self._move_to_orphans(jobs_fd, name)
        return found

    def _move_to_orphans(self, jobs_fd: int, name: str) -> None:
        with suppress(FileExistsError):
            os.mkdir(ORPHANS, 0o700, dir_fd=self._data_dir_fd)
        orphans_fd = open_folder(ORPHANS, self._data_dir_fd)
        try:
            target = name
            if target in os.listdir(orphans_fd):
                target = f"{name}-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
            os.rename(name, target, src_dir_fd=jobs_fd, dst_dir_fd=orphans_fd)
            os.fsync(orphans_fd)
            os.fsync(jobs_fd)
        finally:
            os.close(orphans_fd)

    def _missing(self, rows: Mapping[str, Row] | None, names: AbstractSet[str]) -> Iterator[Finding]:
        for job_id, row in (rows or {}).items():
            if job_id in names:
                continue
            if row.status is JobStatus.RUNNING:
                detail = "its job is called running and has no files: the next start launches it"
            elif row.status.is_terminal and row.has_started:
                detail = "its job has ended; log and outputs are gone"
            else:
                continue
            yield Finding("files_missing", f"jobs/{job_id}", detail)

    # ------------------------------------------------------------ the files of one job

    def _job(self, jobs_fd: int, name: str, row: Row | None) -> Iterator[Finding]:
        with _folder(jobs_fd, name) as job_fd:
            if job_fd is None:
                yield Finding("unreadable", f"jobs/{name}", "it is a link or no folder: left as it is")
                return
            with _folder(job_fd, "attempts") as attempts_fd:
                for number in sorted(os.listdir(attempts_fd)) if attempts_fd is not None else ():
                    with _folder(attempts_fd or 0, number) as attempt_fd:
                        if attempt_fd is None or _is_locked(attempt_fd):
                            continue
                        is_current = row is not None and (str(row.attempt), JobStatus.RUNNING) == (
                            number,
                            row.status,
                        )
                        yield from _attempt(
                            attempt_fd, f"jobs/{name}/attempts/{number}", is_current=is_current
                        )


def _attempt(fd: int, path: str, *, is_current: bool) -> Iterator[Finding]:
    names = frozenset(os.listdir(fd))
    for name, kind, trouble_in in (
        ("exit.json", "exit_record_damaged", _trouble_in_record),
        ("spec.json", "spec_damaged", _trouble_in_spec),
        ("events.jsonl", "events_damaged", _trouble_in_events),
    ):
        if name in names and (trouble := trouble_in(fd, name)) is not None:
            lost = "; the next start calls its job lost" if is_current and name == "exit.json" else ""
            yield Finding(
                kind,
                f"{path}/{name}",
                f"{trouble}{lost}",
                f"renamed to {name}.damaged",
                apply=_renaming(fd, name, f"{name}.damaged"),
            )
    for name in _LEFTOVERS:
        if name in names and _is_file(fd, name):
            yield _leftover(fd, path, name)


def _leftover(fd: int, path: str, name: str) -> Finding:
    found = Finding("leftover", f"{path}/{name}", "whoever wrote it was cut short")
    if name == _UNFINISHED_RECORD and _trouble_in_record(fd, name) is None:
        found.detail = "a whole exit record that was never made valid: it is kept, and its job is called lost"
        return found
    found.remedy = "removed"
    found.size_bytes = disk_bytes(fd, name, _go_on)
    found.apply = lambda: os.unlink(name, dir_fd=fd)
    return found


def _is_file(fd: int, name: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)
    except OSError:
        return False


def _renaming(fd: int, name: str, target: str) -> Callable[[], None]:
    def rename() -> None:
        to = target
        if to in os.listdir(fd):
            to = f"{target}-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
        os.rename(name, to, src_dir_fd=fd, dst_dir_fd=fd)
        os.fsync(fd)

    return rename


# ---------------------------------------------------------------- reading


def _trouble_in_record(fd: int, name: str) -> str | None:
    try:
        ExitRecord.load(_read(fd, name, _RECORD_BYTES))
    except (InvalidRecord, OSError) as error:
        return _said(error)
    return None


def _trouble_in_spec(fd: int, name: str) -> str | None:
    try:
        ShimSpec.load(_read(fd, name, _SPEC_BYTES))
    except (InvalidRecord, OSError) as error:
        return _said(error)
    return None


def _trouble_in_events(fd: int, name: str) -> str | None:
    """Readers pass over broken lines, so one of a million is no trouble; none that is whole is."""
    try:
        *lines, rest = _read(fd, name, _EVENTS_BYTES).split(b"\n")
    except OSError as error:
        return _said(error)
    if not lines and len(rest) < _EVENTS_BYTES:
        return None  # nothing yet, or a first line that was cut short
    return None if any(_is_event(line) for line in lines) else "none of its lines can be read"


def _is_event(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _read(fd: int, name: str, limit_bytes: int) -> bytes:
    """The beginning of a regular file. Raises OSError for anything else, and never waits."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open(os.open(name, flags, dir_fd=fd), "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(0, "it is no regular file")
        content = b""
        while len(content) < limit_bytes and (part := file.read(limit_bytes - len(content))):
            content += part
        return content


def _said(error: Exception) -> str:
    text = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
    return " ".join(text.split())[:300]


def _runs(jobs_fd: int, name: str) -> bool:
    with _folder(jobs_fd, name) as job_fd, _folder(job_fd, "attempts") as attempts_fd:
        for number in os.listdir(attempts_fd) if attempts_fd is not None else ():
            with _folder(attempts_fd, number) as attempt_fd:
                if attempt_fd is not None and _is_locked(attempt_fd):
                    return True
    return False


def _is_locked(attempt_fd: int) -> bool:
    """Whether the attempt runs; one that cannot be looked at is taken to."""
    try:
        return lock_holder(f"/proc/self/fd/{attempt_fd}/lock") is not None
    except OSError:
        return True


@contextmanager
def _folder(parent_fd: int | None, name: str) -> Iterator[int | None]:
    """A descriptor of the folder itself; None for a link, a file, or nothing at all."""
    try:
        fd = open_folder(name, parent_fd) if parent_fd is not None else None
    except OSError:
        fd = None
    try:
        yield fd
    finally:
        if fd is not None:
            os.close(fd)


def _go_on() -> None:
    """Nobody waits for this walk."""

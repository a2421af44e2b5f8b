"""The files in jobs' working directories, for people to fetch: nothing else, whatever a job puts there."""

from __future__ import annotations

import errno
import os
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, Self

from runner.beneath import open_file, open_folder
from runner.errors import OutputNotFound
from runner.file_listing import FilePage, entries_of, every_file, list_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from runner.attempt_files import AttemptFiles
    from runner.file_listing import FileQuery, FolderEntry, ListedFile


_SETTLED_S: Final = 1.0


class JobFolders(Protocol):
    """Opens what is in a job's working directory; `path` leads down from there, b"" is the directory itself.

    Both raise FileNotFoundError when nothing or anything else is there, PermissionError for what may not be
    read, and other OSErrors as they come.
    """

    def open_file(self, job_id: str, path: bytes) -> int:
        """A descriptor to read a regular file that has no second name."""

    def list_folder(self, job_id: str, path: bytes) -> Iterator[FolderEntry]: ...


class LocalJobFolders:
    """Opens with this process's own rights."""

    def __init__(self, data_dir: str | os.PathLike[str]) -> None:
        self._data_dir = os.fspath(data_dir)

    def open_file(self, job_id: str, path: bytes) -> int:
        work_fd = self._open_work(job_id)
        try:
            return open_file(work_fd, path)
        finally:
            os.close(work_fd)

    def list_folder(self, job_id: str, path: bytes) -> Iterator[FolderEntry]:
        folder_fd = work_fd = self._open_work(job_id)
        try:
            if path:
                folder_fd = open_folder(work_fd, path)
            yield from entries_of(folder_fd)
        finally:
            if folder_fd != work_fd:
                os.close(folder_fd)
            os.close(work_fd)

    def _open_work(self, job_id: str) -> int:
        return open_job_folder(f"{self._data_dir}/jobs", f"{job_id}/work")


def open_job_folder(jobs_dir: str, path: str) -> int:
    """A descriptor of a folder that the service has made for a job, reached through no link.

    The folder of all jobs is the service's own: no job can have put it there. Any of them may be a mount.
    Raises FileNotFoundError when it is not there or something else, and OSError.
    """
    jobs_fd = os.open(jobs_dir, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return open_folder(jobs_fd, os.fsencode(path), across=True)
    finally:
        os.close(jobs_fd)


def open_in_job(files: AttemptFiles, path: str) -> int:
    """A descriptor to read a file of the attempt, or of its working directory, by its full path.

    It is reached through no link. Raises FileNotFoundError for whatever is no plain file there, and OSError.
    """
    jobs_dir = os.path.dirname(files.job_dir)
    folder = next((each for each in (files.work, files.directory) if path.startswith(each + "/")), None)
    if folder is None:
        raise FileNotFoundError(errno.ENOENT, "not a file of the attempt", path)
    folder_fd = open_job_folder(jobs_dir, folder[len(jobs_dir) + 1 :])
    try:
        return open_file(folder_fd, os.fsencode(path[len(folder) + 1 :]))
    finally:
        os.close(folder_fd)


class JobFiles:
    """Lists and opens files of jobs: whether a job exists, and whose it is, is for others to say."""

    def __init__(self, folders: JobFolders) -> None:
        self._folders = folders

    def list(self, job_id: str, query: FileQuery) -> FilePage:
        """A page of the files below the working directory; empty when there is none yet, or no more.

        Raises OSError when this process is short of something.
        """
        return list_files(partial(self._folders.list_folder, job_id), query)

    def every(self, job_id: str, query: FileQuery) -> Iterator[tuple[ListedFile, Callable[[], OpenedFile]]]:
        """All files of the query, in no order, each with what opens it as `open` does.

        Raises TooManyFiles behind the last one, OSError as `list` does.
        """
        for file in every_file(partial(self._folders.list_folder, job_id), query):
            yield file, partial(self.open, job_id, file.path)

    def open(self, job_id: str, path: bytes) -> OpenedFile:
        """Raises OutputNotFound for whatever is no plain file there, or may not be read."""
        try:
            return OpenedFile.of(self._folders.open_file(job_id, path))
        except (FileNotFoundError, PermissionError):
            raise OutputNotFound(job_id) from None


@dataclass(frozen=True, slots=True)
class OpenedFile:
    """An open file as it was when it was opened. Close it, or use it as a context."""

    fd: int
    size_bytes: int
    modified_ns: int  # since the epoch
    changed_ns: int
    identity: tuple[int, int]  # device and inode

    @classmethod
    def of(cls, fd: int) -> Self:
        about = os.fstat(fd)
        return cls(fd, about.st_size, about.st_mtime_ns, about.st_ctime_ns, (about.st_dev, about.st_ino))

    @property
    def facts(self) -> tuple[int, ...]:
        """Changes with the file, once it `is_settled`."""
        return *self.identity, self.size_bytes, self.modified_ns, self.changed_ns

    @property
    def is_settled(self) -> bool:
        """Whether another change from now on leaves other times: the clock of files is a coarse one."""
        return time.time() - max(self.modified_ns, self.changed_ns) / 1e9 > _SETTLED_S

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read(self, offset: int, limit: int) -> bytes:
        """At most `limit` bytes from `offset` on; fewer where the file has become shorter. Raises OSError."""
        return os.pread(self.fd, limit, offset)

    def pieces(self, most_bytes: int) -> Iterator[bytes]:
        """What was in it when it was opened, in pieces; less where it has become shorter. Raises OSError."""
        offset = 0
        while piece := self.read(offset, min(most_bytes, self.size_bytes - offset)):
            yield piece
            offset += len(piece)

    def close(self) -> None:
        os.close(self.fd)

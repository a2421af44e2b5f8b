"""The files of side runs: noted before they are made, and removed after, also when the service dies.

A note `<data_dir>/side/<job>.<attempt>` is there for as long as anything of the run may be. What it stands
for is moved to `trash`, which is emptied at every start: the whole folder of a run that has a job's folder
to itself, or the attempt's alone where it ran in the folder of a real job.
"""

from __future__ import annotations

import os
import re
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import structlog

from runner import job_tree
from runner.disk_trouble import IMMOVABLE
from runner.ports import Handle

if TYPE_CHECKING:
    from collections.abc import Iterator

_log = structlog.get_logger(__name__)

IN_A_JOB: Final = 999_999_999
"""The attempt's number of a run in a real job's folder; no job is tried that often."""
_FOLDER: Final = "side"
_NOTE: Final = re.compile(r"([0-9a-f-]{36})\.([1-9][0-9]{0,8})")
_OWN_ID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")


def new_id() -> str:
    """For a run with a folder to itself: of another kind than jobs' ids, so that no job's can be meant."""
    return str(uuid4())


class SideFiles:
    """Thread-safe: a run's files are touched by one caller at a time."""

    def __init__(self, data_dir: str | os.PathLike[str]) -> None:
        self._data_dir = os.fspath(data_dir)

    def noted(self) -> list[Handle]:
        """The runs that may have files. Raises OSError."""
        return noted(self._data_dir)

    def note(self, handle: Handle) -> None:
        """Say that files of this run are about to be made. Raises OSError."""
        folder = f"{self._data_dir}/{_FOLDER}"
        with suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        os.close(os.open(f"{folder}/{_name(handle)}", flags, 0o600))

    def discard(self, handle: Handle, *, remove: bool = True) -> None:
        """Take the run's files away, and its note once they are. Trouble is logged: the next start goes on.

        Without `remove` they are left in `trash`, for a caller who has no time for a large tree.
        """
        assert _is_ours(handle), handle
        try:
            with self._folders(handle) as (parent_fd, name, trash_fd):
                moved = _name(handle)
                job_tree.remove(trash_fd, moved, _on_and_on)  # of an earlier run in the same job
                if parent_fd is not None:
                    _move(name, moved, parent_fd, trash_fd)
                if remove:
                    job_tree.remove(trash_fd, moved, _on_and_on)
            with suppress(FileNotFoundError):
                os.unlink(f"{self._data_dir}/{_FOLDER}/{_name(handle)}")
        except OSError as error:
            _log.warning(
                "side_run.left_behind",
                job_id=handle.job_id,
                attempt=handle.attempt,
                file=error.filename,
                error=error.strerror,
            )

    @contextmanager
    def _folders(self, handle: Handle) -> Iterator[tuple[int | None, str, int]]:
        """Where the run's folder is, by its parent and its name, and the trash. Raises OSError."""
        with ExitStack() as stack:

            def opened(name: str, parent_fd: int) -> int:
                fd = job_tree.open_folder(name, parent_fd)
                stack.callback(os.close, fd)
                return fd

            data_fd = os.open(self._data_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, data_fd)
            with suppress(FileExistsError):
                os.mkdir("trash", 0o700, dir_fd=data_fd)
            trash_fd = opened("trash", data_fd)
            name, parent_fd = handle.job_id, opened("jobs", data_fd)
            if handle.attempt == IN_A_JOB:
                name = str(handle.attempt)
                try:
                    parent_fd = opened("attempts", opened(handle.job_id, parent_fd))
                except FileNotFoundError:  # the job was deleted
                    yield None, name, trash_fd
                    return
            yield parent_fd, name, trash_fd


def _move(name: str, moved: str, parent_fd: int, trash_fd: int) -> None:
    try:
        os.rename(name, moved, src_dir_fd=parent_fd, dst_dir_fd=trash_fd)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno not in IMMOVABLE:
            raise
        job_tree.remove(parent_fd, name, _on_and_on)


def noted(data_dir: str | os.PathLike[str]) -> list[Handle]:
    """The runs that may have files. Raises OSError."""
    try:
        names = os.listdir(f"{os.fspath(data_dir)}/{_FOLDER}")
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = [Handle(note[1], int(note[2])) for note in map(_NOTE.fullmatch, sorted(names)) if note]
    return list(filter(_is_ours, found))


def own_folders(data_dir: str | os.PathLike[str]) -> frozenset[str]:
    """The names below `jobs` that are a side run's own and no job's. Raises OSError."""
    return frozenset(handle.job_id for handle in noted(data_dir) if handle.attempt != IN_A_JOB)


def _is_ours(handle: Handle) -> bool:
    """Whether what is removed with it is no job's."""
    return handle.attempt == IN_A_JOB or _OWN_ID.fullmatch(handle.job_id) is not None


def _name(handle: Handle) -> str:
    return f"{handle.job_id}.{handle.attempt}"


def _on_and_on() -> None:
    pass

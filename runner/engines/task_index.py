"""The table of a run's tasks in a file beside its events, so that a long run need not be read again.

It lies in the attempt's folder, where a job may be able to write, so it is trusted no more than the events:
one that does not fit is passed over.
"""

from __future__ import annotations

import json
import os
import sys
import zlib
from array import array
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from runner.beneath import open_file, read_file
from runner.engines.rule_graph import ToldGraph
from runner.engines.task_table import COLUMNS, MAX_TASKS, TaskTable
from runner.job_files import open_job_folder

if TYPE_CHECKING:
    from runner.attempt_files import AttemptFiles

_NAME: Final = b"tasks.index"
_MAGIC: Final = b"tasks 1 " + sys.byteorder.encode() + b"\n"
_LIMIT_BYTES: Final = MAX_TASKS * 64 + 2**24
_EVENTS: Final = b"events.jsonl"
_UNREADABLE: Final = (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError)


@dataclass(frozen=True, slots=True)
class Kept:
    table: TaskTable
    graph: ToldGraph
    events_bytes: int  # how much of the events file it is made of: all


def save(files: AttemptFiles, table: TaskTable, graph: ToldGraph, events_bytes: int) -> None:
    """Write it, if so many bytes are all of the events file. A full disk costs the index, nothing else."""
    with suppress(OSError):
        folder_fd = _folder(files)
        try:
            stamp = _stamp(folder_fd)
            if stamp[0] == events_bytes:
                _write(folder_fd, _packed(stamp, table, graph))
        finally:
            os.close(folder_fd)


def load(files: AttemptFiles) -> Kept | None:
    """What was saved for this events file as it is now; None without it."""
    try:
        folder_fd = _folder(files)
        try:
            data = read_file(folder_fd, _NAME, _LIMIT_BYTES)
            return _unpacked(data, _stamp(folder_fd))
        finally:
            os.close(folder_fd)
    except (OSError, *_UNREADABLE):
        return None


def _folder(files: AttemptFiles) -> int:
    jobs_dir = os.path.dirname(files.job_dir)
    return open_job_folder(jobs_dir, os.path.relpath(files.directory, jobs_dir))


def _stamp(folder_fd: int) -> tuple[int, int]:
    """The size of the events file and its time of change, in nanoseconds. Raises OSError."""
    fd = open_file(folder_fd, _EVENTS)
    try:
        about = os.fstat(fd)
        return about.st_size, about.st_mtime_ns
    finally:
        os.close(fd)


def _packed(stamp: tuple[int, int], table: TaskTable, graph: ToldGraph) -> bytes:
    head = {"events": stamp, "tasks": len(table), "extras": table.extras(), "graph": graph.as_json()}
    body = json.dumps(head, separators=(",", ":")).encode() + b"\n"
    body += b"".join(column.tobytes() for column in table.columns.values())
    return _MAGIC + b"%08x\n" % zlib.crc32(body) + body


def _unpacked(data: bytes, stamp: tuple[int, int]) -> Kept | None:
    """Raises one of _UNREADABLE when it is none."""
    checksum, _, body = data.removeprefix(_MAGIC).partition(b"\n")
    if not data.startswith(_MAGIC) or int(checksum, 16) != zlib.crc32(body):
        return None
    line, _, rest = body.partition(b"\n")
    head = json.loads(line)
    size = int(head["tasks"])
    if head["events"] != list(stamp) or not 0 <= size <= MAX_TASKS:
        return None
    columns: dict[str, array[Any]] = {}
    view = memoryview(rest)
    for name, code in COLUMNS.items():
        columns[name] = array(code)
        taken = size * columns[name].itemsize
        columns[name].frombytes(view[:taken])
        view = view[taken:]
    if view:
        return None
    return Kept(TaskTable.restored(columns, head["extras"]), ToldGraph.restored(head["graph"]), stamp[0])


def _write(folder_fd: int, data: bytes) -> None:
    temporary = _NAME + b".new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=folder_fd)
    fd = os.open(temporary, flags, 0o600, dir_fd=folder_fd)
    try:
        with open(fd, "wb") as file:
            file.write(data)
        os.rename(temporary, _NAME, src_dir_fd=folder_fd, dst_dir_fd=folder_fd)
    except OSError:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=folder_fd)
        raise

"""What is told when files cannot be written, and that none is left half written for whole."""

from __future__ import annotations

import errno
import io
import os
import resource
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from runner.disk_trouble import telling_trouble
from runner.errors import BackendUnavailable, RunnerError, StorageFull, StoreUnavailable
from runner.git_checkouts import _write
from runner.new_files import new_file, write_all

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MOST_BYTES = 4096


@contextmanager
def no_larger_files() -> Iterator[None]:
    """The kernel takes the first 4 KiB of a write, and refuses the next: as a disk does that fills up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (_MOST_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_that_is_taken_in_part_is_not_taken_for_whole(tmp_path: Path) -> None:
    data = b"x" * (_MOST_BYTES + 1)
    committed = io.BytesIO(b"1234 blob %d\n%s\n" % (len(data), data))
    with no_larger_files():
        with new_file(str(tmp_path / "a")) as file, pytest.raises(OSError, match="too large"):
            write_all(file, data)
        with pytest.raises(OSError, match="too large"):
            _write(committed, "100644", "Snakefile", tmp_path)


@pytest.mark.parametrize(
    ("number", "otherwise", "kind", "text"),
    [
        (errno.ENOSPC, StoreUnavailable, StorageFull, "There is no room for the job's files: make room"),
        (errno.EDQUOT, BackendUnavailable, StorageFull, "There is no room for the job's files: make room"),
        (errno.EROFS, StoreUnavailable, StoreUnavailable, "The job's files cannot be written now: Read-only"),
        (errno.EIO, BackendUnavailable, BackendUnavailable, "The job's files cannot be written now: Input"),
    ],
)
def test_a_full_disk_is_told_apart_from_a_broken_one(
    number: int,
    otherwise: type[StoreUnavailable | BackendUnavailable],
    kind: type[RunnerError],
    text: str,
) -> None:
    with pytest.raises(kind, match=text), telling_trouble("the job's files", otherwise):
        raise OSError(number, os.strerror(number))

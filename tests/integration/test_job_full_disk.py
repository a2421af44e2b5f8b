"""Jobs on a disk that is full: what it costs them, and what it never does."""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from runner.jobs import JobStatus
from runner.ports import Ended, NotStarted
from tests.support.attempts import Attempts
from tests.support.runners import Hold, RunningRunner, settings_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts a small file system")
    disk = tmp_path / "small"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path, *, leave_pages: int = 0) -> Path:
    filler = disk / "filler"
    with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while os.statvfs(disk).f_bavail > leave_pages:
            file.write(bytes(4096))
    return filler


@pytest.mark.root
def test_a_full_disk_costs_log_and_files_but_not_the_result(small_disk: Path) -> None:
    with contextlib.closing(Attempts(small_disk, warm=True, log_limit_bytes=2**26)) as attempts:
        flood = attempts.launch("bytes=8000000", "exit=42")
        ended = attempts.end(flood)
        assert isinstance(ended, Ended)
        assert ended.record.exit_code == 42
        assert ended.record.log_bytes < 4 * 2**20


@pytest.mark.root
@pytest.mark.parametrize("pages", [1, 2, 3])
def test_an_attempt_without_room_for_its_result_is_not_started(small_disk: Path, pages: int) -> None:
    with contextlib.closing(Attempts(small_disk, warm=True)) as attempts:
        filler = fill(small_disk, leave_pages=pages)
        handle = attempts.launch("out=hello", "exit=5")
        ended = attempts.end(handle)
        if isinstance(ended, NotStarted):
            filler.unlink()
            ended = attempts.end(attempts.launch("out=hello", "exit=5"))
        assert isinstance(ended, Ended)
        assert ended.record.exit_code == 5


@pytest.mark.root
def test_jobs_wait_while_the_disk_is_full_and_run_when_it_is_not(small_disk: Path, tmp_path: Path) -> None:
    settings = settings_for(
        small_disk / "data", max_cores=1, min_free_bytes=0, database_url=f"sqlite:///{tmp_path}/rows.db"
    )
    with contextlib.closing(RunningRunner(settings)) as runner:
        hold = Hold(tmp_path)
        first = runner.submit(hold=hold.path)
        runner.wait_for(first, lambda j: j.progress is not None)
        waiting = [runner.submit() for _ in range(3)]
        filler = fill(small_disk)
        hold.release()
        assert runner.ended(first).exit_code is not None
        runner.wait_for(waiting[0], JobStatus.RUNNING)  # claimed, and not to be written
        filler.unlink()
        assert {runner.ended(job).status for job in waiting} == {JobStatus.COMPLETED}

"""Deleting jobs where the disk is full, or is several."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from runner.bootstrap import build_runner
from runner.errors import StorageFull, StoreUnavailable
from runner.removal import JobRemoval
from runner.stores.memory import MemoryStore
from tests.support.removable_jobs import an_ended_job, is_gone, on_and_on
from tests.support.runners import settings_for
from tests.support.stores import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.job_store import JobStore


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    directory = tmp_path / "data"
    (directory / "jobs").mkdir(parents=True)
    return directory


@contextmanager
def mounted(mount: Path, size: str, *, then_at: Path | None = None) -> Iterator[None]:
    """A file system of its own, which may be moved while it is there."""
    mount.mkdir(exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", mount], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", then_at or mount], check=True)


def fill_up(path: Path) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        while True:
            os.write(fd, b"x" * 4096)
    except OSError:
        os.close(fd)


def test_jobs_can_be_deleted_on_a_full_disk(tmp_path: Path) -> None:
    data_dir = tmp_path / "small"
    with mounted(data_dir, "8m"):
        (data_dir / "jobs").mkdir()
        store = open_store("sqlite", data_dir)
        jobs = [an_ended_job(store, data_dir) for _ in range(4)]
        store.close()
        store = open_store("sqlite", data_dir)  # with a log that has to grow
        removal = JobRemoval(data_dir, store)
        fill_up(data_dir / "jobs" / jobs[0].id / "work" / "flood")
        with pytest.raises(StorageFull):
            store.delete(jobs[1]).result(10)
        assert removal.remove_all(jobs, why="asked for", rest=on_and_on) == jobs
        assert (data_dir / "ballast").stat().st_size == 2**20  # there for the next time
        removal.finish(on_and_on)
        assert all(is_gone(store, data_dir, job) for job in jobs)
        # And so for the next time.
        more = [an_ended_job(store, data_dir) for _ in range(2)]
        store.close()
        store = open_store("sqlite", data_dir)
        fill_up(data_dir / "jobs" / more[0].id / "work" / "flood")
        removal = JobRemoval(data_dir, store)
        assert all(removal.remove(job, why="asked for") for job in more)
        store.close()


def test_a_service_starts_on_a_full_disk_and_jobs_can_be_deleted_there(tmp_path: Path) -> None:
    data_dir = tmp_path / "small"
    with mounted(data_dir, "8m"):
        (data_dir / "jobs").mkdir()
        build_runner(settings_for(data_dir)).close()
        store = open_store("sqlite", data_dir)
        jobs = [an_ended_job(store, data_dir) for _ in range(2)]
        store.close()
        fill_up(data_dir / "jobs" / jobs[0].id / "work" / "flood")
        with pytest.raises(StoreUnavailable):
            open_store("sqlite", data_dir)
        runner = build_runner(settings_for(data_dir))
        try:
            for job in jobs:
                runner.service.delete(job.id)
            assert os.listdir(data_dir / "jobs") == []
            JobRemoval(data_dir, MemoryStore())
            assert (data_dir / "ballast").stat().st_size == 2**20
        finally:
            runner.close()


def test_a_trash_on_another_file_system_is_no_hindrance(store: JobStore, data_dir: Path) -> None:
    job = an_ended_job(store, data_dir)
    with mounted(data_dir / "trash", "1m"):
        removal = JobRemoval(data_dir, store)
        removal.remove(job, why="asked for")
        removal.finish(on_and_on)
        assert is_gone(store, data_dir, job)


def test_files_that_cannot_be_removed_now_are_removed_later(store: JobStore, data_dir: Path) -> None:
    job = an_ended_job(store, data_dir)
    removal = JobRemoval(data_dir, store)
    mount = data_dir / "jobs" / job.id / "work" / "mount"
    moved = data_dir / "trash" / job.id / "work" / "mount"
    with mounted(mount, "1m", then_at=moved), capture_logs() as logs:
        (mount / "precious").touch()
        assert removal.remove(job, why="asked for") is True
        removal.finish(on_and_on)
        assert (moved / "precious").exists()
        assert store.leftovers() == [job.id]
    assert "job.files_left_behind" in [line["event"] for line in logs]
    removal.finish(on_and_on)
    assert is_gone(store, data_dir, job)

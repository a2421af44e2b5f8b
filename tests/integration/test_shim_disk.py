"""Disks full or read-only at each step of an attempt: its result is exact, and all heals by itself."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shutil
import struct
import termios
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from runner.errors import StorageFull
from runner.jobs import JobStatus, Reason
from runner.ports import Ended, NotStarted, Running
from tests.support.attempts import Attempts
from tests.support.failpoints import preload_of
from tests.support.mounts import fill, read_only, small_disk, take_inodes
from tests.support.runners import Hold, RunningRunner, settings_for
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runner.attempt_files import ExitRecord
    from runner.ports import Handle, Observation

pytestmark = pytest.mark.root


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk") as disk:
        yield disk


@pytest.fixture
def attempts(disk: Path) -> Iterator[Attempts]:
    with contextlib.closing(Attempts(disk, warm=True)) as attempts:
        yield attempts


class Gate:
    """A FIFO that keeps whoever reads it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)

    def await_reader(self) -> None:
        def reader() -> bool:
            with contextlib.suppress(OSError):
                self._writer = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
                return True
            return False

        wait_until(reader, what=f"a reader of {self.path}")

    def open(self) -> None:
        """For good: nobody is kept any more."""
        self.path.unlink()
        os.close(self._writer)


@contextlib.contextmanager
def held_at(point: str, tmp_path: Path, disk: Path) -> Iterator[tuple[Attempts, Handle, Gate]]:
    """An attempt with 5 as its exit code, whose shim waits at `point`."""
    gate = Gate(tmp_path / "gate")
    preload = preload_of(point, "hold", gate.path)
    with contextlib.closing(Attempts(disk, warm=True, preload=preload)) as attempts:
        (attempts.source / "Snakefile").write_text("rule all: input: []\n")
        handle = attempts.launch("out=hello", "exit=5")
        attempts.until_running(handle)
        gate.await_reader()
        yield attempts, handle, gate


def ended(observation: Observation) -> ExitRecord:
    assert isinstance(observation, Ended), observation
    return observation.record


def has_taken_all(shim: psutil.Process) -> bool:
    """Whether the job's pipe is empty and its shim waits for more."""
    pipe = os.open(f"/proc/{shim.children()[0].pid}/fd/1", os.O_RDONLY | os.O_NONBLOCK)
    try:
        (unread,) = struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))
    finally:
        os.close(pipe)
    return unread == 0 and shim.status() == psutil.STATUS_SLEEPING


# ---------------------------------------------------------------- full


@pytest.mark.parametrize("point", ["launch.locked", "launch.reserved"])
def test_a_disk_that_is_full_before_the_mark_keeps_the_attempt_until_there_is_room(
    tmp_path: Path, disk: Path, point: str
) -> None:
    with held_at(point, tmp_path, disk) as (attempts, handle, gate):
        filler = fill(disk)
        gate.open()
        assert attempts.end(handle) == NotStarted()
        filler.unlink()
        assert ended(attempts.end(attempts.launch("out=hello", "exit=5"))).exit_code == 5
        assert attempts.log(handle) == b"hello"


def test_a_disk_without_an_inode_for_the_mark_keeps_the_attempt_until_there_is_one(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "disk", options="size=4m,nr_inodes=100") as disk,
        held_at("launch.before_mark", tmp_path, disk) as (attempts, handle, gate),
    ):
        taken = take_inodes(disk)
        gate.open()
        assert attempts.end(handle) == NotStarted()
        shutil.rmtree(taken)
        assert ended(attempts.end(attempts.launch("out=hello", "exit=5"))).exit_code == 5


@pytest.mark.parametrize(
    "point", ["launch.mark_synced", "exit.ended", "exit.before_record", "exit.before_rename"]
)
def test_a_disk_that_fills_up_once_a_job_has_started_cannot_take_its_result(
    tmp_path: Path, disk: Path, point: str
) -> None:
    with held_at(point, tmp_path, disk) as (attempts, handle, gate):
        fill(disk)
        gate.open()
        record = ended(attempts.end(handle))  # the disk is full still
        assert (record.exit_code, record.launch_error) == (5, None)
        assert os.statvfs(disk).f_bavail == 0


@pytest.mark.parametrize("last_words", [b"end", b""])
def test_what_the_log_could_not_take_is_marked_and_later_output_is_there(
    tmp_path: Path, disk: Path, attempts: Attempts, last_words: bytes
) -> None:
    gates = [Gate(tmp_path / f"gate-{i}") for i in range(2)]
    start = 4090  # the next bytes need a page of their own
    acts = [f"bytes={start}", f"wait={gates[0].path}", "bytes=1000", f"wait={gates[1].path}"]
    handle = attempts.launch(*acts, f"raw={last_words.hex()}", "exit=5")
    attempts.until_running(handle)
    gates[0].await_reader()
    wait_until(lambda: len(attempts.log(handle)) == start, what="the first bytes are in the log")
    filler = fill(disk)
    gates[0].open()
    gates[1].await_reader()
    shim = psutil.Process(attempts.until_running(handle))
    wait_until(lambda: has_taken_all(shim), what="the shim has taken what the job wrote")
    filler.unlink()
    gates[1].open()
    record = ended(attempts.end(handle))
    log, stream = attempts.log(handle), bytes(i % 251 for i in range(start))
    kept = log.index(b"\n[snakeline: ") - start
    assert 0 <= kept < 1000
    marker = b"\n[snakeline: %d bytes lost, the log could not be written]\n" % (1000 - kept)
    assert log == stream + stream[:kept] + marker + last_words
    assert (record.exit_code, record.log_bytes) == (5, len(log))


@pytest.mark.parametrize("place", ["work", "attempts"])
def test_a_full_working_directory_or_log_directory_costs_the_job_only_what_it_writes_there(
    tmp_path: Path, place: str
) -> None:
    gate = Gate(tmp_path / "gate")
    (tmp_path / "data").mkdir()
    with contextlib.closing(Attempts(tmp_path / "data", warm=False)) as attempts:
        job_dir = tmp_path / "data" / "jobs" / attempts.job_id
        job_dir.mkdir(parents=True)
        with small_disk(job_dir / place, options="size=64k") as disk:
            script = f"read line < {gate.path}; echo data > result; kept=$?; echo said; exit $((40 + kept))"
            handle = attempts.launch_argv(("/bin/sh", "-c", script))
            attempts.until_running(handle)
            gate.await_reader()
            filler = fill(disk)
            gate.open()
            record = ended(attempts.end(handle))
            if place == "work":
                assert record.exit_code != 40  # the job was told, and tells
                assert attempts.log(handle).endswith(b"said\n")
            else:
                assert (record.exit_code, record.log_bytes) == (40, 0)
            filler.unlink()
            again = attempts.launch_argv(("/bin/sh", "-c", "echo data > result; exit 3"), attempt=2)
            assert ended(attempts.end(again)).exit_code == 3


# ---------------------------------------------------------------- read-only


def test_a_job_that_ends_while_its_disk_is_read_only_is_recorded_as_soon_as_it_is_not(
    tmp_path: Path, disk: Path
) -> None:
    with held_at("exit.ended", tmp_path, disk) as (attempts, handle, gate):
        with read_only(disk):
            gate.open()
            pause = time.monotonic() + 0.5
            wait_until(lambda: time.monotonic() > pause, what="the record has been refused")
            assert attempts.observe(handle) == Running()
            attempts.backend.stop(handle, why="cancel")
            attempts.backend.stop(handle, why="cancel", force=True)
            assert attempts.observe(handle) == Running()
        record = ended(attempts.end(handle))
        assert (record.exit_code, record.stopped) == (5, None)


@pytest.mark.parametrize("point", ["launch.locked", "launch.reserved", "launch.before_mark"])
def test_a_disk_that_turns_read_only_before_the_mark_keeps_the_attempt_until_it_is_writable(
    tmp_path: Path, disk: Path, point: str
) -> None:
    with held_at(point, tmp_path, disk) as (attempts, handle, gate):
        shim = os.pidfd_open(attempts.until_running(handle))
        with read_only(disk):
            gate.open()
            assert select.select([shim], [], [], 10)[0], "the shim has given up"
        os.close(shim)
        assert attempts.end(handle) == NotStarted()
        assert ended(attempts.end(attempts.launch("exit=5"))).exit_code == 5


def test_a_service_on_a_disk_that_is_read_only_for_a_while_goes_on_by_itself(
    tmp_path: Path, disk: Path
) -> None:
    settings = settings_for(
        disk / "data", max_cores=1, min_free_bytes=0, database_url=f"sqlite:///{tmp_path}/rows.db"
    )
    with contextlib.closing(RunningRunner(settings)) as runner:
        hold = Hold(tmp_path)
        running = runner.submit(hold=hold.path)
        runner.wait_for(running, lambda job: job.progress is not None)
        waiting = [runner.submit() for _ in range(2)]
        with read_only(disk):
            hold.release()
            pause = time.monotonic() + 0.5
            wait_until(lambda: time.monotonic() > pause, what="the record has been refused")
            assert runner.service.get(running.id).status is JobStatus.RUNNING
            with pytest.raises(StorageFull):
                runner.submit()
        # Its working directory was read-only as well: it failed, and said so.
        job = runner.ended(running)
        assert (job.reason, job.exit_code, job.attempt) == (Reason.EXITED_NONZERO, 1, 1)
        assert {runner.ended(job).status for job in waiting} == {JobStatus.COMPLETED}

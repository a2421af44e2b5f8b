"""How much of the disk jobs take: by passes over a real store, and through the whole runner."""

from __future__ import annotations

import os
import subprocess
import threading
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from runner.bootstrap import build_runner
from runner.disk_usage import DiskUsage
from runner.errors import JobNotFound
from runner.jobs import Change, JobSpec, Outcome, Reason, claimed, ended, retried
from tests.support.runners import RunningRunner, settings_for
from tests.support.stores import KINDS, NOON, a_job, added, changed, ended_at, open_store
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runner.job_store import JobStore
    from runner.jobs import Job


def on_and_on() -> None:
    pass


class Place:
    def __init__(self, data_dir: Path, store: JobStore) -> None:
        (data_dir / "jobs").mkdir()
        self.data_dir = data_dir
        self.store = store
        self.usage = DiskUsage(data_dir, store)

    def with_files(self, job: Job, kib: int, name: str = "data") -> Job:
        work = self.data_dir / "jobs" / job.id
        work.mkdir(exist_ok=True)
        (work / name).write_bytes(os.urandom(kib * 1024))
        return job

    def counted(self) -> int:
        """KiB, found by a whole pass."""
        for _ in self.usage.count(on_and_on):
            pass
        assert self.usage.used_bytes is not None
        return self.usage.used_bytes // 1024

    def said_by_du(self) -> int:
        folders = [entry.path for entry in os.scandir(self.data_dir / "jobs")]
        done = subprocess.run(["du", "-ck", *folders], capture_output=True, check=True, text=True)
        return int(done.stdout.splitlines()[-1].split()[0])


@pytest.fixture(params=["memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with closing(open_store(request.param, tmp_path)) as store:
        yield Place(tmp_path, store)


def test_a_report_that_was_added_to_an_ended_job_is_counted_by_the_next_whole_pass(place: Place) -> None:
    job = place.with_files(ended_at(place.store, NOON), 100)
    before = place.counted()
    place.with_files(job, 400, "report.html")
    assert place.counted() == before  # an ended job is measured once
    place.usage.grown(job.id)

    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):  # a pass that is cut short does not lose it
        list(place.usage.count(stop))
    counting = place.usage.count(on_and_on)
    next(counting)
    place.with_files(job, 800, "report.html")
    place.usage.grown(job.id)
    list(counting)
    assert place.usage.used_bytes is not None
    assert 400 <= place.usage.used_bytes // 1024 - before < 800  # measured before it grew once more
    assert place.counted() - before >= 800
    place.with_files(job, 1600, "report.html")
    assert place.counted() - before < 1600  # told once, measured once


@pytest.mark.parametrize("place", KINDS, indirect=True)
def test_the_files_of_all_jobs_are_counted_whatever_their_status(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.disk_usage._PAGE", 3)
    assert place.usage.used_bytes is None
    assert place.counted() == 0
    for i in range(10):
        place.with_files(ended_at(place.store, NOON + timedelta(seconds=i % 3)), 10 + i)
    for _ in range(7):
        place.with_files(added(place.store), 20)
    running = added(place.store)
    changed(place.store, running, claimed(running, NOON), Change.CLAIMED)
    place.with_files(running, 300)
    ended_at(place.store, NOON)  # none was ever made
    assert place.counted() == place.said_by_du() > 600


def test_files_without_a_job_do_not_count(place: Place) -> None:
    place.with_files(ended_at(place.store, NOON), 10)
    before = place.counted()
    place.with_files(a_job(), 1000)
    assert place.counted() == before


def test_an_ended_job_is_measured_once_and_a_running_one_each_time(place: Place) -> None:
    finished = place.with_files(ended_at(place.store, NOON), 100)
    running = added(place.store)
    running = changed(place.store, running, claimed(running, NOON), Change.CLAIMED)
    place.with_files(running, 100)
    before = place.counted()
    place.with_files(finished, 1000, "more")  # nothing does that to a job that has ended: it shows who looks
    place.with_files(running, 500, "more")
    assert before + 500 <= place.counted() < before + 520


def test_a_job_that_has_ended_another_time_is_measured_again(place: Place) -> None:
    job = place.with_files(ended_at(place.store, NOON), 100)
    before = place.counted()
    pending = changed(place.store, job, retried(job, NOON), Change.RETRIED)
    again = changed(place.store, pending, claimed(pending, NOON), Change.CLAIMED)
    place.with_files(job, 500, "more")
    place.with_files(job, 300, "still more")
    outcome = Outcome(Reason.LOST, ended_at=NOON + timedelta(seconds=9))
    changed(place.store, again, ended(again, outcome), Change.ENDED)
    assert before + 800 <= place.counted() < before + 850


def test_a_deleted_job_counts_no_more(place: Place) -> None:
    jobs = [place.with_files(ended_at(place.store, NOON), 100) for _ in range(3)]
    whole = place.counted()
    shorts = place.store.ended()
    size = place.usage.bytes_of(shorts[1])
    assert size is not None
    assert 100 * 1024 <= size < 120 * 1024
    place.usage.forget([shorts[1], shorts[1]])
    assert place.usage.used_bytes == whole * 1024 - size
    place.store.delete(jobs[0]).result(10)
    place.store.delete(jobs[1]).result(10)
    assert place.counted() * 1024 == size


def test_while_the_first_pass_goes_on_what_it_has_found_is_known(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.disk_usage._PAGE", 2)
    for _ in range(4):
        place.with_files(ended_at(place.store, NOON), 100)
    shorts = place.store.ended()
    counting = place.usage.count(on_and_on)
    next(counting)
    assert place.usage.used_bytes is None
    assert 200 * 1024 <= place.usage.known_bytes < 240 * 1024
    assert [place.usage.bytes_of(short) is None for short in shorts] == [False, False, True, True]
    place.usage.forget(shorts[:1])
    assert 100 * 1024 <= place.usage.known_bytes < 120 * 1024


def test_a_link_in_place_of_the_directory_of_all_jobs_is_not_followed(place: Place, tmp_path: Path) -> None:
    place.with_files(ended_at(place.store, NOON), 100)
    (tmp_path / "jobs").rename(tmp_path / "elsewhere")
    (tmp_path / "jobs").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        place.counted()


# ---------------------------------------------------------------- the whole runner


def test_the_service_counts_completes_deletions_and_deletes_what_is_too_much(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "data", max_data_bytes=2**20)
    with closing(RunningRunner(settings)) as first:
        jobs = [first.ended(first.submit(JobSpec())) for _ in range(3)]
    cut_short = jobs.pop()
    store = open_store("sqlite", tmp_path / "data")
    store.delete(cut_short).result(10)
    store.close()
    (first.work_dir(jobs[0]) / "big").write_bytes(os.urandom(2**20))
    runner = build_runner(settings, first_sweep_after_s=0.0)
    runner.start()
    try:
        wait_until(lambda: not first.job_dir(cut_short).exists(), what="the deletion to be completed")
        wait_until(lambda: not first.job_dir(jobs[0]).exists(), what="the oldest job to be deleted")
        with pytest.raises(JobNotFound):
            runner.service.get(jobs[0].id)
        assert runner.service.get(jobs[1].id).status.is_terminal
        used = wait_until(lambda: runner.retention.used_bytes, what="the count")
        assert used is not None
        assert 0 < used < 2**20
    finally:
        runner.close()
    assert "retention" not in [thread.name for thread in threading.enumerate()]


def test_the_service_deletes_what_is_too_old(tmp_path: Path) -> None:
    with closing(RunningRunner(settings_for(tmp_path / "data"))) as first:
        job = first.ended(first.submit(JobSpec()))
    runner = build_runner(settings_for(tmp_path / "data", retention_s=0.001), first_sweep_after_s=0.0)
    runner.start()
    try:
        wait_until(lambda: not first.job_dir(job).exists(), what="the files to go")
        with pytest.raises(JobNotFound):
            runner.service.get(job.id)
    finally:
        runner.close()

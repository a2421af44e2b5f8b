"""Deleting a job, rows and files: cut short anywhere, in a race, with links about."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from runner.errors import StoreUnavailable
from runner.job_store import JobQuery, Update
from runner.jobs import Change, JobStatus, retried
from runner.removal import JobRemoval
from tests.support.removable_jobs import an_ended_job, files_of, is_gone, is_whole, on_and_on
from tests.support.stores import KINDS, NOON, a_job, changed, ended_at, open_store
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runner.job_store import JobStore

ROOT = Path(__file__).parents[2]
every_store = pytest.mark.parametrize("store", KINDS, indirect=True)


class Enough(Exception):
    pass


@pytest.fixture(params=["memory"])
def store(request: pytest.FixtureRequest, data_dir: Path) -> Iterator[JobStore]:
    """A quick one, where it makes no difference; one of each kind in tests marked `every_store`."""
    store = open_store(request.param, data_dir)
    yield store
    store.close()


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    directory = tmp_path / "data"
    (directory / "jobs").mkdir(parents=True)
    return directory


# ---------------------------------------------------------------- the order of things


@every_store
def test_a_job_goes_with_its_files_and_no_other_does(store: JobStore, data_dir: Path) -> None:
    removal = JobRemoval(data_dir, store)
    job, other = an_ended_job(store, data_dir), an_ended_job(store, data_dir)
    with capture_logs() as logs:
        assert removal.remove(job, why="asked for") is True
    assert [line["event"] for line in logs] == ["job.deleted"]
    assert (logs[0]["job_id"], logs[0]["why"]) == (job.id, "asked for")
    removal.finish(on_and_on)
    assert is_gone(store, data_dir, job)
    assert is_whole(data_dir, other)
    assert store.get(other.id) == other


def test_a_job_without_files_goes_as_well(store: JobStore, data_dir: Path) -> None:
    removal = JobRemoval(data_dir, store)
    job = ended_at(store, NOON)
    with capture_logs() as logs:
        assert removal.remove(job, why="asked for") is True
        removal.finish(on_and_on)
    assert is_gone(store, data_dir, job)
    assert [line["event"] for line in logs] == ["job.deleted"]


@every_store
def test_a_deletion_cut_short_at_any_moment_is_completed(store: JobStore, data_dir: Path) -> None:
    other = an_ended_job(store, data_dir)
    cuts = 0
    for after in range(1, 100):
        job = an_ended_job(store, data_dir)
        calls = iter(range(1, 1000))

        def rest(calls: Iterator[int] = calls, after: int = after) -> None:
            if next(calls) == after:
                raise Enough

        try:
            JobRemoval(data_dir, store).remove_all([job], why="", rest=rest)
        except Enough:
            cuts += 1
        else:
            break
        finally:
            JobRemoval(data_dir, store).finish(on_and_on)
            assert is_gone(store, data_dir, job)
    assert cuts >= 5
    assert is_whole(data_dir, other)


@every_store
def test_a_deletion_cut_short_between_row_and_files_is_completed(store: JobStore, data_dir: Path) -> None:
    job = an_ended_job(store, data_dir)
    assert store.delete(job).result(10) is True
    JobRemoval(data_dir, store).finish(on_and_on)
    assert is_gone(store, data_dir, job)


def test_what_is_in_the_trash_goes_though_nobody_notes_it(store: JobStore, data_dir: Path) -> None:
    removal = JobRemoval(data_dir, store)
    job = an_ended_job(store, data_dir)
    store.delete(job).result(10)
    store.forget_leftovers([job.id]).result(10)
    (data_dir / "jobs" / job.id).rename(data_dir / "trash" / job.id)
    removal.finish(on_and_on)
    assert is_gone(store, data_dir, job)


def test_files_without_a_row_stay_unless_their_job_was_deleted(store: JobStore, data_dir: Path) -> None:
    unknown = a_job()  # its row is not in the backup that was restored
    files_of(data_dir, unknown)
    removal = JobRemoval(data_dir, store)
    removal.remove(an_ended_job(store, data_dir), why="asked for")
    removal.finish(on_and_on)
    assert is_whole(data_dir, unknown)


def test_files_whose_job_has_a_row_stay_whatever_is_noted(store: JobStore, data_dir: Path) -> None:
    job = an_ended_job(store, data_dir)
    store.delete(job).result(10)
    again = ended_at(store, NOON, a_job(job_id=job.id))
    JobRemoval(data_dir, store).finish(on_and_on)
    assert is_whole(data_dir, again)
    assert store.leftovers() == []


def test_a_deletion_in_hand_is_not_taken_up_by_another_thread(store: JobStore, data_dir: Path) -> None:
    removal = JobRemoval(data_dir, store)
    job = an_ended_job(store, data_dir)
    seen: list[bool] = []

    def rest() -> None:
        removal.finish(on_and_on)
        seen.append(bool(list((data_dir / "trash").rglob("*"))) and store.leftovers() == [job.id])

    assert removal.remove_all([job], why="", rest=rest) == [job]
    assert seen[0] is True
    removal.finish(on_and_on)
    assert is_gone(store, data_dir, job)


def test_one_of_the_same_id_in_the_trash_already_is_no_hindrance(store: JobStore, data_dir: Path) -> None:
    removal = JobRemoval(data_dir, store)
    job = an_ended_job(store, data_dir)
    (data_dir / "trash" / job.id).mkdir()
    (data_dir / "trash" / job.id / "old").touch()
    removal.remove(job, why="asked for")
    assert not (data_dir / "jobs" / job.id).exists()
    removal.finish(on_and_on)
    assert is_gone(store, data_dir, job)


def test_directories_are_synced_before_a_deletion_is_forgotten(
    store: JobStore, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removal = JobRemoval(data_dir, store)
    job = an_ended_job(store, data_dir)
    removal.remove(job, why="asked for")
    synced: list[tuple[str, list[str]]] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        synced.append((os.path.basename(os.readlink(f"/proc/self/fd/{fd}")), list(store.leftovers())))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    removal.finish(on_and_on)
    assert [(name, noted) for name, noted in synced if name in ("jobs", "trash")] == [
        ("jobs", [job.id]),
        ("trash", [job.id]),
    ]


_DELETER = """
import sys
from pathlib import Path
from runner.removal import JobRemoval
from runner.stores.sql import SqlStore

data_dir = Path(sys.argv[1])
store = SqlStore.open(f"sqlite:///{data_dir}/snakeline.db")
removal = JobRemoval(data_dir, store)
print("ready", flush=True)
sys.stdin.readline()
while jobs := store.ended(limit=3):
    removal.remove_all([store.get(job.id) for job in jobs], why="too old", rest=lambda: None)
    removal.finish(lambda: None)
"""


def test_a_process_killed_while_it_deletes_leaves_each_job_whole_or_not_at_all(
    data_dir: Path, record_property: Callable[[str, object], None]
) -> None:
    chance = random.Random(3)
    kills = cut_short = 0
    store = open_store("sqlite", data_dir)
    jobs = [an_ended_job(store, data_dir) for _ in range(60)]
    while store.counts()[JobStatus.FAILED] > 20:
        store.close()
        process = subprocess.Popen(
            [sys.executable, "-c", _DELETER, data_dir],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        before = len(os.listdir(data_dir / "jobs"))
        process.stdin.write(b"\n")
        process.stdin.flush()
        fewer = before - chance.randrange(5, 30)
        wait_until(lambda n=fewer: len(os.listdir(data_dir / "jobs")) <= max(n, 5), what="deletions")  # type: ignore[misc]
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += 1
        store = open_store("sqlite", data_dir)
        rows = {job.id for job in store.list(JobQuery(limit=500)).items}
        assert all(is_whole(data_dir, job) for job in jobs if job.id in rows)
        cut_short += bool(store.leftovers()) or bool(os.listdir(data_dir / "trash"))
        JobRemoval(data_dir, store).finish(on_and_on)
        assert set(os.listdir(data_dir / "jobs")) == rows
        assert (os.listdir(data_dir / "trash"), store.leftovers()) == ([], [])
    store.close()
    print(f"{kills} kills while deleting, {cut_short} of them cut a deletion short; 0 jobs in halves")  # noqa: T201
    record_property("kills", kills)
    assert kills >= 2


# ---------------------------------------------------------------- only what was meant


@every_store
def test_a_job_retried_meanwhile_is_left_alone(store: JobStore, data_dir: Path) -> None:
    job = an_ended_job(store, data_dir)
    pending = changed(store, job, retried(job, NOON), Change.RETRIED)
    removal = JobRemoval(data_dir, store)
    assert removal.remove(job, why="too old") is False
    removal.finish(on_and_on)
    assert store.get(job.id) == pending
    assert is_whole(data_dir, job)


@every_store
def test_of_a_retry_and_a_deletion_at_the_same_moment_one_wins(store: JobStore, data_dir: Path) -> None:
    removal = JobRemoval(data_dir, store)
    jobs = [an_ended_job(store, data_dir) for _ in range(60)]
    order = random.Random(1).sample(jobs, len(jobs))
    both = threading.Barrier(2, timeout=10)
    retried_ids: set[str] = set()

    def retry_all() -> None:
        both.wait()
        for job in order:
            after = retried(job, NOON + timedelta(days=1))
            if store.update([Update(job, after, Change.RETRIED)]).result(10)[0] is not None:
                retried_ids.add(job.id)

    thread = threading.Thread(target=retry_all)
    thread.start()
    both.wait()
    deleted_ids = {job.id for job in jobs if removal.remove(job, why="too old")}
    thread.join()
    assert retried_ids | deleted_ids == {job.id for job in jobs}
    assert not retried_ids & deleted_ids
    for job in jobs:
        assert (data_dir / "jobs" / job.id).exists() == (job.id in retried_ids)
    assert all(is_whole(data_dir, job) for job in jobs if job.id in retried_ids)


def test_a_link_in_place_of_a_jobs_directory_goes_and_what_it_leads_to_stays(
    store: JobStore, data_dir: Path, tmp_path: Path
) -> None:
    job, other = ended_at(store, NOON), an_ended_job(store, data_dir)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").touch()
    (data_dir / "jobs" / job.id).symlink_to(tmp_path / "outside")
    removal = JobRemoval(data_dir, store)
    removal.remove(job, why="asked for")
    removal.finish(on_and_on)
    assert is_gone(store, data_dir, job)
    linked = ended_at(store, NOON)
    (data_dir / "jobs" / linked.id).symlink_to(other.id)
    removal.remove(linked, why="asked for")
    assert is_whole(data_dir, other)
    assert (tmp_path / "outside" / "precious").exists()


@pytest.mark.parametrize("folder", ["jobs", "trash"])
def test_nothing_is_deleted_through_a_link_in_place_of_the_directory_of_all_jobs(
    store: JobStore, data_dir: Path, tmp_path: Path, folder: str
) -> None:
    removal = JobRemoval(data_dir, store)
    job = an_ended_job(store, data_dir)
    (data_dir / folder).rename(tmp_path / "elsewhere")
    (data_dir / folder).symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "precious").touch()
    with pytest.raises(StoreUnavailable, match=folder):
        removal.remove(job, why="asked for")
    with pytest.raises(StoreUnavailable, match=folder):
        removal.finish(on_and_on)
    assert store.get(job.id) == job
    assert is_whole(data_dir, job)
    assert (tmp_path / "elsewhere" / "precious").exists()


@pytest.mark.parametrize("job_id", ["..", ".", "../outside", "a/../../outside", "/outside"])
def test_an_id_that_is_no_name_touches_no_file(store: JobStore, data_dir: Path, job_id: str) -> None:
    job = ended_at(store, NOON, a_job(job_id=job_id))
    (data_dir / "outside").mkdir()
    (data_dir / "outside" / "precious").touch()
    (data_dir / "jobs" / "a").mkdir()
    other = an_ended_job(store, data_dir)
    removal = JobRemoval(data_dir, store)
    with capture_logs() as logs:
        assert removal.remove(job, why="asked for") is True
        removal.finish(on_and_on)
    assert "job.files_not_removed" in [line["event"] for line in logs]
    assert (data_dir / "outside" / "precious").exists()
    assert is_whole(data_dir, other)
    assert store.leftovers() == []

"""`repair`: finds what is damaged, says what it would do, and does it only when told to."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runner.data_dir import DataDir
from runner.errors import DataDirUnusable, StoreUnavailable
from runner.job_store import JobQuery, Update
from runner.jobs import Change, Reason, claimed
from runner.repair import repair
from runner.stores.sql import SqlStore
from tests.support.runners import Hold, RunningRunner, settings_for
from tests.support.stores import NOON, added
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.jobs import Job
    from runner.settings import RunnerSettings


@pytest.fixture
def settings(tmp_path: Path) -> RunnerSettings:
    return settings_for(tmp_path / "data")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Job]:
    """The data directory of a service that has stopped, and its one job, completed."""
    data_dir = tmp_path_factory.mktemp("stopped") / "data"
    with closing(RunningRunner(settings_for(data_dir))) as runner:
        return data_dir, runner.ended(runner.submit())


@pytest.fixture
def job(stopped: tuple[Path, Job], settings: RunnerSettings) -> Job:
    """The one job of a copy of it."""
    shutil.copytree(stopped[0], settings.data_dir, symlinks=True)
    return stopped[1]


def attempt_dir(settings: RunnerSettings, job: Job) -> Path:
    return settings.data_dir / "jobs" / job.id / "attempts" / "1"


def left_running(settings: RunnerSettings, hold: Hold) -> Job:
    """A job that outlives its service."""
    with closing(RunningRunner(settings)) as runner:
        job = runner.submit(hold=hold.path)
        wait_until((attempt_dir(settings, job) / "started").exists, what="the job to be started")
        return job


def kinds(settings: RunnerSettings, *, apply: bool = False) -> list[str]:
    return sorted(finding.kind for finding in repair(settings, apply=apply).findings)


def snapshot_of(directory: Path) -> dict[str, str]:
    """Every name below it, and what is behind it; without what only taking the lock or looking makes."""
    found: dict[str, str] = {}
    for folder, folders, files in os.walk(directory):
        for name in folders + files:
            path = Path(folder, name)
            if name in ("lock", "snakeline.db-shm", "snakeline.db-wal"):
                continue
            if path.is_symlink():
                found[str(path)] = f"-> {path.readlink()}"
            else:
                found[str(path)] = (
                    hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "other"
                )
    return found


# ---------------------------------------------------------------- nothing damaged


def test_where_all_is_well_nothing_is_found(settings: RunnerSettings, job: Job) -> None:
    report = repair(settings, apply=False)
    assert report.findings == ()
    assert report.ok


def test_where_there_is_no_data_directory_none_is_made(settings: RunnerSettings) -> None:
    assert repair(settings, apply=True).ok
    assert not settings.data_dir.exists()


def test_a_service_keeps_a_repair_out(settings: RunnerSettings) -> None:
    with closing(DataDir(settings.data_dir)), pytest.raises(DataDirUnusable, match="in use"):
        repair(settings, apply=False)


def test_a_database_of_another_kind_is_refused_without_telling_its_secrets(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        repair(settings_for(tmp_path, database_url="postgresql+psycopg://u:secret@h/d"), apply=True)
    assert "secret" not in str(caught.value)


# ---------------------------------------------------------------- the files of jobs


def truncate(path: Path) -> None:
    os.truncate(path, 10)


def nonsense(path: Path) -> None:
    path.write_text("[1, 2]\n")


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("exit.json", "exit_record_damaged"), ("spec.json", "spec_damaged"), ("events.jsonl", "events_damaged")],
)
@pytest.mark.parametrize("damage", [truncate, nonsense, fifo])
def test_a_file_that_cannot_be_read_is_put_aside_and_only_then(
    settings: RunnerSettings, job: Job, name: str, kind: str, damage: Callable[[Path], None]
) -> None:
    path = attempt_dir(settings, job) / name
    if name == "events.jsonl" and damage is truncate:
        path.write_text("no event\nnor this\n")
    else:
        damage(path)
    before = snapshot_of(settings.data_dir)
    report = repair(settings, apply=False)
    assert [finding.kind for finding in report.findings] == [kind]
    assert report.findings[0].path == str(path.relative_to(settings.data_dir))
    assert not report.ok
    assert snapshot_of(settings.data_dir) == before
    assert repair(settings, apply=True).ok
    assert not path.exists()
    assert os.path.lexists(path.with_name(f"{name}.damaged"))
    assert kinds(settings) == []


def test_a_running_jobs_damaged_record_makes_it_lost_and_invents_nothing(
    settings: RunnerSettings, tmp_path: Path
) -> None:
    hold = Hold(tmp_path)
    job = left_running(settings, hold)
    assert kinds(settings) == [], "it runs"
    hold.release()
    record = attempt_dir(settings, job) / "exit.json"
    wait_until(lambda: record.exists() and repair(settings, apply=False).findings == (), what="its end")
    record.write_text("{}")
    [finding] = repair(settings, apply=True).findings
    assert "lost" in finding.detail
    with closing(RunningRunner(settings)) as runner:
        ended = runner.ended(job)
    assert (ended.reason, ended.exit_code) == (Reason.LOST, None)


def test_what_a_write_left_half_done_is_removed_but_never_a_whole_record(
    settings: RunnerSettings, job: Job
) -> None:
    attempt = attempt_dir(settings, job)
    (attempt / "exit.json.tmp").write_bytes(b"\0" * 4096)
    (attempt / "spec.json.new").write_text("{")
    assert kinds(settings) == ["leftover", "leftover"]
    assert repair(settings, apply=True).ok
    assert kinds(settings) == []
    (attempt / "exit.json.tmp").write_bytes((attempt / "exit.json").read_bytes())
    report = repair(settings, apply=True)
    assert [finding.remedy for finding in report.findings] == [None]
    assert report.ok
    assert (attempt / "exit.json.tmp").exists()


def test_a_folder_without_a_row_is_moved_and_keeps_every_file(settings: RunnerSettings, job: Job) -> None:
    with closing(sqlite3.connect(settings.data_dir / "snakeline.db")) as other, other:
        other.execute("DELETE FROM jobs")
        other.execute("UPDATE job_counts SET jobs = 0")
    folder = settings.data_dir / "jobs" / job.id
    (folder / "work" / "big").write_bytes(b"x" * 100_000)
    content = snapshot_of(folder)
    report = repair(settings, apply=False)
    [finding] = report.findings
    assert (finding.kind, finding.path) == ("orphan", f"jobs/{job.id}")
    assert finding.size_bytes is not None
    assert finding.size_bytes >= 100_000
    assert snapshot_of(folder) == content
    assert repair(settings, apply=True).ok
    assert not folder.exists()
    moved = settings.data_dir / "orphans" / job.id
    assert {k.replace(str(moved), str(folder)): v for k, v in snapshot_of(moved).items()} == content
    assert (settings.data_dir / "orphans").stat().st_mode & 0o777 == 0o700
    assert kinds(settings) == []


def test_a_folder_without_a_row_whose_job_runs_is_left_alone(
    settings: RunnerSettings, tmp_path: Path
) -> None:
    hold = Hold(tmp_path)
    job = left_running(settings, hold)
    with closing(sqlite3.connect(settings.data_dir / "snakeline.db")) as other, other:
        other.execute("DELETE FROM jobs")
        other.execute("UPDATE job_counts SET jobs = 0")
    report = repair(settings, apply=True)
    assert [(f.kind, f.is_done, f.failure) for f in report.findings] == [("orphan", False, "it runs")]
    assert not report.ok
    assert (settings.data_dir / "jobs" / job.id).is_dir()
    hold.release()


def test_files_of_a_deleted_job_that_the_service_will_remove_are_no_orphans(
    settings: RunnerSettings, job: Job
) -> None:
    with closing(SqlStore.open(settings.database_url)) as store:
        assert store.delete(store.get(job.id)).result(10)
    assert kinds(settings) == []


def test_rows_whose_files_are_gone_are_said_and_are_no_reason_to_fail(
    settings: RunnerSettings, job: Job
) -> None:
    (settings.data_dir / "jobs" / job.id).rename(settings.data_dir / "elsewhere")
    with closing(SqlStore.open(settings.database_url)) as store:
        added(store)  # never started: nothing is missing
        running = added(store)
        store.update([Update(running, claimed(running, NOON), Change.CLAIMED)]).result(10)
    report = repair(settings, apply=True)
    assert sorted(finding.path for finding in report.findings) == [f"jobs/{running.id}", f"jobs/{job.id}"]
    assert {finding.kind for finding in report.findings} == {"files_missing"}
    assert report.ok


# ---------------------------------------------------------------- links


def test_nothing_outside_of_the_data_directory_is_read_or_touched(
    settings: RunnerSettings, job: Job, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    (outside / "attempts" / "1").mkdir(parents=True)
    (outside / "attempts" / "1" / "exit.json").write_text("not ours")
    (outside / "attempts" / "1" / "exit.json.tmp").write_text("")
    jobs = settings.data_dir / "jobs"
    attempt = attempt_dir(settings, job)
    (jobs / "link").symlink_to(outside)
    (jobs / job.id / "attempts" / "2").symlink_to(outside / "attempts" / "1")
    (attempt / "spec.json").rename(outside / "attempts" / "1" / "spec.json")  # whole, and not looked at
    (attempt / "spec.json").symlink_to(outside / "attempts" / "1" / "spec.json")
    (attempt / "exit.json.tmp").symlink_to(outside / "attempts" / "1" / "exit.json.tmp")
    before = snapshot_of(outside)
    repair(settings, apply=True)
    assert snapshot_of(outside) == before
    assert (settings.data_dir / "orphans" / "link").is_symlink()
    assert (attempt / "spec.json.damaged").is_symlink()
    assert (attempt / "exit.json.tmp").is_symlink()
    assert kinds(settings) == []


@pytest.mark.parametrize("replaced", ["jobs", "job", "attempts", "orphans"])
def test_a_link_in_place_of_a_folder_is_not_followed(
    settings: RunnerSettings, job: Job, tmp_path: Path, replaced: str
) -> None:
    jobs = settings.data_dir / "jobs"
    folder = {
        "jobs": jobs,
        "job": jobs / job.id,
        "attempts": jobs / job.id / "attempts",
        "orphans": settings.data_dir / "orphans",
    }[replaced]
    outside = tmp_path / "outside"
    (attempt_dir(settings, job) / "exit.json").write_text("{}")
    if folder.exists():
        folder.rename(outside)
    else:
        outside.mkdir()
        (jobs / "unknown").mkdir()
    folder.symlink_to(outside)
    before = snapshot_of(outside)
    repair(settings, apply=True)
    assert snapshot_of(outside) == before


# ---------------------------------------------------------------- the store


def test_a_damaged_store_is_replaced_by_what_can_be_read_and_kept(settings: RunnerSettings, job: Job) -> None:
    store = settings.data_dir / "snakeline.db"
    with closing(SqlStore.open(settings.database_url)) as opened:
        for _ in range(300):
            added(opened, parameters={"x": "y" * 100})
    content = store.read_bytes()
    store.write_bytes(content[: len(content) * 2 // 3])
    damaged = store.read_bytes()
    with pytest.raises(StoreUnavailable, match="check --repair"):
        SqlStore.open(settings.database_url)
    before = snapshot_of(settings.data_dir)
    report = repair(settings, apply=False)
    assert "store_damaged" in [finding.kind for finding in report.findings]
    assert not report.ok
    assert snapshot_of(settings.data_dir) == before
    assert repair(settings, apply=True).ok
    [kept] = settings.data_dir.glob("snakeline.db.damaged-*")
    assert kept.read_bytes() == damaged
    assert store.stat().st_mode & 0o777 == 0o600
    with closing(RunningRunner(settings)) as runner:
        assert 100 < runner.service.list(JobQuery()).total < 301
    assert kinds(settings) == []


def test_a_store_of_garbage_is_replaced_and_its_jobs_files_are_kept(
    settings: RunnerSettings, job: Job
) -> None:
    store = settings.data_dir / "snakeline.db"
    store.write_bytes(b"nothing of ours " * 1000)
    assert kinds(settings) == ["orphan", "store_damaged"]
    assert repair(settings, apply=True).ok
    assert (settings.data_dir / "orphans" / job.id / "attempts" / "1" / "exit.json").exists()
    with closing(RunningRunner(settings)) as runner:
        assert runner.service.list(JobQuery()).total == 0


@pytest.mark.parametrize("empty", [True, False])
def test_a_store_that_is_gone_lets_the_service_start_once_its_jobs_files_are_aside(
    settings: RunnerSettings, job: Job, *, empty: bool
) -> None:
    store = settings.data_dir / "snakeline.db"
    store.write_bytes(b"") if empty else store.unlink()
    with pytest.raises(StoreUnavailable, match="check --repair"):
        RunningRunner(settings)
    assert kinds(settings) == ["orphan", "store_missing"]
    assert repair(settings, apply=True).ok
    RunningRunner(settings).close()


@pytest.mark.parametrize(
    "change", ["PRAGMA application_id = 7", "UPDATE alembic_version SET version_num = '9999'"]
)
def test_a_store_that_is_not_ours_to_judge_is_left_alone_and_so_are_the_jobs(
    settings: RunnerSettings, job: Job, change: str
) -> None:
    with closing(sqlite3.connect(settings.data_dir / "snakeline.db", isolation_level=None)) as other:
        other.execute(change)
    before = snapshot_of(settings.data_dir)
    report = repair(settings, apply=True)
    assert [finding.kind for finding in report.findings] == ["store_unusable"]
    assert not report.ok
    assert snapshot_of(settings.data_dir) == before


def test_a_restore_that_was_cut_short_is_completed(settings: RunnerSettings, job: Job) -> None:
    store = settings.data_dir / "snakeline.db"
    store.rename(store.with_name("snakeline.db.restoring"))
    assert kinds(settings) == ["store_missing"]
    assert not store.exists()
    assert repair(settings, apply=True).ok
    with closing(SqlStore.open(settings.database_url)) as opened:
        assert opened.get(job.id) == job


def test_with_jobs_in_memory_every_folder_is_an_orphan(settings: RunnerSettings, job: Job) -> None:
    (settings.data_dir / "snakeline.db").unlink()
    settings = settings.model_copy(update={"database_url": "memory://"})
    assert kinds(settings, apply=True) == ["orphan"]


def test_where_no_new_store_can_be_made_the_damaged_one_stays(settings: RunnerSettings, job: Job) -> None:
    store = settings.data_dir / "snakeline.db"
    os.truncate(store, 4096 * 10)
    (settings.data_dir / "snakeline.db.restoring").mkdir()  # where the new one would be made
    report = repair(settings, apply=True)
    assert not report.ok
    assert store.stat().st_size == 4096 * 10

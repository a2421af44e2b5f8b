"""Backups: consistent under load, and whole or not there at all."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import threading
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runner.backup import BackupRefused, back_up, restore
from runner.job_store import JobQuery
from runner.jobs import JobStatus
from runner.stores.sql import SqlStore
from tests.support.runners import settings_for
from tests.support.stores import added, opened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.settings import RunnerSettings

ROOT = Path(__file__).parents[2]


# ---------------------------------------------------------------- taking one


def test_a_backup_under_load_holds_every_job_stored_before_it_and_none_in_part(
    settings: RunnerSettings, store: SqlStore, tmp_path: Path
) -> None:
    before = [added(store, name=f"sample {i}", labels={"a": "b"}) for i in range(50)]
    stop = threading.Event()
    written = threading.Event()

    def load() -> None:
        while not stop.is_set():
            added(store, name="load", parameters={"x": "y" * 500}, labels={"load": "1"})
            written.set()

    thread = threading.Thread(target=load)
    thread.start()
    try:
        assert written.wait(10)
        backups = [back_up(settings, tmp_path / f"{i}.db") for i in range(5)]
    finally:
        stop.set()
        thread.join()
    totals = [backup.contents.total for backup in backups]
    assert totals == sorted(totals)
    for backup in backups:
        assert backup.size_bytes == backup.file.stat().st_size
        with opened(backup.file) as copy:
            assert [copy.get(job.id) for job in before] == before
            assert copy.list(JobQuery(labels=(("a", "b"),))).total == 50
            events = copy.events(limit=1_000_000)
            assert backup.contents.total == copy.counts()[JobStatus.PENDING] == len(events)
            assert copy.list(JobQuery(labels=(("load", "1"),), limit=1)).total == len(events) - 50


def test_a_backup_is_one_private_file_that_needs_no_other(
    settings: RunnerSettings, store: SqlStore, tmp_path: Path
) -> None:
    added(store)
    folder = tmp_path / "backups"
    folder.mkdir()
    back_up(settings, folder / "b.db")
    assert [path.name for path in folder.iterdir()] == ["b.db"]
    assert stat.S_IMODE((folder / "b.db").stat().st_mode) == 0o600
    with closing(sqlite3.connect(f"file:{folder}/b.db?mode=ro", uri=True)) as copy:
        assert copy.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_a_backup_leaves_the_services_own_log_in_place(
    settings: RunnerSettings, store: SqlStore, data: Path, tmp_path: Path
) -> None:
    job = added(store)
    log = (data / "snakeline.db-wal").stat()
    back_up(settings, tmp_path / "b.db")
    assert (data / "snakeline.db-wal").stat().st_ino == log.st_ino
    assert added(store).seq > job.seq


def test_a_backup_of_a_killed_services_store_changes_nothing_of_it(
    settings: RunnerSettings, store: SqlStore, data: Path, tmp_path: Path
) -> None:
    added(store)
    killed = settings_for(tmp_path / "killed")
    killed.data_dir.mkdir()
    files = [data / "snakeline.db", data / "snakeline.db-wal"]
    for file in files:
        (killed.data_dir / file.name).write_bytes(file.read_bytes())
    assert back_up(killed, tmp_path / "b.db").contents.total == 1
    assert [(killed.data_dir / file.name).read_bytes() for file in files] == [f.read_bytes() for f in files]


def test_an_existing_file_is_replaced_only_by_force(
    settings: RunnerSettings, store: SqlStore, tmp_path: Path
) -> None:
    added(store)
    file = tmp_path / "b.db"
    file.write_text("precious")
    with pytest.raises(BackupRefused, match="exists"):
        back_up(settings, file)
    assert file.read_text() == "precious"
    assert back_up(settings, file, force=True).contents.total == 1


@pytest.mark.parametrize("name", ["snakeline.db", "link"])
def test_the_store_itself_is_neither_replaced_by_its_backup_nor_taken_for_one(
    settings: RunnerSettings, data: Path, name: str
) -> None:
    (data / "link").symlink_to("snakeline.db")
    with opened(data / "snakeline.db") as store:
        added(store)
        with pytest.raises(BackupRefused, match="itself"):
            back_up(settings, data / name, force=True)
    before = (data / "snakeline.db").stat()
    with pytest.raises(BackupRefused, match="itself"):
        restore(settings, data / name)
    assert (data / "snakeline.db").stat() == before


def test_a_damaged_store_makes_no_backup_and_leaves_the_one_before(
    settings: RunnerSettings, store: SqlStore, data: Path, tmp_path: Path
) -> None:
    for _ in range(50):
        added(store, name="n", parameters={"x": "y" * 2000})
    file = tmp_path / "b.db"
    back_up(settings, file)
    content = file.read_bytes()
    store.close()
    with (data / "snakeline.db").open("r+b") as damaged:
        damaged.seek(4096 * 4)
        damaged.write(b"\xff" * 4096 * 8)
    with pytest.raises(BackupRefused, match="damaged") as caught:
        back_up(settings, file, force=True)
    assert "partial" not in str(caught.value)
    assert file.read_bytes() == content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.db", "data"]


def test_a_backup_without_room_says_so_and_leaves_nothing(
    settings: RunnerSettings, store: SqlStore, tmp_path: Path, small_disk: Path
) -> None:
    for _ in range(20):
        added(store, parameters={"x": "y" * 100_000})
    with pytest.raises(BackupRefused, match="space"):
        back_up(settings, small_disk / "b.db")
    assert list(small_disk.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    mount = tmp_path / "small"
    mount.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(mount)], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip("mounting a small file system needs root and a machine that allows it")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)

"""Backups: consistent under load, whole or not there at all, and put back so that nothing is mixed."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runner.backup import BackupRefused, back_up, restore
from runner.data_dir import DataDir
from runner.errors import DataDirUnusable, StoreUnavailable
from runner.jobs import JobStatus
from runner.ports import JobQuery
from runner.stores.sql import SqlStore, snapshot
from tests.support.runners import Hold, RunningRunner, settings_for
from tests.support.stores import added, store_url
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runner.settings import RunnerSettings

ROOT = Path(__file__).parents[2]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture
def settings(data: Path) -> RunnerSettings:
    return settings_for(data)


@pytest.fixture
def store(data: Path) -> Iterator[SqlStore]:
    with closing(SqlStore.open(store_url(data))) as store:
        yield store


def opened(file: Path) -> closing[SqlStore]:
    return closing(SqlStore.open(f"sqlite:///{file}"))


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


# ---------------------------------------------------------------- putting one back


def test_what_was_there_is_kept_with_its_log_so_that_it_can_be_opened(
    settings: RunnerSettings, data: Path, tmp_path: Path
) -> None:
    with opened(data / "snakeline.db") as store:
        old = added(store)
        back_up(settings, tmp_path / "b.db")
        new = added(store)
        # As a killed service leaves it: the newest job is in the log alone.
        for suffix in ("", "-wal", "-shm"):
            (tmp_path / f"kept{suffix}").write_bytes((data / f"snakeline.db{suffix}").read_bytes())
    for suffix in ("", "-wal", "-shm"):
        (tmp_path / f"kept{suffix}").rename(data / f"snakeline.db{suffix}")
    done = restore(settings, tmp_path / "b.db")
    assert done.kept is not None
    assert sorted(path.name for path in data.iterdir() if path.name.startswith("snakeline.db")) == [
        "snakeline.db",
        Path(done.kept).name,
        f"{Path(done.kept).name}-wal",
    ]
    with opened(data / "snakeline.db") as store:
        assert [job.id for job in store.list(JobQuery()).items] == [old.id]
    with opened(Path(done.kept)) as store:
        assert [job.id for job in store.list(JobQuery()).items] == [new.id, old.id]


@pytest.mark.parametrize("jobs_in_the_backup", [0, 1])
def test_numbers_given_out_since_the_backup_are_not_given_out_again(
    settings: RunnerSettings, data: Path, tmp_path: Path, jobs_in_the_backup: int
) -> None:
    with opened(data / "snakeline.db") as store:
        for _ in range(jobs_in_the_backup):
            added(store)
        back_up(settings, tmp_path / "b.db")
        last = added(store)
        heard = store.events()[-1].seq
    restore(settings, tmp_path / "b.db")
    with opened(data / "snakeline.db") as store:
        next_one = added(store)
        assert next_one.seq > last.seq
        assert [event.job_id for event in store.events(after_seq=heard)] == [next_one.id]


def test_what_an_interrupted_restore_left_does_not_get_into_the_next(
    settings: RunnerSettings, data: Path, tmp_path: Path
) -> None:
    with opened(data / "snakeline.db") as store:
        job = added(store)
        back_up(settings, tmp_path / "b.db")
        added(store)
        log = (data / "snakeline.db-wal").read_bytes()
    for suffix in ("", "-wal", "-journal"):
        (data / f"snakeline.db.restoring{suffix}").write_bytes(log)
    restore(settings, tmp_path / "b.db")
    assert list(data.glob("*.restoring*")) == []
    with opened(data / "snakeline.db") as store:
        assert [found.id for found in store.list(JobQuery()).items] == [job.id]


def test_a_service_keeps_a_restore_out(settings: RunnerSettings, store: SqlStore, tmp_path: Path) -> None:
    added(store)
    back_up(settings, tmp_path / "b.db")
    with closing(DataDir(settings.data_dir)), pytest.raises(DataDirUnusable, match="in use"):
        restore(settings, tmp_path / "b.db")


def test_a_restore_keeps_a_service_out_while_it_lasts(
    settings: RunnerSettings, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(data / "snakeline.db") as store:
        added(store)
        back_up(settings, tmp_path / "b.db")
    seen: list[str] = []

    def examine(path: str) -> snapshot.Contents:
        with pytest.raises(DataDirUnusable):
            DataDir(settings.data_dir)
        seen.append(path)
        return real(path)

    real = snapshot.examine
    monkeypatch.setattr(snapshot, "examine", examine)
    restore(settings, tmp_path / "b.db")
    assert len(seen) == 1


@pytest.mark.parametrize("kind", ["garbage", "truncated", "empty", "foreign", "newer", "broken index"])
def test_what_is_no_backup_of_ours_changes_nothing(
    settings: RunnerSettings, data: Path, tmp_path: Path, kind: str
) -> None:
    with opened(data / "snakeline.db") as store:
        for _ in range(40):
            added(store, name="a name", parameters={"x": "y" * 1000})
        back_up(settings, tmp_path / "b.db")
    file = tmp_path / "b.db"
    spoil(file, kind)
    before = {path.name: path.read_bytes() for path in data.iterdir() if path.is_file()}
    with pytest.raises((BackupRefused, StoreUnavailable)) as caught:
        restore(settings, file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)
    after = {path.name: path.read_bytes() for path in data.iterdir() if path.is_file()}
    after.pop("lock")
    before.pop("lock", None)
    assert after == before


def spoil(file: Path, kind: str) -> None:
    if kind == "garbage":
        file.write_bytes(b"no database at all " * 5000)
    elif kind == "truncated":
        os.truncate(file, file.stat().st_size // 2)
    elif kind == "empty":
        os.truncate(file, 0)
    elif kind == "foreign":
        file.unlink()
        with closing(sqlite3.connect(file)) as other, other:
            other.execute("CREATE TABLE jobs (id)")
    elif kind == "newer":
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("UPDATE alembic_version SET version_num = '9999'")
    else:
        with closing(sqlite3.connect(file)) as other:
            [root] = other.execute("SELECT rootpage FROM sqlite_master WHERE name = 'jobs_id'").fetchone()
        content = bytearray(file.read_bytes())
        start = (root - 1) * 4096
        content[start : start + 4096] = content[start : start + 4096].replace(b"-7000-8000-", b"-7000-8001-")
        file.write_bytes(content)


_KILL_EVERYWHERE = """
import os, sys
from pathlib import Path
from runner.backup import restore
from runner.errors import StoreUnavailable
from runner.ports import JobQuery
from runner.stores.sql import SqlStore
from tests.support.runners import settings_for

data, backup = Path(sys.argv[1]), Path(sys.argv[2])
whole = {path: path.read_bytes() for path in data.iterdir() if path.name.startswith("snakeline.db")}
settings = settings_for(data)
calls = 0

def dying(name, last):
    real = getattr(os, name)
    def call(*arguments, **named):
        global calls
        calls += 1
        if calls == last:
            os._exit(9)
        return real(*arguments, **named)
    setattr(os, name, call)

def found():
    try:
        store = SqlStore.open(f"sqlite:///{data}/snakeline.db")
    except StoreUnavailable as error:
        return "refused" if "snakeline restore" in str(error) else str(error)
    total = store.list(JobQuery()).total
    store.close()
    return {2: "old", 1: "restored"}.get(total, f"{total} jobs")

code = None
while code != 0:
    calls += 1  # where the next one dies
    for path in data.iterdir():
        if path.name.startswith("snakeline.db"):
            path.unlink()
    for path, content in whole.items():
        path.write_bytes(content)
    pid = os.fork()
    if pid == 0:
        last, calls = calls, 0
        for name in ("rename", "unlink", "fsync"):
            dying(name, last)
        restore(settings, backup)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    first = found()
    restore(settings, backup)
    print(code, first, found(), sep=";")
"""


def test_a_restore_that_is_killed_anywhere_mixes_nothing_and_can_be_repeated(
    settings: RunnerSettings, data: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with opened(data / "snakeline.db") as store:
        added(store)
        back_up(settings, tmp_path / "b.db")
        added(store)
        # As a killed service leaves it: the newest job is in the log alone.
        whole = {path: path.read_bytes() for path in data.iterdir() if path.is_file()}
    for path, content in whole.items():
        path.write_bytes(content)
    shown = subprocess.run(
        [sys.executable, "-c", _KILL_EVERYWHERE, str(data), str(tmp_path / "b.db")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    deaths = [line.split(";") for line in shown.splitlines()]
    order = ["old", "refused", "restored"]
    first = [found for _, found, _ in deaths]
    assert [repeated for _, _, repeated in deaths] == ["restored"] * len(deaths)
    assert [code for code, _, _ in deaths] == ["9"] * (len(deaths) - 1) + ["0"]
    assert set(first) == set(order)
    assert first == sorted(first, key=order.index)
    numbers = f"a restore killed at {len(deaths) - 1} points: 0 mixtures, all repeated"
    record_property("numbers", numbers)
    print(numbers)  # noqa: T201 - told with -rA


def test_after_a_restore_jobs_are_what_their_files_say_and_nothing_runs_twice(
    tmp_path: Path, data: Path
) -> None:
    settings = settings_for(data, max_cores=1)
    hold = Hold(tmp_path)
    with contextlib.closing(RunningRunner(settings)) as runner:
        running = runner.submit(hold=hold.path)
        runner.wait_for(running, JobStatus.RUNNING)
        pending = runner.submit(exit_code=3)
        back_up(settings, tmp_path / "b.db")
        hold.release()
        assert runner.ended(running).status is JobStatus.COMPLETED
        ended = runner.ended(pending)
        unknown = runner.ended(runner.submit())
        marks = [os.stat(runner.job_dir(job) / "attempts/1/started") for job in (running, pending)]
    done = restore(settings, tmp_path / "b.db")
    assert done.unknown == 1
    assert (done.contents.jobs[JobStatus.RUNNING], done.contents.jobs[JobStatus.PENDING]) == (1, 1)
    with contextlib.closing(RunningRunner(settings)) as runner:
        assert runner.ended(running).status is JobStatus.COMPLETED
        again = runner.ended(pending)
        assert (again.exit_code, again.started_at) == (3, ended.started_at)
        assert [os.stat(runner.job_dir(job) / "attempts/1/started") for job in (running, pending)] == marks
        assert runner.job_dir(unknown).is_dir()
        wait_until(lambda: runner.service.counts()[JobStatus.RUNNING] == 0, what="nothing to run")


@pytest.mark.parametrize("url", ["memory://", "postgresql+psycopg://u:secret@h/d"])
def test_other_stores_are_refused_without_telling_their_secrets(tmp_path: Path, url: str) -> None:
    settings = settings_for(tmp_path, database_url=url)
    (tmp_path / "b.db").touch()
    for act in (lambda: back_up(settings, tmp_path / "c.db"), lambda: restore(settings, tmp_path / "b.db")):
        with pytest.raises(BackupRefused) as caught:
            act()
        assert "secret" not in str(caught.value)

"""Backups put back: nothing is mixed, and what was there is kept."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runner.backup import BackupRefused, back_up, restore
from runner.data_dir import DataDir
from runner.errors import DataDirUnusable, StoreUnavailable
from runner.job_store import JobQuery
from runner.jobs import JobStatus
from runner.stores.sql import SqlStore, snapshot
from tests.support.runners import Hold, RunningRunner, settings_for
from tests.support.stores import added, opened
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.settings import RunnerSettings

ROOT = Path(__file__).parents[2]


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
from runner.job_store import JobQuery
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


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it is about files of others")
@pytest.mark.parametrize("is_new_machine", [False, True])
def test_what_root_restores_belongs_to_whom_the_data_directory_belongs(
    settings: RunnerSettings, data: Path, tmp_path: Path, *, is_new_machine: bool
) -> None:
    with opened(data / "snakeline.db") as store:
        added(store)
        back_up(settings, tmp_path / "b.db")
        shutil.copy(data / "snakeline.db-wal", tmp_path / "log")
    shutil.copy(tmp_path / "log", data / "snakeline.db-wal")  # as a killed service leaves it
    if is_new_machine:
        shutil.rmtree(data)
        data.mkdir()
    for path in (data, *data.iterdir()):
        os.chown(path, 1234, 5678)
    restore(settings, tmp_path / "b.db")
    found = {path.name.split("-2")[0]: (path.stat().st_uid, path.stat().st_gid) for path in data.iterdir()}
    assert {"snakeline.db", "lock", "jobs"} <= set(found)
    assert ("snakeline.db.before-restore" in found) is not is_new_machine
    assert set(found.values()) == {(1234, 5678)}


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it is about files of others")
def test_root_gives_nothing_away_that_was_there_before(tmp_path: Path) -> None:
    data, secret = tmp_path / "data", tmp_path / "secret"
    secret.touch()
    data.mkdir()
    (data / "lock").symlink_to(secret)
    os.chown(data, 1234, 5678)
    DataDir(data).close()
    assert secret.stat().st_uid == 0

"""A store of every earlier revision is copied, then upgraded; cut short anywhere, the next start goes on.

`tests/stores` holds stores as the releases themselves have written them: see tests/support/store_dumps.py.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import stat
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from alembic import command

from runner.errors import StoreUnavailable
from runner.job_store import IdempotencyKey, JobQuery
from runner.jobs import JobStatus
from runner.stores.sql import SqlStore, upgrade_copies
from runner.stores.sql.condition import condition_of
from runner.stores.sql.schema import REVISION
from tests.support.mounts import small_disk
from tests.support.power_cut import PowerCutDisk
from tests.support.releases import RELEASES
from tests.support.store_dumps import DUMPS, dump, load
from tests.support.stores import a_job, opened

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

REVISIONS = sorted(path.stem for path in DUMPS.glob("*.sql"))
MADE_ANEW = {"alembic_version", "job_counts", "sqlite_sequence"}


def old_store(directory: Path, revision: str) -> Path:
    store = directory / "snakeline.db"
    load(DUMPS / f"{revision}.sql", store)
    return store


def rows(store: Path, columns: dict[str, list[str]] | None = None) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, of its own columns or of these."""
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as connection:
        wanted = columns or columns_of(store)
        return {
            table: sorted(connection.execute(f"SELECT {', '.join(names)} FROM {table}"), key=repr)
            for table, names in wanted.items()
        }


def columns_of(store: Path) -> dict[str, list[str]]:
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            table: [f'"{row[1]}"' for row in connection.execute(f"PRAGMA table_info({table})")]
            for table in tables
            if table not in MADE_ANEW and not table.startswith("job_names")
        }


def revision_of(store: Path) -> str:
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as connection:
        return str(connection.execute("SELECT version_num FROM alembic_version").fetchone()[0])


def copies(store: Path) -> list[Path]:
    return sorted(store.parent.glob("snakeline.db.before-upgrade*"))


def refused(store: Path) -> str:
    with pytest.raises(StoreUnavailable) as caught:
        SqlStore.open(f"sqlite:///{store}")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_there_is_a_store_of_every_release() -> None:
    assert set(RELEASES) == set(REVISIONS)


@pytest.mark.parametrize("revision", REVISIONS)
def test_every_row_of_an_older_store_is_there_after_the_upgrade(tmp_path: Path, revision: str) -> None:
    store = old_store(tmp_path, revision)
    columns, before = columns_of(store), rows(store)
    assert len(before["jobs"]) == 7
    with opened(store) as upgraded:
        page = upgraded.list(JobQuery(limit=50))
        assert len(page.items) == page.total == 7
        assert {job.tenant for job in page.items} == {"default"}
        first = upgraded.get(page.items[-1].id)
        assert (first.spec.name, first.spec.labels) == (
            "Grüße aus dem Labor",
            {"project": "ä-1", "run": "7"},
        )
    after = rows(store, columns)
    facts = after.pop("store_facts")  # the upgrade adds some
    assert set(before.pop("store_facts")) <= set(facts)
    assert after == before
    assert revision_of(store) == REVISION


@pytest.mark.parametrize("revision", REVISIONS)
def test_an_upgraded_store_counts_finds_and_goes_on(tmp_path: Path, revision: str) -> None:
    with opened(old_store(tmp_path, revision)) as store:
        assert store.counts() == {
            JobStatus.COMPLETED: 1,
            JobStatus.FAILED: 2,
            JobStatus.CANCELLED: 1,
            JobStatus.RUNNING: 1,
            JobStatus.PENDING: 2,
        }
        for query, names in (
            (JobQuery(q="GRÜSSE"), ["Grüße aus dem Labor"]),
            (JobQuery(q="wai"), ["waits"]),
            (JobQuery(labels=(("run", "7"),)), [None, "Grüße aus dem Labor"]),
            (JobQuery(statuses=(JobStatus.PENDING,)), ["urgent", "waits"]),
        ):
            assert [job.spec.name for job in store.list(query).items] == names
        assert [job.spec.name for job in store.list(JobQuery(q="wait", tenant="another")).items] == []
        waits = store.get(store.list(JobQuery(q="waits")).items[0].id)
        with closing(sqlite3.connect(tmp_path / "snakeline.db")) as connection:
            sql = "SELECT idempotency_key, idempotency_fingerprint FROM jobs WHERE id = ?"
            key, fingerprint = connection.execute(sql, (waits.id,)).fetchone()
        again = store.add(a_job(), key=IdempotencyKey(key, fingerprint)).result(10)
        assert again.job == waits
        store.add(a_job(name="new")).result(10)
    assert condition_of(str(tmp_path / "snakeline.db")).kind == "whole"


def test_keys_quotas_and_the_audit_are_there_after_the_upgrade(tmp_path: Path) -> None:
    with opened(old_store(tmp_path, "0004")) as store:
        assert [(key.name, key.tenant) for key in list(store.keys())] == [("lims", "lab")]
        assert store.quotas()["lab"].max_cores == 4


# ---------------------------------------------------------------- the copy


@pytest.mark.parametrize("revision", REVISIONS)
def test_an_upgrade_leaves_a_copy_of_the_store_as_it_was(tmp_path: Path, revision: str) -> None:
    store = old_store(tmp_path, revision)
    before = list(dump(store))
    with opened(store) as upgraded:
        made = upgraded.copy_before_upgrade
    assert made is not None
    assert [str(path) for path in copies(store)] == [made]
    assert made.startswith(f"{store}.before-upgrade-from-{revision}-{datetime.now(UTC):%Y}")
    assert stat.S_IMODE(os.stat(made).st_mode) == 0o600
    shutil.copy(made, tmp_path / "restored.db")
    assert list(dump(tmp_path / "restored.db")) == before
    with opened(store) as again:
        assert again.copy_before_upgrade is None
    assert len(copies(store)) == 1


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it is about files of others")
def test_a_copy_that_root_makes_belongs_to_whom_the_store_belongs(tmp_path: Path) -> None:
    store = old_store(tmp_path, "0002")
    os.chown(store, 1234, 5678)
    SqlStore.open(f"sqlite:///{store}").close()
    [copy] = copies(store)
    assert (copy.stat().st_uid, copy.stat().st_gid) == (1234, 5678)


def test_the_three_newest_copies_stay(tmp_path: Path) -> None:
    store = old_store(tmp_path, "0001")
    name = f"{store}.before-upgrade-from-0001-2026010{{}}T000000.000000Z"
    for day in range(1, 5):
        (tmp_path / name.format(day)).write_text("a store of that day")
    with opened(store) as upgraded:
        made = upgraded.copy_before_upgrade
    assert [str(path) for path in copies(store)] == [name.format(3), name.format(4), made]


def test_a_new_copy_stays_when_the_clock_was_set_back(tmp_path: Path) -> None:
    store = old_store(tmp_path, "0001")
    for day in range(1, 5):
        (tmp_path / f"{store.name}.before-upgrade-from-0001-2999010{day}T000000.000000Z").write_text("later")
    with opened(store) as upgraded:
        made = upgraded.copy_before_upgrade
    assert str(copies(store)[0]) == made
    assert len(copies(store)) == upgrade_copies.KEPT


def test_starts_that_fail_again_and_again_leave_one_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = old_store(tmp_path, "0001")

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(command, "upgrade", fail)
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                SqlStore.open(f"sqlite:///{store}")
    [kept] = copies(store)
    with opened(store) as upgraded:
        assert upgraded.copy_before_upgrade == str(kept)
    with closing(sqlite3.connect(store)) as connection:  # what another store holds is another copy
        connection.execute("UPDATE alembic_version SET version_num = 'x'")
    store.unlink()
    with closing(sqlite3.connect(old_store(tmp_path, "0001"))) as connection, connection:
        connection.execute("UPDATE jobs SET name = 'changed' WHERE seq = 1")
    SqlStore.open(f"sqlite:///{store}").close()
    assert len(copies(store)) == 2


def test_a_store_that_cannot_be_copied_is_not_upgraded(tmp_path: Path) -> None:
    store = old_store(tmp_path, "0002")
    (tmp_path / "snakeline.db.before-upgrade.partial").mkdir()
    said = refused(store)
    assert "cannot be copied before: Is a directory" in said
    assert "snakeline upgrade --copy FILE" in said
    assert revision_of(store) == "0002"


def test_a_damaged_store_is_not_upgraded(tmp_path: Path) -> None:
    store = old_store(tmp_path, "0002")
    with closing(sqlite3.connect(store)) as connection:
        page, size = (
            connection.execute(sql).fetchone()[0]
            for sql in ("SELECT rootpage FROM sqlite_master WHERE name = 'jobs_status'", "PRAGMA page_size")
        )
    with store.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * 64)
    assert f"The store {store} is damaged" in refused(store)
    assert copies(store) == []
    assert revision_of(store) == "0002"


@pytest.mark.root
def test_without_room_for_the_copy_a_store_is_not_upgraded(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        store = old_store(disk, "0002")
        before = list(dump(store))
        (disk / "snakeline.db.before-upgrade.partial").write_text("of a start that was cut short")
        for said in (refused(store), examined(store)):
            assert "MiB of its disk, where" in said
            assert "Make room, or have the copy elsewhere with `snakeline upgrade --copy FILE`" in said
        assert list(dump(store)) == before
        assert copies(store) == []


def examined(store: Path) -> str:
    with pytest.raises(StoreUnavailable) as caught:
        SqlStore.examine(f"sqlite:///{store}")
    return str(caught.value)


def test_who_finds_a_newer_store_is_told_of_the_copy_from_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = old_store(tmp_path, "0002")
    SqlStore.open(f"sqlite:///{store}").close()
    with closing(sqlite3.connect(store)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    said = refused(store)
    assert "newer Snakeline (revision 9999" in said
    assert f"start that version, or go back with `snakeline restore {copies(store)[0]}`" in said
    copies(store)[0].unlink()
    assert said.partition(", or go back")[0] in refused(store)


# ---------------------------------------------------------------- cut short


def in_child(store: Path, *, end_at: int | None) -> int:
    """Open the store in a process of its own, which SIGKILLs itself before its statement `end_at`.

    The number of statements that it came to, of all its connections.
    """
    told, telling = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(telling, json.dumps(_counted(store, end_at)).encode())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(telling)
    with open(told, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(pid, 0)
    if end_at is not None:
        assert (os.WIFSIGNALED(status), os.WTERMSIG(status)) == (True, signal.SIGKILL)
        return end_at
    return int(json.loads(said))


def _counted(store: Path, end_at: int | None) -> int:
    count = 0
    connect: Callable[..., sqlite3.Connection] = sqlite3.connect

    def before(_statement: str) -> None:
        nonlocal count
        if count == end_at:
            signal.raise_signal(signal.SIGKILL)
        count += 1

    def traced(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection = connect(*args, **kwargs)
        connection.set_trace_callback(before)
        return connection

    sqlite3.connect = traced  # type: ignore[assignment]
    SqlStore.open(f"sqlite:///{store}").close()
    return count


def assert_upgraded(store: Path, before: dict[str, list[tuple[Any, ...]]], columns: Any) -> None:
    with opened(store) as again:
        assert len(again.list(JobQuery(limit=50)).items) == 7
    after = rows(store, columns)
    assert after["jobs"] == before["jobs"]
    assert after["job_events"] == before["job_events"]
    assert revision_of(store) == REVISION
    assert condition_of(str(store)).kind == "whole"
    [copy] = copies(store)
    assert rows(copy) == before


@pytest.mark.parametrize(
    "step", [pytest.param(7, id="a seventh"), pytest.param(1, id="all", marks=pytest.mark.soak)]
)
def test_after_a_kill_at_any_statement_of_an_upgrade_the_next_start_goes_on(
    tmp_path: Path, step: int
) -> None:
    (tmp_path / "whole").mkdir()
    whole = old_store(tmp_path / "whole", REVISIONS[0])
    columns, before = columns_of(whole), rows(whole)
    shutil.copy(whole, tmp_path / "template.db")
    statements = in_child(whole, end_at=None)
    assert statements > 40
    assert_upgraded(whole, before, columns)
    # The last ones are the commit and what follows it.
    for number in {*range(0, statements, step), *range(statements - 6, statements)}:
        directory = tmp_path / str(number)
        directory.mkdir()
        store = directory / "snakeline.db"
        shutil.copy(tmp_path / "template.db", store)
        in_child(store, end_at=number)
        assert_upgraded(store, before, columns)
        shutil.rmtree(directory)


@pytest.mark.root
@pytest.mark.parametrize("share", [0.5, 0.9, None])
def test_after_a_power_cut_an_upgrade_goes_on_or_is_done(tmp_path: Path, share: float | None) -> None:
    """At half of its statements it changes tables, at nine tenths it is about to commit."""
    whole = old_store(tmp_path, REVISIONS[0])
    columns, before = columns_of(whole), rows(whole)
    shutil.copy(whole, tmp_path / "template.db")
    statements = in_child(whole, end_at=None)
    with PowerCutDisk(tmp_path / "disk") as disk:
        store = disk.folder / "snakeline.db"
        shutil.copy(tmp_path / "template.db", store)
        disk.settle()
        in_child(store, end_at=None if share is None else int(statements * share))
        disk.cut()
        disk.restore()
        if share is None:
            assert revision_of(store) == REVISION
        [copy] = copies(store)
        assert rows(copy) == before
        assert_upgraded(store, before, columns)

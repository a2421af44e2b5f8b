"""What the durable store promises beyond the contract: commits, crashes, troubles of the disk, opening."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory

from runner.errors import StorageFull, StoreUnavailable
from runner.jobs import Change, JobStatus, claimed
from runner.ports import IdempotencyKey, JobQuery, Update
from runner.stores.sql import SqlStore, sqlite
from runner.stores.sql.schema import METADATA, REVISION
from tests.support.stores import NOON, a_job, added, store_url
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runner.jobs import JobEvent

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    store = SqlStore.open(store_url(tmp_path))
    yield store
    store.close()


class Gate:
    """An on_commit that holds the writer until it is opened, and remembers the size of each group."""

    def __init__(self) -> None:
        self.groups: list[int] = []
        self.open = threading.Event()

    def __call__(self, events: Sequence[JobEvent]) -> None:
        self.groups.append(len(events))
        self.open.wait(10)


# ---------------------------------------------------------------- commits


def test_a_future_resolves_only_after_its_commit(store: SqlStore, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "snakeline.db", check_same_thread=False)) as other:
        seen: list[bool] = []

        def look(job_id: str, _: object) -> None:
            seen.append(other.execute("SELECT 1 FROM jobs WHERE id = ?", (job_id,)).fetchone() is not None)

        jobs = [a_job() for _ in range(20)]
        futures = [store.add(job) for job in jobs]
        for job, future in zip(jobs, futures, strict=True):
            future.add_done_callback(partial(look, job.id))
        for future in futures:
            future.result(10)
        wait_until(lambda: len(seen) == 20, what="every callback")
        assert all(seen)


def test_what_waits_while_a_group_is_written_is_committed_together(tmp_path: Path) -> None:
    gate = Gate()
    store = SqlStore.open(store_url(tmp_path), on_commit=gate)
    added(store)
    futures = [store.add(a_job()) for _ in range(50)]
    assert not any(future.done() for future in futures)
    gate.open.set()
    store.close()
    assert gate.groups == [1, 50]
    assert all(future.result().job.seq for future in futures)


def test_a_caller_that_gave_up_before_the_write_leaves_nothing(tmp_path: Path) -> None:
    gate = Gate()
    store = SqlStore.open(store_url(tmp_path), on_commit=gate)
    added(store)
    given_up, kept = store.add(a_job()), store.add(a_job())
    assert given_up.cancel()
    gate.open.set()
    assert kept.result(10).replayed is False
    assert store.list(JobQuery()).total == 2
    store.close()


def test_every_commit_is_synced_to_the_disk_by_every_connection_that_writes(store: SqlStore) -> None:
    added(store)
    connection = store._writer._connection
    assert connection is not None
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA foreign_keys").fetchone() == (1,)
    with store._reading() as reader, pytest.raises(sqlite3.OperationalError):
        reader.execute("DELETE FROM jobs")


_ADD_FOREVER = """
import sys, threading
from datetime import UTC, datetime
from runner.jobs import Job, JobSpec, JobStatus
from runner.ports import IdempotencyKey
from runner.stores.sql import SqlStore
store = SqlStore.open(sys.argv[1])
lock = threading.Lock()
def add(thread):
    for i in range(1_000_000):
        now = datetime.now(UTC)
        job = Job(id=f"{thread}-{i}", spec=JobSpec(name=f"job {thread} {i}", labels={"t": str(thread)}),
                  status=JobStatus.PENDING, engine="mock", created_at=now, updated_at=now)
        done = store.add(job, key=IdempotencyKey(job.id, "f")).result().job
        with lock:
            sys.stdout.write(f"{done.id}\\n")
            sys.stdout.flush()
for thread in range(4):
    threading.Thread(target=add, args=(thread,), daemon=True).start()
threading.Event().wait()
"""


def test_every_job_acknowledged_before_a_kill_is_there_after_it(tmp_path: Path) -> None:
    url = store_url(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", _ADD_FOREVER, url], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        acknowledged = [process.stdout.readline().strip() for _ in range(300)]
        process.kill()
        acknowledged += [line.strip() for line in process.stdout if line.endswith("\n")]
    store = SqlStore.open(url)
    stored = {store.get(job_id).id for job_id in acknowledged}
    assert len(stored) == len(acknowledged) >= 300
    page = store.list(JobQuery(limit=1))
    assert (
        page.total == store.counts()[JobStatus.PENDING] == len(store.events(limit=1_000_000)) >= len(stored)
    )
    assert store.list(JobQuery(q="job ", limit=1)).total == page.total
    assert store.add(a_job(), key=IdempotencyKey(acknowledged[0], "f")).result(10).replayed is True
    store.close()


def test_everything_is_as_it_was_after_opening_again(tmp_path: Path) -> None:
    store = SqlStore.open(store_url(tmp_path))
    job = added(store, name="sample", labels={"a": "b"}, parameters={"x": 0.1})
    gone = added(store)
    running = claimed(job, NOON)
    store.update([Update(job, running, Change.CLAIMED)]).result(10)
    store.delete(gone).result(10)
    before = (store.list(JobQuery()), store.counts(), store.events())
    store.close()
    store = SqlStore.open(store_url(tmp_path))
    assert (store.list(JobQuery()), store.counts(), store.events()) == before
    assert store.running() == [running]
    assert store.list(JobQuery(q="amp", labels=(("a", "b"),))).items == (running,)
    assert added(store).seq > gone.seq
    store.close()


# ---------------------------------------------------------------- troubles of the disk


def test_a_full_disk_refuses_the_job_and_heals_without_a_restart(store: SqlStore) -> None:
    job = added(store)
    connection = store._writer._connection
    assert connection is not None
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages + 5}")
    big = [store.add(a_job(parameters={"x": "y" * 100_000}, labels={"a": "b"})) for _ in range(3)]
    assert [type(future.exception(10)) for future in big] == [StorageFull] * 3
    assert store.list(JobQuery()).total == 1
    assert store.list(JobQuery(labels=(("a", "b"),))).total == 0
    running = claimed(job, NOON)
    assert store.update([Update(job, running, Change.CLAIMED)]).result(10) == [running]
    connection.execute("PRAGMA max_page_count = 1000000")
    assert added(store, parameters={"x": "y" * 100_000}).seq > job.seq
    store.check()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_file_system_without_room_is_told_as_full_and_heals(tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(mount)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("this machine lets nobody mount a file system")
    try:
        store = SqlStore.open(store_url(mount))
        added(store)
        ballast = mount / "ballast"
        with pytest.raises(OSError, match="space"):
            ballast.write_bytes(b"\0" * 2**22)
        with pytest.raises(StorageFull):
            added(store, parameters={"x": "y" * 400_000})
        assert store.list(JobQuery()).total == 1
        ballast.unlink()
        added(store)
        assert store.list(JobQuery()).total == 2
        store.close()
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)


def test_a_locked_database_is_unavailable_until_it_is_free_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "_BUSY_TIMEOUT_S", 0.1)
    store = SqlStore.open(store_url(tmp_path))
    job = added(store)
    with closing(sqlite3.connect(tmp_path / "snakeline.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable):
            added(store)
        with pytest.raises(StoreUnavailable):
            store.check()
        assert store.get(job.id) == job
        assert store.list(JobQuery()).total == 1
        other.execute("ROLLBACK")
    store.check()
    assert added(store).seq > job.seq
    store.close()


def test_reads_answer_while_another_process_holds_the_database_for_writing(
    store: SqlStore, tmp_path: Path
) -> None:
    job = added(store)
    with closing(sqlite3.connect(tmp_path / "snakeline.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with ThreadPoolExecutor(16) as threads:
            answers = list(
                threads.map(lambda _: (store.get(job.id), store.list(JobQuery()).total), range(64))
            )
        other.execute("ROLLBACK")
    assert answers == [(job, 1)] * 64


def test_a_broken_connection_is_replaced_for_the_next_write(store: SqlStore) -> None:
    job = added(store)
    assert store._writer._connection is not None
    store._writer._connection.close()
    assert store.add(a_job()).exception(10) is not None
    assert added(store).seq > job.seq
    assert store.list(JobQuery()).total == 2


def test_a_database_removed_while_in_use_is_not_replaced_by_an_empty_one(
    store: SqlStore, tmp_path: Path
) -> None:
    added(store)
    store._writer._disconnect()
    store._file.close_readers()
    for file in tmp_path.iterdir():
        file.unlink()
    with pytest.raises(StoreUnavailable):
        store.check()
    with pytest.raises(StoreUnavailable):
        store.counts()
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- opening


def refused(url: str) -> str:
    with pytest.raises(StoreUnavailable) as caught:
        SqlStore.open(url)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 300
    return text


def test_a_store_of_a_newer_program_is_left_alone(tmp_path: Path) -> None:
    SqlStore.open(store_url(tmp_path)).close()
    with closing(sqlite3.connect(tmp_path / "snakeline.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    text = refused(store_url(tmp_path))
    assert "newer Snakeline" in text
    assert "9999" in text
    assert REVISION in text


@pytest.mark.parametrize("content", [b"this is no database at all, " * 100, b"\0" * 8192])
def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "snakeline.db"
    file.write_bytes(content)
    assert "not a database" in refused(store_url(tmp_path))
    assert file.read_bytes() == content


def test_a_truncated_database_is_refused(tmp_path: Path) -> None:
    SqlStore.open(store_url(tmp_path)).close()
    file = tmp_path / "snakeline.db"
    file.write_bytes(file.read_bytes()[: 4096 * 3])
    assert "damaged" in refused(store_url(tmp_path))


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "snakeline.db"
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE jobs (id)")
    content = file.read_bytes()
    assert "another program" in refused(store_url(tmp_path))
    assert file.read_bytes() == content


def test_a_place_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    assert "no directory" in refused(f"sqlite:///{tmp_path}/missing/snakeline.db")
    assert "writable" in refused("sqlite:////proc/self/snakeline.db")
    assert refused(f"sqlite:///{tmp_path}")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "sqlite://",
        "sqlite:///:memory:",
        "mysql://u:secret@h/d",
        "postgresql+psycopg://u:secret@h/d",
    ],
)
def test_a_url_that_names_no_file_is_refused_without_telling_its_secrets(url: str) -> None:
    assert "secret" not in refused(url)


def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    (tmp_path / "snakeline.db").touch()
    store = SqlStore.open(store_url(tmp_path))
    added(store)
    store.close()


def test_a_path_with_odd_characters_is_taken_as_it_is(tmp_path: Path) -> None:
    directory = tmp_path / "a b%20c #1?x=y é"
    directory.mkdir()
    file = sqlite.SqliteFile(str(directory / "s.db"))
    with closing(file.open(create=True)) as connection:
        connection.execute("CREATE TABLE t (a)")
    assert [path.name for path in directory.iterdir()] == ["s.db"]


def test_several_services_that_start_at_once_migrate_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as threads:
        stores = list(threads.map(lambda _: SqlStore.open(store_url(tmp_path)), range(4)))
    job = added(stores[0])
    for store in stores:
        assert store.get(job.id) == job
        store.close()


def test_a_failed_migration_leaves_nothing_half_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("alembic.command.upgrade", _upgrade_and_fail)
        with pytest.raises(ZeroDivisionError):
            SqlStore.open(store_url(tmp_path))
    with closing(sqlite3.connect(tmp_path / "snakeline.db")) as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    store = SqlStore.open(store_url(tmp_path))
    added(store)
    store.close()


def _upgrade_and_fail(config: object, revision: str) -> None:
    scripts = ScriptDirectory.from_config(config)  # type: ignore[arg-type]
    assert scripts.get_current_head() == REVISION
    connection = config.attributes["connection"]  # type: ignore[attr-defined]
    connection.exec_driver_sql("CREATE TABLE half (done)")
    raise ZeroDivisionError


def test_the_migrations_make_the_tables_that_the_statements_are_written_for(tmp_path: Path) -> None:
    def schema(path: Path) -> dict[str, str]:
        with closing(sqlite3.connect(path)) as connection:
            rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
        return {
            name: " ".join(sql.split())
            for name, sql in rows
            if not name.startswith(("job_names", "alembic_", "sqlite_"))
        }

    SqlStore.open(store_url(tmp_path)).close()
    engine = sa.create_engine(f"sqlite:///{tmp_path}/metadata.db")
    METADATA.create_all(engine)
    engine.dispose()
    assert schema(tmp_path / "snakeline.db") == schema(tmp_path / "metadata.db")


def test_an_installed_package_finds_its_migrations_and_reads_no_ini_file(tmp_path: Path) -> None:
    site = tmp_path / "site"
    shutil.copytree(ROOT / "runner", site / "runner", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "alembic.ini").write_text(
        "[alembic]\nscript_location = /nowhere\n[loggers]\nkeys = nonsense\n"
    )
    (tmp_path / "pyproject.toml").write_text('[tool.alembic]\nscript_location = "/nowhere"\n')
    script = (
        f"import sys, logging; sys.path.insert(0, {str(site)!r})\n"
        "from runner.stores.sql import SqlStore\n"
        "import runner; assert runner.__path__[0].startswith(sys.path[0]), runner.__path__\n"
        f"SqlStore.open({store_url(tmp_path)!r}).close()\n"
        "assert not logging.getLogger().handlers\n"
        "assert logging.getLogger('alembic').level == logging.NOTSET\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "snakeline.db").exists()

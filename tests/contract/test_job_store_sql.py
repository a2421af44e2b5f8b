"""What the durable store promises beyond the contract: commits, crashes, troubles of the disk."""

from __future__ import annotations

import os
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

from runner.errors import StorageFull, StoreUnavailable
from runner.job_store import IdempotencyKey, JobQuery, Update
from runner.jobs import Change, JobStatus, claimed
from runner.stores.sql import SqlStore, sqlite
from tests.support.stores import NOON, a_job, added, new_store, store_url
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runner.job_store import Order
    from runner.jobs import JobEvent

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    store = new_store(tmp_path)
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
    store = new_store(tmp_path, on_commit=gate)
    added(store)
    futures = [store.add(a_job()) for _ in range(50)]
    assert not any(future.done() for future in futures)
    gate.open.set()
    store.close()
    assert gate.groups == [1, 50]
    assert all(future.result().job.seq for future in futures)


def test_a_caller_that_gave_up_before_the_write_leaves_nothing(tmp_path: Path) -> None:
    gate = Gate()
    store = new_store(tmp_path, on_commit=gate)
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
from runner.job_store import IdempotencyKey
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


# ---------------------------------------------------------------- how much is read at a time


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_a_page_of_very_large_jobs_ends_early(store: SqlStore, order: Order) -> None:
    sizes = [2**20, 10, 3 * 2**20, 10, 10, 5 * 2**20, 10, 2**20]
    jobs = [added(store, targets=("x" * size,)) for size in sizes]
    found: list[str] = []
    pages = []
    page = store.list(JobQuery(limit=6, order=order))
    while True:
        pages.append([len(job.spec.targets[0]) for job in page.items])
        found += [job.id for job in page.items]
        assert page.total == 8
        if not page.has_more:
            break
        page = store.list(JobQuery(limit=6, order=order, after_seq=page.items[-1].seq))
    assert found == [job.id for job in (jobs if order == "asc" else reversed(jobs))]
    assert all(len(sizes) == 1 or sum(sizes) <= 4 * 2**20 for sizes in pages)
    assert len(pages) == 4

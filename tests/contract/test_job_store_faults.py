"""What becomes of the durable store's promises when the disk below it fails."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runner.errors import StoreUnavailable
from runner.job_store import JobQuery, Update
from runner.jobs import Change, JobStatus, claimed
from runner.stores.sql import SqlStore
from runner.stores.sql.condition import condition_of
from tests.support.stores import NOON, a_job, added, new_store, store_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
DRIVER = ROOT / "tests/support/store_driver.py"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    with closing(new_store(tmp_path)) as store:
        yield store


# ---------------------------------------------------------------- the disk does not take what was written


SYNCS = "fsync,fdatasync"


def driven(
    directory: Path, calls: str, faults: str, *options: str, must_fail: bool = True
) -> dict[str, set[str]] | None:
    """What the driver said of its 12 jobs while the kernel failed those system calls as `faults` says.

    None, unless it `must_fail`, when there were not as many calls.
    """
    SqlStore.open(store_url(directory)).close()  # the faults are counted from here on
    trace = directory / "trace"
    done = subprocess.run(
        [
            *("strace", "-f", "-o", str(trace), "-e", f"trace={calls}"),
            *("-e", f"inject={calls}:{faults}"),
            *(f"-P{directory}/snakeline.db{suffix}" for suffix in ("", "-wal", "-shm")),
            *(sys.executable, str(DRIVER), store_url(directory), "12", *options),
        ],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": os.defpath},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    told_of = trace.read_text() if trace.exists() else ""
    if "+++" not in told_of:
        pytest.skip(f"this machine lets nobody trace a process: {done.stderr.strip()[-200:]}")
    if "INJECTED" not in told_of:
        assert not must_fail, "nothing failed"
        return None
    told: dict[str, set[str]] = {"stored": set(), "failed": set()}
    for line in done.stdout.splitlines()[1:]:
        word, job_id = line.split()
        told[word].add(job_id)
    return told


@pytest.mark.skipif(shutil.which("strace") is None, reason="failing a system call needs strace")
@pytest.mark.parametrize(
    ("calls", "faults", "options"),
    [
        # The transaction that could not be synced stands in the log, whole, when the process dies.
        (SYNCS, "error=EIO:when=5", ("--die", "--readers")),
        (SYNCS, "error=EIO:when=5", ("--die",)),
        # Nothing can be synced any more, and no other connection keeps the log's index.
        (SYNCS, "error=EIO:when=5+", ()),
        (SYNCS, "error=EIO:when=5+", ("--readers",)),
        # Nor can the failed transaction be overwritten at once.
        (SYNCS, "error=EIO:when=5..9", ("--no-burial",)),
        # The disk recovers.
        (SYNCS, "error=EIO:when=5..8", ()),
        ("pwrite64", "error=EROFS:when=60..66", ("--readers",)),
    ],
)
def test_what_was_said_to_be_stored_is_there_and_what_failed_is_not_when_the_disk_fails(
    tmp_path: Path,
    calls: str,
    faults: str,
    options: tuple[str, ...],
    record_property: Callable[[str, object], None],
) -> None:
    told = driven(tmp_path, calls, faults, *options)
    assert told is not None
    assert told["stored"]
    assert told["failed"]
    assert_true(told, tmp_path)
    if ".." in faults:
        assert "job-11" in told["stored"], "it goes on by itself"
    numbers = f"{faults}: {len(told['stored'])} jobs stored, {len(told['failed'])} refused, 0 lost, 0 wrong"
    record_property("numbers", numbers)
    print(numbers)  # noqa: T201 - told with -rA


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.skipif(shutil.which("strace") is None, reason="failing a system call needs strace")
@pytest.mark.parametrize("options", [("--readers",), ("--die",)])
@pytest.mark.parametrize("error", ["EIO", "ENOSPC", "EROFS"])
@pytest.mark.parametrize("calls", [SYNCS, "pwrite64,ftruncate", "pread64"])
def test_each_system_call_of_the_store_may_fail_once(
    tmp_path: Path,
    calls: str,
    error: str,
    options: tuple[str, ...],
    record_property: Callable[[str, object], None],
) -> None:
    cases = failures = 0
    for when in range(1, 200, 1 if calls == SYNCS else 7):
        directory = tmp_path / str(when)
        directory.mkdir()
        told = driven(directory, calls, f"error={error}:when={when}", *options, must_fail=False)
        if told is None:
            break
        assert_true(told, directory)
        cases += 1
        failures += len(told["failed"])
    assert cases > 3
    numbers = (
        f"{cases} times a call of {calls} failed with {error}: {failures} jobs refused, 0 lost, 0 stored"
    )
    record_property("numbers", numbers)
    print(numbers)  # noqa: T201 - told with -rA


def assert_true(told: dict[str, set[str]], directory: Path) -> None:
    with closing(SqlStore.open(store_url(directory))) as store:
        found = {job.id for job in store.list(JobQuery(limit=500)).items}
        assert told["stored"] <= found, "lost"
        assert not told["failed"] & found, "said to have changed nothing"
        assert store.counts()[JobStatus.PENDING] == len(found) == len(store.events(limit=500))
        added(store)
    assert condition_of(f"{directory}/snakeline.db").kind == "whole"


# ---------------------------------------------------------------- the disk becomes read-only


@pytest.fixture
def ext4(tmp_path: Path) -> Iterator[Path]:
    """A small ext4 on a loop device, which an error makes read-only."""
    image, mount = tmp_path / "image", tmp_path / "mount"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(32 * 2**20)
    if shutil.which("mkfs.ext4") is None or not mounted(image, mount, format_it=True):
        pytest.skip("a file system of one's own needs root, mkfs.ext4 and loop devices")
    yield mount
    while subprocess.run(["umount", "-l", str(mount)], capture_output=True, check=False).returncode == 0:
        pass


def mounted(image: Path, mount: Path, *, format_it: bool = False) -> bool:
    commands = [["mkfs.ext4", "-q", "-E", "lazy_itable_init=0", str(image)]] if format_it else []
    commands += [["mount", "-o", "loop,errors=remount-ro", str(image), str(mount)]]
    return all(subprocess.run(c, capture_output=True, check=False).returncode == 0 for c in commands)


@pytest.mark.root
def test_a_store_on_a_disk_that_becomes_read_only_says_so_and_loses_nothing(
    ext4: Path, tmp_path: Path
) -> None:
    with closing(SqlStore.open(store_url(ext4))) as store:
        job = added(store)
        subprocess.run(["mount", "-o", "remount,abort", str(ext4)], check=True)
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                added(store)
            with pytest.raises(StoreUnavailable):
                store.check()
        assert store.get(job.id) == job
    subprocess.run(["umount", str(ext4)], check=True)
    assert mounted(tmp_path / "image", ext4)
    with closing(SqlStore.open(store_url(ext4))) as store:
        assert [found.id for found in store.list(JobQuery()).items] == [job.id]
        added(store)


# ---------------------------------------------------------------- the file is not what it was


def test_a_store_that_becomes_unreadable_is_unavailable_until_it_is_good_again(
    store: SqlStore, tmp_path: Path
) -> None:
    jobs = [added(store, name="n", parameters={"x": "y" * 3000}) for _ in range(40)]
    file = tmp_path / "snakeline.db"
    with closing(sqlite3.connect(file)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    good = file.read_bytes()
    overwrite(file, b"\xa5" * len(good))
    with pytest.raises(StoreUnavailable, match=r"damaged.*snakeline restore"):
        assert [store.get(job.id) for job in jobs] == jobs
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            added(store)
        with pytest.raises(StoreUnavailable):
            store.check()
    overwrite(file, good)
    store.check()
    assert [store.get(job.id) for job in jobs] == jobs
    assert added(store).seq > jobs[-1].seq


def test_damage_that_a_reader_met_is_told_by_the_check_until_it_is_repaired(
    store: SqlStore, tmp_path: Path
) -> None:
    jobs = [added(store, parameters={"x": "y" * 3000}) for _ in range(40)]
    file = tmp_path / "snakeline.db"
    with closing(sqlite3.connect(file)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        [page] = other.execute(
            "SELECT pageno FROM dbstat WHERE name = 'job_specs' ORDER BY pageno LIMIT 1 OFFSET 9"
        ).fetchone()
    good = file.read_bytes()
    store.check()
    overwrite(file, good[: (page - 1) * 4096] + b"\xa5" * 4096 + good[page * 4096 :])
    store._file.close_readers()  # with what they remember of the file
    store.check()
    with pytest.raises(StoreUnavailable, match="damaged"):
        assert [store.get(job.id) for job in jobs] == jobs
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="damaged"):
            store.check()
    overwrite(file, good)
    store.check()
    assert [store.get(job.id) for job in jobs] == jobs


def overwrite(file: Path, content: bytes) -> None:
    """In place: whoever has it open sees it."""
    with file.open("r+b") as opened:
        opened.write(content)


def test_a_store_that_was_moved_takes_nothing_that_the_next_start_would_not_find(
    store: SqlStore, tmp_path: Path
) -> None:
    first = added(store)
    with closing(SqlStore.open(f"sqlite:///{tmp_path}/other.db")) as other:
        second = added(other)
    assert store.get(first.id) == first
    for suffix in ("", "-wal", "-shm"):
        (tmp_path / f"snakeline.db{suffix}").rename(tmp_path / f"old.db{suffix}")
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            added(store)
    (tmp_path / "other.db").rename(tmp_path / "snakeline.db")
    third = added(store)
    assert [job.id for job in store.list(JobQuery()).items] == [third.id, second.id]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE jobs SET status = 'runing'",
        "UPDATE jobs SET reason = 'no reason'",
        "UPDATE jobs SET created_at = 9223372036854775807",
        "UPDATE jobs SET progress = '[1, 2'",
        "UPDATE job_specs SET spec = '{'",
        "UPDATE job_specs SET spec = '[]'",
        "UPDATE job_specs SET spec = x'ff'",
    ],
)
def test_a_row_that_holds_what_nobody_wrote_is_a_damaged_store_and_no_crash(
    store: SqlStore, tmp_path: Path, change: str
) -> None:
    job = added(store)
    with closing(sqlite3.connect(tmp_path / "snakeline.db", isolation_level=None)) as other:
        other.execute(change)
    with pytest.raises(StoreUnavailable, match="damaged"):
        store.get(job.id)
    with pytest.raises(StoreUnavailable, match="damaged"):
        store.list(JobQuery())


def test_an_event_that_holds_what_nobody_wrote_is_a_damaged_store_and_no_crash(
    store: SqlStore, tmp_path: Path
) -> None:
    job = added(store)
    with closing(sqlite3.connect(tmp_path / "snakeline.db", isolation_level=None)) as other:
        other.execute("UPDATE job_events SET kind = 'nothing'")
    with pytest.raises(StoreUnavailable, match="damaged"):
        store.events(job_id=job.id)


# ---------------------------------------------------------------- a write that failed changed nothing


def test_a_claim_that_failed_can_be_made_again(store: SqlStore) -> None:
    job = added(store)
    update = Update(job, claimed(job, NOON), Change.CLAIMED)
    connection = store._writer._connection
    assert connection is not None
    connection.close()  # whatever is wrong with it
    with pytest.raises(sqlite3.Error):
        store.update([update]).result(10)
    assert store.get(job.id).status is JobStatus.PENDING
    assert store.update([update]).result(10) == [update.after]
    assert json.dumps([event.kind for event in store.events()]) == '["submitted", "claimed"]'


def test_failed_writes_leave_no_connections_behind(store: SqlStore, tmp_path: Path) -> None:
    def descriptors() -> int:
        fds = [Path(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
        return sum(fd.exists() and fd.readlink().is_relative_to(tmp_path) for fd in fds)

    added(store)
    store.counts()
    before = descriptors()
    for _ in range(5):
        (tmp_path / "snakeline.db").rename(tmp_path / "away.db")
        for _ in range(3):
            assert isinstance(store.add(a_job()).exception(10), StoreUnavailable)
        (tmp_path / "away.db").rename(tmp_path / "snakeline.db")
        added(store)
        store.counts()
    # SQLite itself keeps a descriptor or two open while others have locks on the same file.
    assert descriptors() <= before + 2

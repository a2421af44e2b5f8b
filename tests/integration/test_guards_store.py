"""What keeps the store's writes whole beside another process that writes."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runner.job_store import IdempotencyKey, JobQuery, Update
from runner.jobs import Change, JobStatus, retried
from runner.removal import JobRemoval
from runner.retention import Retention
from runner.stores.sql import SqlStore, swap
from tests.support.stores import NOON, a_job, ended_at, store_url
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runner.job_store import EndedJob, Submitted
    from runner.stores.sql.batch import Batch

ROOT = Path(__file__).parents[2]


def test_a_write_waits_for_another_process_instead_of_failing_on_what_it_has_read(tmp_path: Path) -> None:
    """Who has read already cannot begin to write behind another's commit: it locks before it reads."""
    store = SqlStore.open(store_url(tmp_path))
    job = a_job()

    def another_writes_in_between(batch: Batch) -> Submitted:
        assert batch._pending("*") == 0  # the first read of the transaction
        with (
            closing(sqlite3.connect(tmp_path / "snakeline.db", timeout=0, isolation_level=None)) as other,
            pytest.raises(sqlite3.OperationalError, match="locked"),
        ):
            other.execute("INSERT INTO store_facts (name, value) VALUES ('other', 1)")
        return batch.add(job, None, None)

    added = store._writer.submit(another_writes_in_between).result(10)
    assert store.get(job.id) == added.job
    store.close()


def test_no_program_can_store_two_jobs_with_one_key(tmp_path: Path) -> None:
    store = SqlStore.open(store_url(tmp_path))
    keys = [IdempotencyKey(name, "fingerprint") for name in ("first", "second")]
    ids = [store.add(a_job(), key=key).result(10).job.id for key in keys]
    store.close()
    with closing(sqlite3.connect(tmp_path / "snakeline.db")) as other, pytest.raises(sqlite3.IntegrityError):
        other.execute("UPDATE jobs SET idempotency_key = 'first' WHERE id = ?", (ids[1],))


_ADD_TWELVE = """
import gc, sys
from runner.stores.sql import SqlStore
from tests.support.stores import a_job
store = SqlStore.open(sys.argv[1])
for number in range(12):
    error = store.add(a_job(job_id=f"job-{number}")).exception()
    sys.stdout.write(f"{'failed' if error else 'stored'} job-{number}\\n")
    del error  # it keeps the connection that failed
    gc.collect()
"""


def traced_writes(directory: Path, *faults: str) -> tuple[dict[str, set[str]], list[str]]:
    """What became of twelve jobs while system calls failed as `faults` says, and the calls."""
    directory.mkdir()
    SqlStore.open(store_url(directory)).close()
    trace = directory / "trace"
    injected = [argument for fault in faults for argument in ("-e", f"inject={fault}")]
    command = [sys.executable, "-c", _ADD_TWELVE, store_url(directory)]
    done = subprocess.run(
        ["strace", "-f", "-o", str(trace), "-e", f"trace={_SYNCS},pwrite64", *injected, *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if "ptrace" in done.stderr:
        pytest.skip("this process may not trace another one")
    told: dict[str, set[str]] = {"stored": set(), "failed": set()}
    for line in done.stdout.splitlines():
        word, job_id = line.split()
        told[word].add(job_id)
    return told, trace.read_text().splitlines()


_SYNCS = "fsync,fdatasync"


@pytest.mark.skipif(shutil.which("strace") is None, reason="failing a system call needs strace")
def test_a_write_that_failed_does_not_come_back_though_nothing_could_be_written_behind_it(
    tmp_path: Path,
) -> None:
    """Its commit could not be synced, what was to cover it could not be written, then the disk recovers."""
    commit_fails = f"{_SYNCS}:error=EIO:when=5"
    told, calls = traced_writes(tmp_path / "first", commit_fails)
    assert len(told["failed"]) == 1
    at = next(n for n, call in enumerate(calls) if "INJECTED" in call)
    writer = calls[at].split()[0]  # calls are counted thread by thread
    before = sum(call.split()[0] == writer and "pwrite64" in call for call in calls[:at])
    told, calls = traced_writes(
        tmp_path / "second", commit_fails, f"pwrite64:error=EIO:when={before + 1}..{before + 5}"
    )
    assert "job-11" in told["stored"]
    with closing(SqlStore.open(store_url(tmp_path / "second"))) as store:
        found = {job.id for job in store.list(JobQuery(limit=500)).items}
    assert found == told["stored"]


def test_a_store_that_is_there_keeps_the_mode_its_owner_gave_it(tmp_path: Path) -> None:
    SqlStore.open(store_url(tmp_path)).close()
    (tmp_path / "snakeline.db").chmod(0o640)
    SqlStore.open(store_url(tmp_path)).close()
    assert (tmp_path / "snakeline.db").stat().st_mode & 0o777 == 0o640


def test_a_file_for_a_restored_store_is_never_somebody_elses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when one is put there between the removal of an old one and the making of the new."""
    path = tmp_path / "incoming"
    monkeypatch.setattr(swap, "remove", lambda _: path.write_text("somebody else's"))
    with pytest.raises(FileExistsError):
        swap.make_empty(str(path))


def test_a_job_retried_since_it_was_seen_to_have_ended_is_not_deleted(tmp_path: Path) -> None:
    store = SqlStore.open(store_url(tmp_path))
    (tmp_path / "jobs").mkdir()
    job = ended_at(store, NOON, a_job(at=NOON))
    look = store.ended
    seen: list[EndedJob] = []

    def retried_just_after(**page: Any) -> Sequence[EndedJob]:
        found = look(**page)
        if found and not seen:
            seen.extend(found)
            again = retried(job, NOON)
            assert store.update([Update(job, again, Change.RETRIED)]).result(10) == [again]
        return found

    store.ended = retried_just_after  # type: ignore[method-assign]
    removal = JobRemoval(tmp_path, store)
    retention = Retention(
        data_dir=tmp_path,
        store=store,
        removal=removal,
        retention_s=1.0,
        max_data_bytes=None,
        first_after_s=0.0,
        every_s=0.0,
        count_every_s=0.01,
    )
    retention.start()
    wait_until(lambda: len(seen) > 0 and not store.ended(after=None, limit=1), what="a sweep")
    retention.close()
    assert store.get(job.id).status is JobStatus.PENDING
    store.close()


class CutShort(Exception):
    pass


def test_a_deletion_cut_short_leaves_no_half_of_a_job_where_jobs_are(tmp_path: Path) -> None:
    store = SqlStore.open(store_url(tmp_path))
    cuts = 0
    for calls in range(1, 100):
        job = ended_at(store, NOON, a_job(at=NOON))
        work = tmp_path / "jobs" / job.id / "work"
        work.mkdir(parents=True)
        for name in ("first", "second"):
            (work / name).write_text("x")
        left = iter(range(1, calls))

        def cut_short(left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise CutShort

        try:
            JobRemoval(tmp_path, store).remove_all([job], why="", rest=cut_short)
        except CutShort:
            cuts += 1
        else:
            break
        assert not (tmp_path / "jobs" / job.id).exists()
    assert cuts >= 2
    store.close()

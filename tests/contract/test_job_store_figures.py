"""What every job store tells of its jobs as a whole: counts by workflow, and who has waited longest."""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from runner.errors import QueueFull, StoreUnavailable
from runner.job_store import Update
from runner.jobs import Change, Job, JobStatus, Outcome, Reason, cancel_asked, claimed, ended, retried
from runner.measurements import StoreMeasurements
from runner.stores.sql import SqlStore, sqlite
from runner.stores.sql.statements import statements_in
from runner.stores.sql.writer import Writer
from tests.support.stores import KINDS, NOON, a_job, added, open_store, store_url

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runner.job_store import JobStore
    from runner.stores.sql.batch import Batch


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[JobStore]:
    with closing(open_store(request.param, tmp_path)) as store:
        yield store


def changed(store: JobStore, job: Job, after: Job, kind: Change) -> Job:
    stored = store.update([Update(job, after, kind)]).result(10)[0]
    assert stored is not None
    return stored


def failed(store: JobStore, job: Job) -> Job:
    running = changed(store, job, claimed(job, job.updated_at), Change.CLAIMED)
    outcome = Outcome(Reason.EXITED_NONZERO, ended_at=job.updated_at, exit_code=1)
    return changed(store, running, ended(running, outcome), Change.ENDED)


def test_jobs_are_counted_by_workflow_and_status_over_all_tenants(store: JobStore) -> None:
    assert store.counts_by_workflow() == {}
    for tenant in ("atlas", "borealis"):
        added(store, replace(a_job(workflow="demo"), tenant=tenant))
    added(store, a_job(workflow="other"))
    gone = failed(store, added(store, a_job(workflow="demo")))
    assert store.counts_by_workflow() == {
        ("demo", JobStatus.PENDING): 2,
        ("demo", JobStatus.FAILED): 1,
        ("other", JobStatus.PENDING): 1,
    }
    by_status: Counter[JobStatus] = Counter()
    for (_, status), jobs in store.counts_by_workflow().items():
        by_status[status] += jobs
    assert dict(by_status) == {status: jobs for status, jobs in store.counts().items() if jobs}
    assert store.delete(gone).result(10)
    assert ("demo", JobStatus.FAILED) not in store.counts_by_workflow()


def test_the_job_that_has_waited_longest_is_found(store: JobStore) -> None:
    assert store.pending_since() is None
    first = added(store, a_job(at=NOON))
    second = added(store, a_job(at=NOON + timedelta(seconds=5)))
    added(store, a_job(at=NOON + timedelta(seconds=9), priority=7))
    assert store.pending_since() == NOON
    changed(store, first, claimed(first, NOON), Change.CLAIMED)
    assert store.pending_since() == NOON + timedelta(seconds=5)
    changed(store, second, cancel_asked(second, NOON), Change.CANCEL_REQUESTED)
    assert store.pending_since() == NOON + timedelta(seconds=9)


def test_a_job_that_was_put_back_waits_anew(store: JobStore) -> None:
    """However long ago it was submitted, and whatever was submitted behind it."""
    old = failed(store, added(store, a_job(at=NOON)))
    older = failed(store, added(store, a_job(at=NOON + timedelta(seconds=1))))
    changed(store, old, retried(old, NOON + timedelta(hours=3)), Change.RETRIED)
    assert store.pending_since() == NOON + timedelta(hours=3)
    changed(store, older, retried(older, NOON + timedelta(hours=2)), Change.RETRIED)
    assert store.pending_since() == NOON + timedelta(hours=2)
    added(store, a_job(at=NOON + timedelta(hours=1)))
    assert store.pending_since() == NOON + timedelta(hours=1)
    added(store, a_job(at=NOON + timedelta(hours=4)))
    assert store.pending_since() == NOON + timedelta(hours=1)


def test_neither_takes_a_scan_of_the_jobs(tmp_path: Path) -> None:
    with closing(SqlStore.open(store_url(tmp_path))) as store:
        added(store)
        statements = statements_in(sqlite.dialect())
        with closing(sqlite.SqliteFile(f"{tmp_path}/snakeline.db").open()) as connection:
            for statement in (statements.counts, statements.pending_since):
                plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}", {"tenant": "*"}).fetchall()
                assert [row[3].split()[0] for row in plan] == ["SEARCH"], plan


def test_a_store_measures_what_it_does_and_what_it_could_not(tmp_path: Path) -> None:
    measured = StoreMeasurements()
    store = SqlStore.open(store_url(tmp_path), measurements=measured)
    jobs = [added(store) for _ in range(3)]
    store.get(jobs[0].id)
    assert measured.writes.read() == {None: 3}
    assert measured.commits.read().count == 3
    assert 0 < measured.commits.read().sum_s < 30
    assert measured.reads.read().count == 1
    assert measured.failures.read() == {}
    (tmp_path / "snakeline.db").rename(tmp_path / "moved.db")
    with pytest.raises(StoreUnavailable):
        added(store)
    assert measured.failures.read() == {"unavailable": 1}
    assert measured.writes.read() == {None: 3}
    store.close()


def test_a_change_that_was_refused_is_none_that_was_committed(tmp_path: Path) -> None:
    measured = StoreMeasurements()
    with closing(SqlStore.open(store_url(tmp_path), measurements=measured)) as store:
        added(store)
        with pytest.raises(QueueFull):
            store.add(a_job(), max_pending=1).result(10)
    assert measured.writes.read() == {None: 1}


def test_what_is_tried_again_by_itself_is_not_in_the_time_of_what_failed_together(tmp_path: Path) -> None:
    SqlStore.open(store_url(tmp_path)).close()
    measured, together = StoreMeasurements(), threading.Event()
    writer = Writer(
        sqlite.SqliteFile(f"{tmp_path}/snakeline.db"), statements_in(sqlite.dialect()), None, measured
    )

    def busy(_: Batch) -> None:
        until = time.perf_counter() + 0.05
        while time.perf_counter() < until:
            pass

    def spoilt(_: Batch) -> None:
        raise ValueError

    began = time.perf_counter()
    with closing(writer):
        first = writer.submit(lambda _: together.wait(10))
        group = [writer.submit(busy), writer.submit(busy), writer.submit(spoilt)]
        together.set()
        assert first.result(10)
        assert [type(each.exception(10)) for each in group] == [type(None), type(None), ValueError]
    commits = measured.commits.read()
    assert commits.count == 5
    assert commits.sum_s <= time.perf_counter() - began

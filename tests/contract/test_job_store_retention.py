"""What every job store promises to those who delete old jobs: ends in order, and leftovers of deletions."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from alembic import command

from runner.job_store import EndedJob, JobQuery
from runner.jobs import Change, Outcome, Reason, cancel_asked, claimed, ended, retried
from runner.stores.memory import MemoryStore
from runner.stores.sql import SqlStore, migrate
from tests.support.stores import KINDS, NOON, a_job, added, changed, ended_at, open_store, store_url

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runner.job_store import JobStore


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def store(kind: str, tmp_path: Path) -> Iterator[JobStore]:
    store = open_store(kind, tmp_path)
    yield store
    store.close()


def ids(page: object) -> list[str]:
    assert isinstance(page, list)
    return [job.id for job in page]


# ---------------------------------------------------------------- ends in order


def test_ended_jobs_come_in_the_order_of_their_ends(store: JobStore) -> None:
    late, early, between = (ended_at(store, NOON + timedelta(seconds=s)) for s in (9, 1, 5))
    assert ids(store.ended()) == [early.id, between.id, late.id]
    assert store.ended()[0] == EndedJob(early.seq, early.id, NOON + timedelta(seconds=1), early.created_at)


def test_pages_of_ended_jobs_lose_and_repeat_none_though_many_ended_at_once(store: JobStore) -> None:
    jobs = [ended_at(store, NOON + timedelta(microseconds=i // 3)) for i in range(10)]
    found: list[str] = []
    after = None
    while page := store.ended(after=after, limit=2):
        found += ids(page)
        after = page[-1]
    assert found == [job.id for job in jobs]


def test_only_jobs_that_have_ended_are_among_them(store: JobStore) -> None:
    pending, running, failed, cancelled = (added(store) for _ in range(4))
    changed(store, running, claimed(running, NOON), Change.CLAIMED)
    running_too = changed(store, failed, claimed(failed, NOON), Change.CLAIMED)
    failed = changed(
        store, running_too, ended(running_too, Outcome(Reason.LOST, ended_at=NOON)), Change.ENDED
    )
    cancelled = changed(
        store, cancelled, cancel_asked(cancelled, NOON + timedelta(days=1)), Change.CANCEL_REQUESTED
    )
    assert ids(store.ended()) == [failed.id, cancelled.id]
    changed(store, failed, retried(failed, NOON), Change.RETRIED)
    assert ids(store.ended()) == [cancelled.id]
    assert store.delete(cancelled).result(10) is True
    assert store.ended() == []
    assert store.list(JobQuery()).total == 3
    assert store.get(pending.id) == pending


def test_the_ceiling_is_the_latest_submission_so_far_whatever_the_clock_did(store: JobStore) -> None:
    first = ended_at(store, NOON + timedelta(days=1), a_job(at=NOON))
    second = ended_at(store, NOON - timedelta(days=8), a_job(at=NOON - timedelta(days=9)))
    third = ended_at(store, NOON + timedelta(days=3), a_job(at=NOON + timedelta(days=2)))
    assert {job.id: job.created_ceiling for job in store.ended()} == {
        first.id: NOON,
        second.id: NOON,
        third.id: NOON + timedelta(days=2),
    }


def test_ended_jobs_are_found_by_their_index(tmp_path: Path) -> None:
    store = SqlStore.open(store_url(tmp_path))
    with closing(sqlite3.connect(tmp_path / "snakeline.db")) as connection:
        plan = connection.execute(
            f"EXPLAIN QUERY PLAN {store._statements.ended}", {"at": 1, "seq": 1, "n": 10}
        ).fetchall()
    store.close()
    assert [row[3] for row in plan] == ["SEARCH jobs USING INDEX jobs_completed (completed_at>?)"]


# ---------------------------------------------------------------- leftovers


def test_a_deleted_job_is_a_leftover_until_it_is_forgotten(store: JobStore) -> None:
    jobs = [ended_at(store, NOON) for _ in range(5)]
    for job in jobs[:4]:
        assert store.delete(job).result(10) is True
    wanted = sorted(job.id for job in jobs[:4])
    assert store.leftovers() == wanted
    assert store.leftovers(limit=2) == wanted[:2]
    assert store.leftovers(after=wanted[1], limit=2) == wanted[2:]
    store.forget_leftovers([wanted[0], wanted[2], "no such job"]).result(10)
    assert store.leftovers() == [wanted[1], wanted[3]]
    store.forget_leftovers([]).result(10)


def test_a_delete_that_lost_its_race_leaves_no_leftover(store: JobStore) -> None:
    job = ended_at(store, NOON)
    changed(store, job, retried(job, NOON), Change.RETRIED)
    assert store.delete(job).result(10) is False
    assert store.leftovers() == []


def test_an_id_may_be_left_over_twice(store: JobStore) -> None:
    job = a_job()
    for _ in range(2):
        again = added(store, job)
        assert [event.kind for event in store.events(job_id=job.id)] == [Change.SUBMITTED]
        assert store.delete(again).result(10) is True
        assert list(store.events()) == []
    assert store.leftovers() == [job.id]


def test_however_many_jobs_are_deleted_the_events_of_the_others_stay(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.stores.memory._EVENTLESS_AT_MOST", 3)
    jobs = [added(store) for _ in range(12)]
    kept = jobs[::3]
    for job in jobs:
        if job not in kept:
            store.delete(job).result(10)
        assert {job.id for job in kept} <= {event.job_id for event in store.events()}
    assert [event.job_id for event in store.events()] == [job.id for job in kept]
    assert [event.job_id for event in store.events(after_seq=store.events()[0].seq, limit=2)] == [
        job.id for job in kept[1:3]
    ]
    if isinstance(store, MemoryStore):
        assert len(store._events) < len(kept) + 3


def test_leftovers_are_there_after_opening_again(tmp_path: Path) -> None:
    store = SqlStore.open(store_url(tmp_path))
    job = ended_at(store, NOON)
    store.delete(job).result(10)
    store.close()
    store = SqlStore.open(store_url(tmp_path))
    assert store.leftovers() == [job.id]
    store.close()


# ---------------------------------------------------------------- the upgrade


def test_a_store_of_the_first_version_keeps_its_jobs_and_learns_their_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to_newest = command.upgrade
    with monkeypatch.context() as patched:
        patched.setattr(command, "upgrade", lambda config, _: to_newest(config, "0001"))
        patched.setattr(migrate, "REVISION", "0001")
        SqlStore.open(store_url(tmp_path)).close()
    with closing(sqlite3.connect(tmp_path / "snakeline.db")) as connection, connection:
        columns = "id, version, status, workflow, engine, cores, priority, max_retries, retries_left, attempt"
        for number, (status, end) in enumerate([("failed", 20), ("completed", 10), ("pending", None)]):
            connection.execute(
                f"INSERT INTO jobs ({columns}, created_at, created_ceiling, updated_at, completed_at)"
                " VALUES (?, 1, ?, 'demo', 'mock', 1, 0, 0, 0, 1, 5, 5, 5, ?)",
                (f"job-{number}", status, end),
            )
        connection.execute(
            'INSERT INTO job_specs SELECT seq, \'{"parameters":{},"targets":[],"options":{},"labels":{}}\''
            " FROM jobs"
        )
    assert "upgrades it" in SqlStore.examine(store_url(tmp_path))
    store = SqlStore.open(store_url(tmp_path))
    assert ids(store.ended()) == ["job-1", "job-0"]
    assert store.delete(store.get("job-0")).result(10) is True
    assert store.leftovers() == ["job-0"]
    store.close()

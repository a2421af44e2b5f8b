"""What every job store promises to those who follow changes: the events of one tenant, and jobs in short."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import pytest
from alembic import command

from runner.job_store import JobBrief, Update
from runner.jobs import Change, Outcome, Progress, Reason, claimed, ended, progressed
from runner.stores.sql import SqlStore
from runner.stores.sql.salvage import salvage
from runner.stores.sql.swap import make_empty
from tests.support.stores import KINDS, NOON, a_job, added, changed, open_store, store_url

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runner.job_store import JobStore
    from runner.jobs import JobEvent


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[JobStore]:
    made = open_store(request.param, tmp_path)
    yield made
    made.close()


def test_a_tenants_events_are_its_own_in_order_and_page_by_page(store: JobStore) -> None:
    jobs = [added(store, replace(a_job(), tenant=tenant)) for tenant in "abaab"]
    for job in jobs:
        changed(store, job, claimed(job, NOON), Change.CLAIMED)
    every = store.events()
    assert [event.seq for event in every] == list(range(1, 11))
    for tenant in "abc":
        own = [event for event in every if event.tenant == tenant]
        assert list(store.events(tenant=tenant)) == own
        paged: list[JobEvent] = []
        after = 0
        while page := store.events(tenant=tenant, after_seq=after, limit=2):
            paged += page
            after = page[-1].seq
        assert paged == own
        assert store.newest_event(tenant=tenant) == max((event.seq for event in own), default=0)
    assert [store.events(job_id=jobs[0].id, tenant=tenant) == [] for tenant in "ab"] == [False, True]


def test_the_newest_number_stays_when_its_job_is_deleted(store: JobStore) -> None:
    assert store.newest_event() == 0
    job = added(store)
    running = changed(store, job, claimed(job, NOON), Change.CLAIMED)
    gone = changed(store, running, ended(running, Outcome(Reason.LOST, ended_at=NOON)), Change.ENDED)
    assert store.delete(gone).result(10)
    assert store.newest_event() == 3
    assert list(store.events()) == []


def test_a_job_in_short_is_the_job_as_it_is_now(store: JobStore) -> None:
    job = added(store, name="n", workflow="w", parameters={"large": "x" * 100})
    running = changed(store, job, claimed(job, NOON), Change.CLAIMED)
    told = progressed(running, NOON, Progress(5, 2, 1), None)
    changed(store, running, told, Change.PROGRESSED)
    other = added(store)
    now = store.get(job.id)
    briefs = store.briefs([job.id, "unknown", other.id, job.id])
    assert set(briefs) == {job.id, other.id}
    shared = {name: getattr(now, name) for name in asdict(briefs[job.id]) if hasattr(now, name)}
    assert briefs[job.id] == JobBrief(**shared, name="n", workflow="w")
    assert briefs[job.id].progress == Progress(5, 2, 1)
    many = [added(store).id for _ in range(3)] * 200 + [other.id]
    assert set(store.briefs(many)) == set(many)
    assert store.briefs([]) == {}


def test_progress_is_kept_only_until_the_jobs_next_event(store: JobStore) -> None:
    jobs = [added(store), added(store)]
    running = [changed(store, job, claimed(job, NOON), Change.CLAIMED) for job in jobs]
    for done in range(3):
        for index, job in enumerate(running):
            told = progressed(job, NOON, Progress(5, done), None)
            running[index] = changed(store, job, told, Change.PROGRESSED)
    start = [Change.SUBMITTED, Change.CLAIMED]
    assert [event.seq for event in store.events()] == [1, 2, 3, 4, 9, 10]
    assert [event.kind for event in store.events(job_id=jobs[0].id)] == [*start, Change.PROGRESSED]
    told = progressed(running[0], NOON, Progress(5, 5), None)
    over = ended(told, Outcome(Reason.EXITED_ZERO, ended_at=NOON, exit_code=0))
    updates = [Update(running[0], told, Change.PROGRESSED), Update(told, over, Change.ENDED)]
    assert store.update(updates).result(10) == [told, over]  # in one transaction as in several
    assert [event.kind for event in store.events(job_id=jobs[0].id)] == [*start, Change.ENDED]
    assert [event.kind for event in store.events(job_id=jobs[1].id)] == [*start, Change.PROGRESSED]
    assert store.newest_event() == 12


def test_the_events_of_a_tenant_are_found_by_their_index(tmp_path: Path) -> None:
    store = SqlStore.open(store_url(tmp_path))
    statements = store._statements
    values = {"tenant": "a", "after_seq": 1, "n": 1}
    with closing(sqlite3.connect(tmp_path / "snakeline.db")) as connection:
        for sql in (statements.events_of_tenant, statements.newest_event_of_tenant):
            plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
            assert [step for step in plan if "job_events_tenant" in step], plan
            assert not [step for step in plan if "SCAN" in step or "TEMP B-TREE" in step], plan
    store.close()


def test_events_of_an_older_store_get_the_tenant_of_their_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgrade = command.upgrade
    with monkeypatch.context() as patched:
        patched.setattr("alembic.command.upgrade", lambda config, _: upgrade(config, "0003"))
        SqlStore.open(store_url(tmp_path)).close()
    with closing(sqlite3.connect(tmp_path / "snakeline.db")) as connection, connection:
        for number, tenant in enumerate(("default", "b"), 1):
            connection.execute(
                "INSERT INTO jobs (seq, id, version, status, workflow, engine, cores, priority, max_retries, "
                "retries_left, attempt, created_at, created_ceiling, updated_at, tenant) "
                "VALUES (?, ?, 1, 'pending', 'demo', 'mock', 1, 0, 0, 0, 1, 5, 5, 5, ?)",
                (number, f"job-{number}", tenant),
            )
            spec = '{"parameters":{},"targets":[],"options":{},"labels":{}}'
            connection.execute("INSERT INTO job_specs VALUES (?, ?)", (number, spec))
            connection.execute(
                "INSERT INTO job_events (job_seq, kind, status, attempt, at, data) "
                "VALUES (?, 'submitted', 'pending', 1, 5, '{}')",
                (number,),
            )
    salvaged = tmp_path / "new" / "snakeline.db"
    salvaged.parent.mkdir()
    make_empty(str(salvaged))
    salvage(str(tmp_path / "snakeline.db"), str(salvaged))
    for directory in (salvaged.parent, tmp_path):
        with closing(SqlStore.open(store_url(directory))) as store:
            for tenant, job_id in (("default", "job-1"), ("b", "job-2")):
                found = [(event.job_id, event.tenant) for event in store.events(tenant=tenant)]
                assert found == [(job_id, tenant)], directory

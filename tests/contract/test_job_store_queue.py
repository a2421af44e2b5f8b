"""Places in the queue: both stores tell what the order of `pending` says, however they count."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from runner.jobs import Change, claimed
from runner.stores.sql import queue_places
from tests.support.stores import KINDS, NOON, a_job, added, changed, open_store

if TYPE_CHECKING:
    from pathlib import Path

    from runner.jobs import Job

TENANTS = ("a", "b", "default")


@pytest.mark.parametrize("near_the_end", [0, 5, 2000], ids=["from the front", "either", "from the end"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_place_in_the_queue_is_the_one_in_the_order_in_which_jobs_start(
    kind: str, near_the_end: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_places, "_NEAR_THE_END", near_the_end)
    chance = random.Random(f"{kind} {near_the_end}")
    with closing(open_store(kind, tmp_path)) as store:
        jobs = []
        for _ in range(60):
            job = a_job(priority=chance.choice((-1, 0, 0, 0, 7)), cores=chance.choice((1, 2, 5)))
            jobs.append(added(store, replace(job, tenant=chance.choice(TENANTS))))
        started = chance.sample(jobs, 10)
        for job in started:
            changed(store, job, claimed(job, NOON), Change.CLAIMED)
        left = [job for job in jobs if job not in started]
        expected = {
            job.id: place
            for tenant in TENANTS
            for place, job in enumerate(store.pending(tenant=tenant, max_cores=9, limit=99), 1)
        }
        assert store.queue_places(left) == expected
        for _ in range(20):
            some = chance.sample(left, chance.randint(1, 6))
            assert store.queue_places(some) == {job.id: expected[job.id] for job in some}
        assert store.queue_places([store.get(job.id) for job in started]) == {}
        assert store.queue_places([]) == {}


@pytest.mark.parametrize("kind", KINDS)
def test_one_that_has_started_meanwhile_is_told_the_place_it_would_have(kind: str, tmp_path: Path) -> None:
    with closing(open_store(kind, tmp_path)) as store:
        jobs: list[Job] = [added(store) for _ in range(3)]
        changed(store, jobs[1], claimed(jobs[1], NOON), Change.CLAIMED)
        assert list(store.queue_places(jobs).values()) == [1, 2, 2]


def test_every_step_to_a_place_goes_down_the_index_of_the_queue(tmp_path: Path) -> None:
    open_store("sqlite", tmp_path).close()
    values = {"tenant": "a", "priority": 0, "seq": 1, "most": 9, "ranges": "[[0,1,0,2]]"}
    with closing(sqlite3.connect(tmp_path / "snakeline.db")) as connection:
        for statement in (queue_places._FROM_HERE_ON, queue_places._HIGHER, queue_places._BETWEEN):
            plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
            steps = [step for step in plan if " jobs" in step]
            assert steps
            assert all("INDEX jobs_pending (tenant=?" in step for step in steps), plan
            assert sum("cores=? AND priority" in step for step in steps) >= 1, plan

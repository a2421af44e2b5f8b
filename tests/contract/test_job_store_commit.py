"""What every job store promises of a commit: who hears of it, and what it holds when the store is closed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from runner.errors import StoreUnavailable
from runner.job_store import JobQuery, Update
from runner.jobs import (
    Change,
    JobEvent,
    JobStatus,
    claimed,
)
from tests.support.stores import KINDS, NOON, a_job, added, open_store

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from runner.job_store import JobStore


pytestmark = pytest.mark.parametrize("kind", KINDS)


def test_on_commit_is_called_in_order_with_rows_that_can_be_read(kind: str, tmp_path: Path) -> None:
    seen: list[JobEvent] = []
    missing: list[JobEvent] = []

    def on_commit(events: Sequence[JobEvent]) -> None:
        stored = opened[0].events(after_seq=events[0].seq - 1, limit=len(events))
        missing.extend(event for event in events if event not in stored)
        seen.extend(events)

    opened: list[JobStore] = []
    store = open_store(kind, tmp_path, on_commit)
    opened.append(store)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: added(store), range(100)))
    store.close()
    assert len(seen) == 100
    assert [event.seq for event in seen] == sorted(event.seq for event in seen)
    assert missing == []


def test_a_subscriber_that_raises_costs_neither_the_write_nor_the_next(kind: str, tmp_path: Path) -> None:
    calls: list[int] = []

    def on_commit(events: Sequence[JobEvent]) -> None:
        calls.append(len(events))
        raise RuntimeError("a subscriber's own fault")

    store = open_store(kind, tmp_path, on_commit)
    first, second = added(store), added(store)
    assert [event.job_id for event in store.events()] == [first.id, second.id]
    store.close()
    assert calls == [1, 1]


def test_an_operation_that_cannot_be_stored_does_not_spoil_its_neighbours(kind: str, tmp_path: Path) -> None:
    seen: list[JobEvent] = []
    store = open_store(kind, tmp_path, seen.extend)
    good = [store.add(a_job(labels={"n": "x"}, name="same")) for _ in range(10)]
    bad = store.add(a_job(parameters={"object": object()}, labels={"n": "x"}, name="same"))
    more = [store.add(a_job(labels={"n": "x"}, name="same")) for _ in range(10)]
    ids = [future.result(10).job.id for future in good + more]
    assert bad.exception(10) is not None or kind == "memory"
    stored = 20 if bad.exception() else 21
    for query in (JobQuery(), JobQuery(labels=(("n", "x"),)), JobQuery(q="same"), JobQuery(workflow="demo")):
        assert store.list(query).total == stored
    assert store.counts()[JobStatus.PENDING] == stored
    assert set(ids) <= {event.job_id for event in seen}
    assert len(seen) == len({event.seq for event in seen}) == stored
    store.close()


def test_a_closed_store_has_finished_what_was_asked_and_takes_no_more(kind: str, tmp_path: Path) -> None:
    store = open_store(kind, tmp_path)
    futures = [store.add(a_job()) for _ in range(200)]
    store.close()
    store.close()
    assert all(future.done() and future.exception() is None for future in futures)
    job = futures[0].result().job
    for call in (
        lambda: store.add(a_job()).result(5),
        lambda: store.update([Update(job, claimed(job, NOON), Change.CLAIMED)]).result(5),
        lambda: store.delete(job).result(5),
        lambda: store.get(job.id),
        lambda: store.list(JobQuery()),
        lambda: store.pending(max_cores=1, limit=1),
        store.running,
        store.counts,
        store.events,
        store.check,
    ):
        with pytest.raises(StoreUnavailable):
            call()

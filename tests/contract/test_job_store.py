"""What every job store promises about writes: futures, races, events, counts, keys."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

from runner.errors import IdempotencyMismatch, JobNotFound, QueueFull, StoreUnavailable
from runner.job_store import IdempotencyKey, JobQuery, Submitted, Update
from runner.jobs import (
    Attachment,
    Change,
    Job,
    JobSpec,
    JobStatus,
    Outcome,
    Progress,
    Reason,
    Usage,
    cancel_asked,
    claimed,
    ended,
    progressed,
    retried,
)
from runner.trace_context import JobTrace
from tests.support.stores import KINDS, NOON, a_job, added, open_store

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


def claim(store: JobStore, job: Job) -> Job:
    after = store.update([Update(job, claimed(job, NOON), Change.CLAIMED)]).result(10)[0]
    assert after is not None
    return after


# ---------------------------------------------------------------- add and get


def test_a_stored_job_comes_back_exactly_as_it_went_in(store: JobStore) -> None:
    at = datetime(2026, 2, 3, 4, 5, 6, 789012, tzinfo=UTC)
    job = Job(
        id="019aa000-0000-7000-8000-000000000001",
        spec=JobSpec(
            workflow="wörd/count",
            parameters={
                "π": 3.141592653589793,
                "deep": [{"x": None, "big": 2**80, "s": '"\\\n\u0000😀'}],
                "e": 1e-320,
            },
            targets=("a/b.txt", "ü"),
            options={"keep_going": True, "n": [1, 2]},
            cores=7,
            name="Prøve 😀 100% _x_ \"q\" 'r'",
            labels={"project": "Ålesund", "empty": "", "k:v": "a=b"},
            priority=-5,
            timeout_s=0.1 + 0.2,
            memory_mb=2**30,
            max_retries=3,
            attachments=(Attachment("in/ü.txt", 2**40, "0" * 64), Attachment("b", 0, "f" * 64)),
        ),
        status=JobStatus.FAILED,
        engine="snakemake",
        workflow_version="sha256:" + "0" * 64,
        workflow_commit="a" * 40,
        trace=JobTrace("ab" * 16, "cd" * 8, 3, "a=b,c=d", at),
        created_at=at,
        updated_at=at + timedelta(microseconds=1),
        version=9,
        attempt=2,
        retries_left=1,
        reason=Reason.KILLED_BY_SIGNAL,
        started_at=datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        completed_at=datetime(2199, 1, 1, tzinfo=UTC),
        cancel_requested_at=at,
        exit_code=None,
        exit_signal=9,
        error_message="rule x: ✗\n  line 2",
        progress=Progress(total=10, done=3, running=2, failed=1),
        usage=Usage(cpu_s=0.30000000000000004, max_rss_bytes=2**40, read_bytes=0, written_bytes=2**53 + 1),
    )
    answer = store.add(job).result(10)
    assert answer == Submitted(replace(job, seq=answer.job.seq), replayed=False)
    assert store.get(job.id) == answer.job
    (listed,) = store.list(JobQuery()).items
    assert replace(listed, trace=answer.job.trace) == answer.job  # no list shows a trace
    assert answer.job.seq > 0
    assert store.has_workflow_version("sha256:" + "0" * 64)
    assert not store.has_workflow_version("sha256:" + "1" * 64)


def test_times_of_another_zone_are_the_same_moment_in_utc(store: JobStore) -> None:
    at = NOON.astimezone(timezone(timedelta(hours=5, minutes=45)))
    job = added(store, a_job(at=at))
    assert store.get(job.id).created_at == NOON


def test_an_unknown_id_is_not_found(store: JobStore) -> None:
    added(store)
    for job_id in ("nothing", "", "\ud800", "x" * 10_000):
        with pytest.raises(JobNotFound):
            store.get(job_id)
        assert list(store.events(job_id=job_id)) == []


def test_seq_grows_and_is_not_reused_after_a_delete(store: JobStore) -> None:
    first, second = added(store), added(store)
    assert second.seq > first.seq
    assert store.delete(second).result(10) is True
    assert added(store).seq > second.seq


def test_an_id_that_is_there_already_is_refused_and_changes_nothing(store: JobStore) -> None:
    job = added(store, name="first")
    with pytest.raises(Exception, match=r".") as caught:
        added(store, a_job(job_id=job.id, name="second", labels={"a": "b"}))
    assert not isinstance(caught.value, StoreUnavailable)
    assert store.get(job.id) == job
    assert store.list(JobQuery()).total == 1
    assert store.list(JobQuery(labels=(("a", "b"),))).total == 0
    assert len(store.events()) == 1


# ---------------------------------------------------------------- compare and set


def test_an_update_whose_version_has_passed_loses_and_changes_nothing(store: JobStore) -> None:
    job = added(store)
    running = claim(store, job)
    late = store.update([Update(job, cancel_asked(job, NOON), Change.CANCEL_REQUESTED)]).result(10)
    assert late == [None]
    assert store.get(job.id) == running
    assert [event.kind for event in store.events()] == [Change.SUBMITTED, Change.CLAIMED]


def test_updates_of_one_call_stand_or_fall_each_by_itself(store: JobStore) -> None:
    one, two = added(store), added(store)
    claim(store, two)
    gone = a_job()
    running = claimed(one, NOON)
    answer = store.update(
        [
            Update(two, claimed(two, NOON), Change.CLAIMED),
            Update(one, running, Change.CLAIMED),
            Update(gone, claimed(gone, NOON), Change.CLAIMED),
            Update(running, cancel_asked(running, NOON), Change.CANCEL_REQUESTED),
        ]
    ).result(10)
    assert [job and job.version for job in answer] == [None, 2, None, 3]
    assert store.get(one.id) == answer[3]
    assert store.update([]).result(10) == []


def test_of_two_writers_with_the_same_version_exactly_one_wins(store: JobStore) -> None:
    jobs = [added(store) for _ in range(20)]
    barrier = threading.Barrier(4)

    def race(_: int) -> list[Job | None]:
        barrier.wait(10)
        answers = [store.update([Update(job, claimed(job, NOON), Change.CLAIMED)]) for job in jobs]
        return [answer.result(10)[0] for answer in answers]

    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(race, range(4)))
    for i, job in enumerate(jobs):
        assert sum(result[i] is not None for result in results) == 1
        assert store.get(job.id).version == 2
    assert len(store.events(limit=1000)) == 40


def test_an_attempt_and_its_retry_come_back_exactly(store: JobStore) -> None:
    job = claim(store, added(store, max_retries=1, labels={"a": "b"}))
    steps = [
        (Change.PROGRESSED, progressed(job, NOON, Progress(4, 1), Usage(0.25, 1, 2, 3))),
    ]
    outcome = Outcome(
        Reason.EXITED_NONZERO,
        NOON + timedelta(hours=1),
        exit_code=3,
        error_message="no",
        usage=Usage(1.5, 1, 2, 3),
    )
    steps.append((Change.ENDED, ended(steps[-1][1], outcome)))
    steps.append((Change.RETRIED, retried(steps[-1][1], NOON)))
    for kind, after in steps:
        assert store.update([Update(store.get(job.id), after, kind)]).result(10) == [after]
        assert store.get(job.id) == after
    assert [job.id for job in store.pending(max_cores=1, limit=5)] == [job.id]


# ---------------------------------------------------------------- delete


def test_a_deleted_job_leaves_nothing_behind(store: JobStore) -> None:
    key = IdempotencyKey("once", "body")
    kept = added(store, name="kept sample", labels={"a": "b"})
    job = store.add(a_job(name="sample", labels={"a": "b", "c": "d"}), key=key).result(10).job
    assert store.delete(job).result(10) is True
    with pytest.raises(JobNotFound):
        store.get(job.id)
    assert {event.job_id for event in store.events()} == {kept.id}
    assert list(store.events(job_id=job.id)) == []
    for query in (
        JobQuery(),
        JobQuery(labels=(("a", "b"),)),
        JobQuery(q="sample"),
        JobQuery(workflow="demo"),
    ):
        assert [item.id for item in store.list(query).items] == [kept.id]
        assert store.list(query).total == 1
    assert store.list(JobQuery(labels=(("c", "d"),))).total == 0
    assert store.add(a_job(), key=key).result(10).replayed is False


def test_a_delete_with_an_old_version_is_refused(store: JobStore) -> None:
    job = added(store)
    running = claim(store, job)
    assert store.delete(job).result(10) is False
    assert store.get(job.id) == running
    assert store.delete(a_job()).result(10) is False


# ---------------------------------------------------------------- idempotency


def test_a_repeated_key_answers_the_job_it_made_as_it_is_now(store: JobStore) -> None:
    key = IdempotencyKey("k", "f")
    first = store.add(a_job(), key=key).result(10)
    running = claim(store, first.job)
    again = store.add(a_job(), key=key, max_pending=0).result(10)
    assert again == Submitted(running, replayed=True)
    assert store.list(JobQuery()).total == 1
    assert len(store.events()) == 2


def test_a_key_with_another_body_is_refused(store: JobStore) -> None:
    store.add(a_job(), key=IdempotencyKey("k", "f")).result(10)
    with pytest.raises(IdempotencyMismatch):
        store.add(a_job(), key=IdempotencyKey("k", "g")).result(10)
    assert store.list(JobQuery()).total == 1


def test_concurrent_submissions_with_one_key_make_one_job(store: JobStore) -> None:
    barrier = threading.Barrier(8)

    def submit(_: int) -> Submitted:
        barrier.wait(10)
        return store.add(a_job(), key=IdempotencyKey("same", "body")).result(10)

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(submit, range(8)))
    assert len({answer.job.id for answer in answers}) == 1
    assert sum(not answer.replayed for answer in answers) == 1
    assert store.list(JobQuery()).total == 1


# ---------------------------------------------------------------- the queue's limit


def test_a_full_queue_refuses_and_takes_again_when_there_is_room(store: JobStore) -> None:
    first = store.add(a_job(), max_pending=2).result(10).job
    store.add(a_job(), max_pending=2).result(10)
    with pytest.raises(QueueFull):
        store.add(a_job(labels={"a": "b"}), max_pending=2).result(10)
    assert store.list(JobQuery()).total == 2
    claim(store, first)
    assert store.add(a_job(), max_pending=2).result(10).replayed is False


def test_the_queue_limit_holds_for_jobs_submitted_at_once(store: JobStore) -> None:
    futures = [store.add(a_job(workflow=f"w{i % 3}"), max_pending=7) for i in range(50)]
    wait(futures, timeout=10)
    assert sum(future.exception() is None for future in futures) == 7
    assert all(isinstance(f.exception(), QueueFull) for f in futures if f.exception() is not None)
    assert store.counts()[JobStatus.PENDING] == 7


# ---------------------------------------------------------------- events and counts


def test_events_come_in_order_with_what_happened(store: JobStore) -> None:
    job = added(store)
    other = added(store)
    running = claimed(job, NOON + timedelta(hours=1))
    store.update([Update(job, running, Change.CLAIMED, {"why": "π", "n": [1, None]})]).result(10)
    events = store.events()
    assert [(e.job_id, e.kind, e.status, e.attempt, e.at, dict(e.data)) for e in events] == [
        (job.id, Change.SUBMITTED, JobStatus.PENDING, 1, job.created_at, {}),
        (other.id, Change.SUBMITTED, JobStatus.PENDING, 1, other.created_at, {}),
        (job.id, Change.CLAIMED, JobStatus.RUNNING, 1, running.updated_at, {"why": "π", "n": [1, None]}),
    ]
    assert [e.seq for e in events] == sorted({e.seq for e in events})
    assert list(store.events(job_id=job.id)) == [events[0], events[2]]
    assert list(store.events(after_seq=events[0].seq, limit=1)) == [events[1]]
    assert list(store.events(job_id=job.id, after_seq=events[0].seq)) == [events[2]]


def test_event_numbers_are_not_reused_after_a_delete(store: JobStore) -> None:
    job = added(store)
    last = store.events()[-1].seq
    store.delete(job).result(10)
    added(store)
    assert store.events()[-1].seq > last


def test_counts_name_every_status_and_agree_with_a_recount(store: JobStore) -> None:
    assert store.counts() == dict.fromkeys(JobStatus, 0)
    jobs = [added(store, workflow=f"w{i % 2}") for i in range(6)]
    running = claim(store, jobs[0])
    store.update(
        [
            Update(running, ended(running, Outcome(Reason.LOST, NOON)), Change.ENDED),
            Update(jobs[1], cancel_asked(jobs[1], NOON), Change.CANCEL_REQUESTED),
        ]
    ).result(10)
    store.delete(jobs[2]).result(10)
    items = store.list(JobQuery()).items
    assert store.counts() == {status: sum(j.status is status for j in items) for status in JobStatus}
    for status in JobStatus:
        page = store.list(JobQuery(statuses=(status,), workflow="w1"))
        assert page.total == len(page.items)


# ---------------------------------------------------------------- the check


def test_check_passes_on_a_store_that_works(store: JobStore) -> None:
    store.check()
    store.check()
    assert store.list(JobQuery()).total == 0

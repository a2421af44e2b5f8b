"""What every job store promises about pages, the queue and names."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from runner.job_store import JobQuery, Update
from runner.jobs import Change, Job, JobStatus, Outcome, Reason, cancel_asked, claimed, ended
from tests.support.stores import KINDS, NOON, a_job, added, open_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runner.job_store import JobStore


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[JobStore]:
    store = open_store(request.param, tmp_path)
    yield store
    store.close()


def names(store: JobStore, **query: object) -> list[str | None]:
    return [job.spec.name for job in store.list(JobQuery(**query)).items]  # type: ignore[arg-type]


def move(store: JobStore, job: Job, status: JobStatus) -> Job:
    running = claimed(job, NOON)
    steps: list[tuple[Job, Change]] = []
    match status:
        case JobStatus.PENDING:
            return job
        case JobStatus.RUNNING:
            steps = [(running, Change.CLAIMED)]
        case JobStatus.CANCELLED:
            steps = [(cancel_asked(job, NOON), Change.CANCEL_REQUESTED)]
        case JobStatus.COMPLETED | JobStatus.FAILED:
            reason = Reason.EXITED_ZERO if status is JobStatus.COMPLETED else Reason.LOST
            steps = [(running, Change.CLAIMED), (ended(running, Outcome(reason, NOON)), Change.ENDED)]
    for after, kind in steps:
        assert store.update([Update(job, after, kind)]).result(10) == [after]
        job = after
    return job


# ---------------------------------------------------------------- paging


@pytest.mark.parametrize("order", ["desc", "asc"])
def test_pages_follow_each_other_without_gap_or_repeat(store: JobStore, order: str) -> None:
    jobs = [added(store) for _ in range(11)]
    expected = jobs if order == "asc" else jobs[::-1]
    query = JobQuery(limit=4, order=order)  # type: ignore[arg-type]
    seen: list[Job] = []
    sizes = []
    while True:
        page = store.list(query)
        sizes.append(len(page.items))
        seen.extend(page.items)
        assert (page.total, page.total_is_exact) == (11, True)
        if not page.has_more:
            break
        query = replace(query, after_seq=page.items[-1].seq)
    assert seen == expected
    assert sizes == [4, 4, 3]


def test_a_page_that_ends_exactly_with_the_last_job_has_no_more(store: JobStore) -> None:
    for _ in range(4):
        added(store)
    assert store.list(JobQuery(limit=4)).has_more is False
    assert store.list(JobQuery(limit=3)).has_more is True


def test_jobs_added_or_deleted_between_pages_move_nothing(store: JobStore) -> None:
    jobs = [added(store) for _ in range(6)]
    first = store.list(JobQuery(limit=2))
    added(store)
    store.delete(first.items[-1]).result(10)
    store.delete(jobs[3]).result(10)
    rest = store.list(JobQuery(after_seq=first.items[-1].seq))
    assert [job.id for job in rest.items] == [jobs[i].id for i in (2, 1, 0)]
    assert rest.total == 5


def test_a_cursor_beyond_every_job_is_an_empty_page(store: JobStore) -> None:
    job = added(store)
    for order, seq in (("desc", job.seq), ("desc", 0), ("asc", job.seq), ("asc", 2**70), ("desc", -(2**70))):
        page = store.list(JobQuery(after_seq=seq, order=order))  # type: ignore[arg-type]
        assert (page.items, page.total, page.has_more) == ((), 1, False)


def test_an_empty_store_has_an_empty_page(store: JobStore) -> None:
    page = store.list(JobQuery())
    assert (page.items, page.total, page.total_is_exact, page.has_more) == ((), 0, True, False)


# ---------------------------------------------------------------- filters


def test_statuses_are_alternatives_and_everything_else_holds_together(store: JobStore) -> None:
    for i, status in enumerate(JobStatus):
        for workflow in ("a", "b"):
            move(
                store,
                added(store, name=f"{workflow}-{status}", workflow=workflow, labels={"n": str(i)}),
                status,
            )
    assert names(store, statuses=(JobStatus.RUNNING,)) == ["b-running", "a-running"]
    both = (JobStatus.FAILED, JobStatus.PENDING, JobStatus.FAILED)
    assert names(store, statuses=both, order="asc") == ["a-pending", "b-pending", "a-failed", "b-failed"]
    assert names(store, statuses=both, workflow="b", limit=1) == ["b-failed"]
    assert names(
        store,
        statuses=both,
        workflow="b",
        limit=1,
        after_seq=store.list(JobQuery(statuses=both, workflow="b")).items[0].seq,
    ) == ["b-pending"]
    assert names(store, statuses=tuple(JobStatus), workflow="a", labels=(("n", "2"),)) == ["a-completed"]
    assert names(store, statuses=both, q="A-") == ["a-failed", "a-pending"]
    for query, total in (
        (JobQuery(statuses=both), 4),
        (JobQuery(workflow="a"), 5),
        (JobQuery(statuses=both, workflow="a"), 2),
        (JobQuery(statuses=both, labels=(("n", "0"),)), 2),
        (JobQuery(workflow="c"), 0),
        (JobQuery(statuses=tuple(JobStatus)), 10),
    ):
        page = store.list(query)
        assert (page.total, page.total_is_exact, len(page.items)) == (total, True, total)


def test_labels_must_all_be_there_with_their_values(store: JobStore) -> None:
    added(store, name="ab", labels={"a": "1", "b": "2"})
    added(store, name="a", labels={"a": "1"})
    added(store, name="other", labels={"a": "2", "1": "a"})
    added(store, name="none")
    assert names(store, labels=(("a", "1"),)) == ["a", "ab"]
    assert names(store, labels=(("a", "1"), ("b", "2"))) == ["ab"]
    assert names(store, labels=(("b", "2"), ("a", "1"), ("b", "2"))) == ["ab"]
    assert names(store, labels=(("a", "1"), ("a", "2"))) == []
    assert names(store, labels=(("a", ""),)) == []
    assert names(store, labels=(("a", "%"),)) == []


def test_a_range_of_times_leaves_both_its_ends_out(store: JobStore) -> None:
    moment = timedelta(microseconds=1)
    for i in range(5):
        added(store, a_job(at=NOON + i * moment, name=str(i)))
    assert names(store, created_after=NOON + moment) == ["4", "3", "2"]
    assert names(store, created_before=NOON + moment) == ["0"]
    assert names(store, created_after=NOON, created_before=NOON + 3 * moment, order="asc") == ["1", "2"]
    assert names(store, created_after=NOON + 4 * moment) == []
    assert names(store, created_after=NOON + 3 * moment, created_before=NOON) == []


def test_a_clock_that_jumps_back_hides_no_job_from_a_range_of_times(store: JobStore) -> None:
    for name, hours in (("0", 0), ("10", 10), ("1", 1), ("2", 2), ("11", 11), ("-5", -5)):
        added(store, a_job(at=NOON + timedelta(hours=hours), name=name))

    def between(after: float | None, before: float | None) -> list[str | None]:
        return names(
            store,
            created_after=None if after is None else NOON + timedelta(hours=after),
            created_before=None if before is None else NOON + timedelta(hours=before),
            order="asc",
        )

    assert between(0.5, 5) == ["1", "2"]
    assert between(None, 0.5) == ["0", "-5"]
    assert between(1.5, None) == ["10", "2", "11"]
    assert between(-6, -4) == ["-5"]
    assert between(20, None) == []


# ---------------------------------------------------------------- names and ids


def test_q_finds_a_part_of_the_name_in_any_case(store: JobStore) -> None:
    for name in ("Sample-A12", "other", "ÅNGSTRÖM straße", None, "sAMple"):
        added(store, name=name)
    assert names(store, q="SAMPLE") == ["sAMple", "Sample-A12"]
    assert names(store, q="ple-a") == ["Sample-A12"]
    assert names(store, q="ångström") == ["ÅNGSTRÖM straße"]
    assert names(store, q="STRASSE") == ["ÅNGSTRÖM straße"]
    assert names(store, q="sample-a12 ") == []
    assert names(store, q="", limit=2) == ["sAMple", None]


def test_one_or_two_characters_find_the_beginning_of_a_name(store: JobStore) -> None:
    for name in ("Sample", "as", "s", "Éa", "%x"):
        added(store, name=name)
    assert names(store, q="S") == ["s", "Sample"]
    assert names(store, q="sa") == ["Sample"]
    assert names(store, q="é") == ["Éa"]
    assert names(store, q="%") == ["%x"]
    assert names(store, q="%x") == ["%x"]
    assert names(store, q="_a") == []


@pytest.mark.parametrize(
    "special",
    [
        "100%",
        "a_b",
        'say "hi"',
        "it's",
        "a*b",
        "(x)",
        "a AND b",
        "a OR b",
        "NOT a",
        "name:x",
        "x^y",
        "-a-",
        "a+b",
        "{x}",
        "\\d\\",
        "NEAR(a b)",
        "a\tb",
        "?:@",
    ],
)
def test_signs_with_a_meaning_in_sql_mean_themselves_in_q(store: JobStore, special: str) -> None:
    for name in (f"<{special}>", "100 per cent", "aXb", "a b", "say hi", "plain"):
        added(store, name=name)
    assert names(store, q=special) == [f"<{special}>"]


@pytest.mark.parametrize(
    "q", ["a\0b", "\0", "\ud800bc", '"""', "'; DROP TABLE jobs; --", "😀😀😀", "x" * 5000]
)
def test_a_q_that_no_name_can_hold_finds_nothing(store: JobStore, q: str) -> None:
    added(store, name="abc")
    page = store.list(JobQuery(q=q))
    assert (page.items, page.total) == ((), 0)


def test_q_finds_the_beginning_of_an_id_from_eight_characters_on(store: JobStore) -> None:
    wanted = added(store, a_job(job_id="019aaaaa-bbbb-7ccc-8000-000000000001"))
    added(store, a_job(job_id="019aaaab-bbbb-7ccc-8000-000000000002"))
    named = added(store, a_job(job_id="019aaaac-bbbb-7ccc-8000-000000000003", name="like 019AAAAA-bbbb"))
    assert [job.id for job in store.list(JobQuery(q=wanted.id)).items] == [wanted.id]
    assert [job.id for job in store.list(JobQuery(q="019AAAAA")).items] == [named.id, wanted.id]
    assert store.list(JobQuery(q="019aaaaa-bbbb")).total == 2
    assert store.list(JobQuery(q="19aaaaa-")).total == 1
    assert store.list(JobQuery(q="019a")).total == 1


def test_a_job_found_by_its_name_and_its_id_comes_once(store: JobStore) -> None:
    job = added(store, a_job(job_id="019aaaaa-bbbb-7ccc-8000-000000000001", name="x 019aaaaa"))
    page = store.list(JobQuery(q="019aaaaa"))
    assert (page.items, page.total) == ((job,), 1)


# ---------------------------------------------------------------- the queue


def test_pending_is_by_priority_then_age_and_only_what_fits(store: JobStore) -> None:
    wanted = [
        ("low", -1, 1),
        ("big", 9, 8),
        ("first", 5, 1),
        ("second", 5, 2),
        ("zero", 0, 1),
        ("third", 5, 1),
    ]
    for name, priority, cores in wanted:
        added(store, name=name, priority=priority, cores=cores)
    running = added(store, name="running", priority=99)
    move(store, running, JobStatus.RUNNING)

    def pending(max_cores: int, limit: int) -> list[str | None]:
        return [job.spec.name for job in store.pending(max_cores=max_cores, limit=limit)]

    assert pending(8, 10) == ["big", "first", "second", "third", "zero", "low"]
    assert pending(2, 10) == ["first", "second", "third", "zero", "low"]
    assert pending(1, 2) == ["first", "third"]
    assert pending(0, 10) == []
    assert pending(8, 0) == []


def test_running_is_by_age(store: JobStore) -> None:
    jobs = [added(store) for _ in range(4)]
    for i in (2, 0, 3):
        move(store, jobs[i], JobStatus.RUNNING)
    assert [job.id for job in store.running()] == [jobs[i].id for i in (0, 2, 3)]


def test_a_total_of_a_filter_stops_somewhere_and_says_so(store: JobStore) -> None:
    futures = [store.add(a_job(name="many", labels={"a": "b"})) for _ in range(10_001)]
    futures[-1].result(60)
    last = futures[-1].result().job
    labelled, named = JobQuery(labels=(("a", "b"),)), JobQuery(q="man")
    for query, stops_at in (
        (labelled, 10_000),
        (JobQuery(created_after=NOON - timedelta(1)), 10_000),
        (named, 5_000),
    ):
        page = store.list(replace(query, limit=2))
        assert (page.total, page.total_is_exact, page.has_more) == (stops_at, False, True)
    page = store.list(replace(named, labels=labelled.labels, statuses=(JobStatus.PENDING,), limit=2))
    assert 2 <= page.total <= 10_001
    assert page.total_is_exact is False
    for query in (JobQuery(), JobQuery(workflow="demo"), JobQuery(statuses=(JobStatus.PENDING,))):
        page = store.list(replace(query, limit=2))
        assert (page.total, page.total_is_exact, page.has_more) == (10_001, True, True)
    store.delete(last).result(10)
    page = store.list(JobQuery(labels=(("a", "b"),)))
    assert (page.total, page.total_is_exact) == (10_000, True)


def test_a_large_page_holds_every_job_it_was_asked_for(store: JobStore) -> None:
    futures = [store.add(a_job()) for _ in range(1100)]
    expected = [future.result(10).job for future in futures]
    page = store.list(JobQuery(limit=1050, order="asc"))
    assert list(page.items) == expected[:1050]
    assert page.has_more is True


def test_a_store_that_is_being_written_to_answers_reads_at_once(store: JobStore) -> None:
    done = []
    deadline = time.monotonic() + 20
    futures = [store.add(a_job()) for _ in range(2000)]
    while not futures[-1].done():
        assert time.monotonic() < deadline
        page = store.list(JobQuery(limit=3))
        assert page.total >= len(page.items)
        done.append(page.total)
    assert done == sorted(done)

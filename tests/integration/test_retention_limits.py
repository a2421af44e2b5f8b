"""Retention by age and by size on a real store, with a clock that the test sets."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from runner.errors import JobNotFound
from runner.jobs import Change, Outcome, Reason, claimed, ended, retried
from runner.removal import JobRemoval
from runner.retention import Retention
from runner.stores.memory import MemoryStore
from tests.support.stores import KINDS, a_job, added, changed, ended_at, open_store
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, MutableMapping, Sequence
    from pathlib import Path

    from runner.job_store import EndedJob, JobStore
    from runner.jobs import Job

every_store = pytest.mark.parametrize("house", KINDS, indirect=True)
DAY_S = 86_400.0
HOUR_S = 3_600.0
TODAY = datetime(2026, 6, 1, 9, 0, tzinfo=UTC)
LONG_AGO = TODAY - timedelta(days=400)
MIB = 2**20


class SetClock:
    """Stands still until it is moved; `looks` counts how often it was asked."""

    def __init__(self) -> None:
        self._both = (TODAY.timestamp(), 1000.0)
        self.looks = 0

    def read(self) -> tuple[float, float]:
        self.looks += 1
        return self._both

    def advance(self, seconds: float) -> None:
        wall, steady = self._both
        self._both = (wall + seconds, steady + seconds)

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._both[0], UTC)

    def jump(self, seconds: float) -> None:
        """The wall clock alone."""
        wall, steady = self._both
        self._both = (wall + seconds, steady)


class House:
    """A store with jobs and their files, and a retention to be run on them."""

    def __init__(self, data_dir: Path, store: JobStore) -> None:
        (data_dir / "jobs").mkdir(parents=True, exist_ok=True)
        self.data_dir = data_dir
        self.store = store
        self.clock = SetClock()

    def job(self, end: datetime, *, size: int = 4096, submitted: datetime | None = None) -> Job:
        return self.with_files(ended_at(self.store, end, a_job(at=submitted or LONG_AGO)), size)

    def with_files(self, job: Job, size: int) -> Job:
        work = self.data_dir / "jobs" / job.id / "work"
        work.mkdir(parents=True, exist_ok=True)
        (work / "data").write_bytes(os.urandom(size))
        return job

    def has_row(self, job: Job) -> bool:
        try:
            return self.store.get(job.id).id == job.id
        except JobNotFound:
            return False

    def is_there(self, job: Job) -> bool:
        """Row and files, never one without the other: while it is not being deleted."""
        assert (self.data_dir / "jobs" / job.id / "work" / "data").exists() == self.has_row(job)
        return self.has_row(job)

    def kept(self, jobs: list[Job]) -> list[bool]:
        return [self.is_there(job) for job in jobs]

    @contextmanager
    def retention(self, **settings: Any) -> Iterator[Retention]:
        values = {
            "retention_s": None,
            "max_data_bytes": None,
            "first_after_s": 0.0,
            "every_s": 600.0,
        } | settings
        retention = Retention(
            data_dir=self.data_dir,
            store=self.store,
            removal=JobRemoval(self.data_dir, self.store),
            clock=self.clock,
            count_every_s=0.005,
            **values,
        )
        retention.start()
        try:
            yield retention
        finally:
            retention.close()
        assert not [thread for thread in threading.enumerate() if thread.name == "retention"]

    def looked(self) -> None:
        """Wait until the retention has looked at the clock, and done what it does then, a few times more."""
        for _ in range(2):
            before = self.clock.looks
            wait_until(lambda n=before: self.clock.looks > n + 3, what="the retention to look")  # type: ignore[misc]

    def swept(self, jobs: list[Job]) -> None:
        wait_until(lambda: not any(map(self.has_row, jobs)), what="the jobs to be deleted")
        self.looked()
        assert not any(self.kept(jobs))


@pytest.fixture(params=["memory"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    """With a quick store, where it makes no difference; one of each kind in tests marked `every_store`."""
    store = open_store(request.param, tmp_path)
    yield House(tmp_path, store)
    store.close()


def events(logs: list[MutableMapping[str, Any]], name: str) -> list[MutableMapping[str, Any]]:
    return [line for line in logs if line["event"] == name]


# ---------------------------------------------------------------- age


@every_store
def test_jobs_that_ended_too_long_ago_are_deleted_and_no_others(house: House) -> None:
    old = [house.job(TODAY - timedelta(days=8, minutes=i)) for i in range(45)]
    just = house.job(TODAY - timedelta(days=7))
    young = house.job(TODAY - timedelta(days=7) + timedelta(hours=1))
    # Submitted long ago, but not ended, or not for long.
    pending, running = (added(house.store, a_job(at=TODAY - timedelta(days=99))) for _ in range(2))
    changed(house.store, running, claimed(running, TODAY - timedelta(days=98)), Change.CLAIMED)
    long_run = house.job(TODAY - timedelta(days=1), submitted=TODAY - timedelta(days=90))
    again = house.job(TODAY - timedelta(days=80))
    changed(house.store, again, retried(again, TODAY - timedelta(days=79)), Change.RETRIED)
    staying = [young, long_run, again, *(house.with_files(job, 10) for job in (pending, running))]
    with capture_logs() as logs, house.retention(retention_s=7 * DAY_S):
        house.swept([*old, just])
        assert all(house.kept(staying))
        house.clock.advance(600)
        wait_until(lambda: not house.store.leftovers(), what="the next sweep")
    assert {line["job_id"] for line in events(logs, "job.deleted")} == {job.id for job in [*old, just]}
    assert {line["why"] for line in events(logs, "job.deleted")} == {"too old"}
    assert os.listdir(house.data_dir / "trash") == []


class Meanwhile(MemoryStore):
    """Lets something happen right after ended jobs were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.then: list[Callable[[], object]] = []

    def ended(self, *, after: EndedJob | None = None, limit: int = 500) -> Sequence[EndedJob]:
        page = super().ended(after=after, limit=limit)
        while self.then:
            self.then.pop()()
        return page


@pytest.mark.parametrize("ends_again", [False, True])
def test_a_job_retried_at_that_very_moment_is_not_deleted(tmp_path: Path, *, ends_again: bool) -> None:
    store = Meanwhile()
    house = House(tmp_path, store)
    other, job = (house.job(TODAY - timedelta(days=day)) for day in (9, 8))

    def retry() -> None:
        again = changed(store, job, retried(job, TODAY), Change.RETRIED)
        if ends_again:
            running = changed(store, again, claimed(again, TODAY), Change.CLAIMED)
            changed(store, running, ended(running, Outcome(Reason.LOST, ended_at=TODAY)), Change.ENDED)

    store.then.append(retry)
    with house.retention(retention_s=7 * DAY_S):
        house.swept([other])
        assert house.is_there(job)


def test_jobs_grow_old_while_the_service_runs(house: House) -> None:
    jobs = [house.job(TODAY - timedelta(days=day)) for day in (3, 2)]
    with house.retention(retention_s=4 * DAY_S):
        house.looked()
        assert house.kept(jobs) == [True, True]
        house.clock.advance(DAY_S)
        house.swept(jobs[:1])
        assert house.kept(jobs) == [False, True]
        soon = house.job(house.clock.now() - timedelta(days=4) + timedelta(minutes=5))
        house.clock.advance(599)  # it would be old enough, but it is not time yet
        house.looked()
        assert house.is_there(soon)
        house.clock.advance(1)
        house.swept([soon])
        house.clock.advance(DAY_S)
        house.swept(jobs)


def test_without_a_limit_nothing_is_deleted(house: House) -> None:
    job = house.job(TODAY - timedelta(days=9999))
    with house.retention() as retention:
        house.clock.advance(DAY_S)
        house.looked()
        assert house.is_there(job)
        assert retention.used_bytes is None, "nor is anything counted"


def test_the_first_sweep_waits_for_the_machines_clock_to_be_set(house: House) -> None:
    job = house.job(TODAY - timedelta(days=8))
    with house.retention(retention_s=7 * DAY_S, max_data_bytes=1, first_after_s=300.0):
        house.clock.advance(299)
        house.looked()
        assert house.is_there(job)
        house.clock.advance(1)
        house.swept([job])


# ---------------------------------------------------------------- clocks


@pytest.mark.parametrize("days", [10, -10])
def test_a_jump_of_the_clock_puts_everything_off_for_an_hour(house: House, days: int) -> None:
    old, young = house.job(TODAY - timedelta(days=20)), house.job(TODAY - timedelta(days=1))
    with (
        capture_logs() as logs,
        house.retention(retention_s=7 * DAY_S, max_data_bytes=1, first_after_s=300.0),
    ):
        house.looked()
        house.clock.jump(days * DAY_S)
        house.looked()
        house.clock.advance(HOUR_S - 1)
        house.looked()
        assert house.kept([old, young]) == [True, True]
        house.clock.jump(-days * DAY_S)  # mended: that is a jump, too
        house.looked()
        house.clock.advance(HOUR_S - 1)
        house.looked()
        assert house.kept([old, young]) == [True, True]
        house.clock.advance(1)
        house.swept([old])
    jumps = events(logs, "retention.clock_jumped")
    assert [line["by_s"] for line in jumps] == [days * DAY_S, -days * DAY_S]
    assert all(line["log_level"] == "warning" for line in jumps)


def test_a_clock_that_is_corrected_by_less_than_a_minute_changes_nothing(house: House) -> None:
    job = house.job(TODAY - timedelta(days=6))
    with capture_logs() as logs, house.retention(retention_s=7 * DAY_S):
        for _ in range(5):
            house.clock.jump(59)
            house.looked()
        house.clock.advance(DAY_S)
        house.swept([job])
    assert events(logs, "retention.clock_jumped") == []


def test_a_job_whose_end_was_written_with_a_clock_set_back_counts_as_young(house: House) -> None:
    first = house.job(TODAY - timedelta(hours=3), submitted=TODAY - timedelta(hours=4))
    # Ten days wrong for an hour, and mended since.
    wrong = TODAY - timedelta(days=10)
    then = [house.job(wrong, submitted=wrong), house.job(wrong, submitted=TODAY - timedelta(hours=2))]
    old = ended_at(house.store, TODAY - timedelta(days=8), a_job(at=TODAY - timedelta(days=9)))
    with house.retention(retention_s=7 * DAY_S):
        house.looked()
        assert all(house.kept([first, *then]))
        house.clock.advance(7 * DAY_S)
        house.swept([first, *then, house.with_files(old, 1)])


def test_a_submission_with_a_clock_far_ahead_keeps_later_jobs_from_ageing_no_longer_than_itself(
    house: House,
) -> None:
    ahead = TODAY + timedelta(days=3650)
    wrong = house.job(ahead, submitted=ahead)
    later = house.job(TODAY - timedelta(days=8))
    with house.retention(retention_s=7 * DAY_S):
        house.swept([later])
        assert house.is_there(wrong)


# ---------------------------------------------------------------- size


@every_store
def test_beyond_the_limit_the_oldest_ended_jobs_go_until_it_is_kept(house: House) -> None:
    jobs = [house.job(TODAY - timedelta(days=day), size=MIB) for day in (2, 5, 1, 4, 3)]
    empty = ended_at(house.store, TODAY - timedelta(days=9))  # its deletion would free nothing
    running = added(house.store, a_job(at=TODAY - timedelta(days=6)))
    running = changed(house.store, running, claimed(running, TODAY - timedelta(days=6)), Change.CLAIMED)
    house.with_files(running, 2 * MIB)
    with capture_logs() as logs, house.retention(max_data_bytes=5 * MIB) as retention:
        house.swept([jobs[1], jobs[3], jobs[4]])
        assert house.kept(jobs) == [True, False, True, False, False]
        assert house.is_there(running)
        assert house.store.get(empty.id) == empty
        wait_until(lambda: (retention.used_bytes or 0) > 4 * MIB, what="the count")
        assert 4 * MIB < (retention.used_bytes or 0) < 4.2 * MIB
    assert [line["job_id"] for line in events(logs, "job.deleted")] == [jobs[1].id, jobs[3].id, jobs[4].id]
    assert {line["why"] for line in events(logs, "job.deleted")} == {"too much data"}
    assert events(logs, "retention.limit_exceeded") == []


def test_up_to_the_limit_nothing_is_deleted(house: House) -> None:
    jobs = [house.job(TODAY - timedelta(days=day), size=MIB) for day in (2, 5, 1)]
    with house.retention(max_data_bytes=4 * MIB) as retention:
        wait_until(lambda: retention.used_bytes, what="the count")
        house.looked()
        assert all(house.kept(jobs))


def test_a_limit_that_running_jobs_exceed_is_told_once_and_costs_no_running_job(house: House) -> None:
    running = [added(house.store, a_job(at=TODAY)) for _ in range(2)]
    for job in running:
        changed(house.store, job, claimed(job, TODAY), Change.CLAIMED)
        house.with_files(job, MIB)
    finished = house.job(TODAY - timedelta(days=1), size=MIB)
    with capture_logs() as logs, house.retention(max_data_bytes=MIB):
        house.swept([finished])
        wait_until(lambda: events(logs, "retention.limit_exceeded"), what="the warning")
        for _ in range(3):
            house.clock.advance(600)
            house.looked()
        assert all(house.kept(running))
    (told,) = events(logs, "retention.limit_exceeded")
    assert told["log_level"] == "warning"
    assert told["limit_bytes"] == MIB
    assert 2 * MIB < told["used_bytes"] < 2.2 * MIB


def test_by_size_a_job_with_a_doubtful_clock_goes_last(house: House) -> None:
    early = house.job(TODAY - timedelta(days=3), size=MIB, submitted=TODAY - timedelta(days=4))
    wrong = house.job(TODAY - timedelta(days=30), submitted=TODAY - timedelta(days=30), size=MIB)
    late = house.job(TODAY - timedelta(days=1), size=MIB)
    with house.retention(max_data_bytes=int(2.2 * MIB)):
        house.swept([early])
        assert house.kept([wrong, late]) == [True, True]
    with house.retention(max_data_bytes=int(0.5 * MIB)):
        house.swept([wrong, late])


# ---------------------------------------------------------------- trouble, and the end


def test_trouble_puts_a_sweep_off_and_the_next_one_goes_on(house: House, tmp_path: Path) -> None:
    job = house.job(TODAY - timedelta(days=8))
    jobs, aside = house.data_dir / "jobs", tmp_path / "aside"
    jobs.rename(aside)
    jobs.symlink_to(aside)
    with capture_logs() as logs, house.retention(retention_s=7 * DAY_S, max_data_bytes=2**40):
        wait_until(lambda: len(events(logs, "retention.put_off")) > 3, what="the trouble to be told")
        assert house.is_there(job)
        jobs.unlink()
        aside.rename(jobs)
        house.clock.advance(600)
        house.swept([job])


def test_a_deletion_cut_short_is_completed_at_the_next_start(house: House) -> None:
    job = house.job(TODAY)
    house.store.delete(job).result(10)
    with house.retention(first_after_s=1e9):
        wait_until(lambda: not house.store.leftovers(), what="the deletion to be completed")
    assert os.listdir(house.data_dir / "jobs") == []

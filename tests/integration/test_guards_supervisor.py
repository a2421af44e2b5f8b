"""What keeps the supervisor and the service right when two things happen at once.

The other thing is made to happen just before a change is stored: the moment a race is lost.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from runner.errors import StoreUnavailable
from runner.job_store import Update
from runner.jobs import Change, JobStatus, Progress, Reason, cancel_asked, claimed, progressed, retried
from runner.ports import Handle, Lost
from runner.stores.sql import SqlStore, sqlite
from tests.support.runners import Hold, RunningRunner, settings_for
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from runner.jobs import Job


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[RunningRunner]:
    with contextlib.closing(RunningRunner(settings_for(tmp_path / "data"))) as runner:
        yield runner


@pytest.fixture
def hold(tmp_path: Path) -> Hold:
    return Hold(tmp_path)


def just_before(runner: RunningRunner, kind: Change, act: Callable[[Job], object]) -> list[Job]:
    """Call `act` with the job as it was, right before the first change of this kind is stored."""
    store = runner._runner._store
    update = store.update
    met: list[Job] = []

    def overtaken(updates: Sequence[Update]) -> Future[list[Job | None]]:
        jobs = [each.before for each in updates if each.kind is kind]
        if jobs and not met:
            met.append(jobs[0])
            act(jobs[0])
        return update(updates)

    store.update = overtaken  # type: ignore[method-assign]
    return met


def bump(runner: RunningRunner) -> Callable[[Job], object]:
    """A change that only makes the version known until now an old one."""

    def change(job: Job) -> None:
        now = runner.service.get(job.id)
        later = progressed(now, datetime.now(UTC), Progress(3, 1), None)
        assert runner._runner._store.update([Update(now, later, Change.PROGRESSED)]).result(10) == [later]

    return change


def test_a_job_cancelled_while_it_is_being_claimed_is_not_started(runner: RunningRunner) -> None:
    met = just_before(runner, Change.CLAIMED, lambda job: runner.service.cancel(job.id))
    first = runner.ended(runner.submit())
    assert [job.id for job in met] == [first.id]
    assert (first.status, first.reason) == (JobStatus.CANCELLED, Reason.CANCEL_REQUESTED)
    assert (
        runner.ended(runner.submit()).status is JobStatus.COMPLETED
    )  # launched behind the first, if that was
    assert not runner.job_dir(first).exists()


def test_a_cancel_that_loses_a_race_is_made_again(runner: RunningRunner, hold: Hold) -> None:
    job = runner.wait_for(runner.submit(hold=hold.path), lambda j: j.progress is not None)
    met = just_before(runner, Change.CANCEL_REQUESTED, bump(runner))
    answer = runner.service.cancel(job.id)
    assert met
    assert answer.cancel_requested_at is not None
    assert runner.service.get(job.id).cancel_requested_at == answer.cancel_requested_at
    assert runner.ended(job).status is JobStatus.CANCELLED


def test_a_job_that_ends_while_it_is_being_cancelled_has_its_result_recorded(runner: RunningRunner) -> None:
    met = just_before(runner, Change.ENDED, lambda job: runner.service.cancel(job.id))
    job = runner.ended(runner.submit(exit_code=0), timeout_s=5)
    assert met
    assert (job.status, job.exit_code) == (JobStatus.COMPLETED, 0)
    assert job.cancel_requested_at is not None


def test_a_result_that_lost_a_race_outlasts_a_store_that_cannot_be_read(
    runner: RunningRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = runner._runner._store
    get = store.get
    refused: list[str] = []

    def fails_once(job_id: str, *, tenant: str | None = None) -> Job:
        if not refused and threading.current_thread().name == "supervisor":
            refused.append(job_id)
            raise StoreUnavailable("it cannot be read just now")
        return get(job_id, tenant=tenant)

    def overtake(job: Job) -> None:
        bump(runner)(job)
        monkeypatch.setattr(store, "get", fails_once)

    just_before(runner, Change.ENDED, overtake)
    job = runner.ended(runner.submit(exit_code=9), timeout_s=5)
    assert refused == [job.id]
    assert (job.status, job.exit_code) == (JobStatus.FAILED, 9)


def test_a_result_outlasts_a_store_that_cannot_be_written(
    tmp_path: Path, hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "_BUSY_TIMEOUT_S", 0.1)
    with contextlib.closing(RunningRunner(settings_for(tmp_path / "data"))) as runner:
        job = runner.wait_for(runner.submit(hold=hold.path, exit_code=9), lambda j: j.progress is not None)
        path, supervisor = tmp_path / "data" / "snakeline.db", runner._runner._supervisor
        failures = supervisor._measurements.store.failures.read

        def events() -> list[str]:
            return [entry["event"] for entry in logged if str(entry["event"]).startswith("supervisor.")]

        with (
            contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other,
            capture_logs() as logged,
        ):
            other.execute("BEGIN IMMEDIATE")
            hold.release()
            wait_until(lambda: supervisor._recorder._outcomes, what="a result")
            before = failures().get("unavailable", 0)  # of its progress, perhaps
            wait_until(
                lambda: failures().get("unavailable", 0) > before + 1, what="a result that cannot be stored"
            )
            assert runner.service.get(job.id).status is JobStatus.RUNNING
            assert events() == ["supervisor.store_unavailable"]
            other.execute("ROLLBACK")
            ended = runner.ended(job)
            wait_until(lambda: len(events()) == 2, what="the end of the trouble")
            assert events()[1] == "supervisor.store_available"
    assert (ended.status, ended.exit_code) == (JobStatus.FAILED, 9)


def test_supervision_goes_on_after_an_error_that_nobody_thought_of(runner: RunningRunner) -> None:
    def fail(_: Job) -> None:
        raise RuntimeError("nobody thought of this")

    met = just_before(runner, Change.ENDED, fail)
    assert runner.ended(runner.submit(exit_code=3)).exit_code == 3
    assert met


def test_a_cancel_that_was_stored_and_not_sent_is_sent_at_the_next_start(
    runner: RunningRunner, hold: Hold
) -> None:
    job = runner.wait_for(runner.submit(hold=hold.path), lambda j: j.progress is not None)
    runner.close()  # as if it had died between the two
    store = SqlStore.open(runner.settings.database_url)
    before = store.get(job.id)
    asked = cancel_asked(before, datetime.now(UTC))
    assert store.update([Update(before, asked, Change.CANCEL_REQUESTED)]).result(10) == [asked]
    store.close()
    runner._runner = type(runner)(runner.settings)._runner
    assert runner.ended(job).status is JobStatus.CANCELLED


def test_a_job_that_was_cancelled_between_claim_and_launch_is_not_launched_by_the_next_service(
    runner: RunningRunner,
) -> None:
    job = runner.ended(runner.submit())
    runner.close()
    store = SqlStore.open(runner.settings.database_url)
    now = datetime.now(UTC)
    again = claimed(retried(replace(job, status=JobStatus.FAILED), now), now)  # as if it had died behind that
    asked = cancel_asked(again, now)
    assert store.update([Update(job, asked, Change.CANCEL_REQUESTED)]).result(10) == [asked]
    store.close()
    runner._runner = type(runner)(runner.settings)._runner
    ended = runner.ended(job)
    assert (ended.attempt, ended.status) == (2, JobStatus.CANCELLED)
    assert not (runner.job_dir(job) / "attempts" / "2").exists()


def test_news_of_an_earlier_attempt_do_not_end_the_next_one(runner: RunningRunner) -> None:
    """As of a second shim that was forked for it, found the attempt taken, and ends late."""
    job = runner.ended(runner.submit(exit_code=1))
    late = (Handle(job.id, 1), Lost("told again"))
    backend = runner._runner._supervisor._backend
    met = just_before(runner, Change.CLAIMED, lambda _: backend._found.append(late))  # type: ignore[attr-defined]
    runner.service.retry(job.id)
    again = runner.ended(job)
    assert met
    assert (again.attempt, again.reason) == (2, Reason.EXITED_NONZERO)

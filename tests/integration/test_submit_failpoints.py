"""The service is killed at named points between a request and its effect; the next goes on just there."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from tests.support.planned_jobs import Plan, Starts, make_workflows
from tests.support.service_failpoints import POINTS
from tests.support.service_under_fire import ServiceUnderFire
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_EXIT_CODE = 7


class Doomed:
    """A service that dies where it is told to, and comes back on the same data, unarmed."""

    def __init__(self, directory: Path, service: ServiceUnderFire) -> None:
        self.service = service
        self.starts = Starts(directory / "starts")
        self._directory = directory
        self._armed = directory / "armed"
        self._keys = 0
        self._command = ("tests.support.service_failpoints", str(self._armed))
        self.service.start(*self._command).until_up()

    def plan(self, *, holds: bool = False, exit_code: int = _EXIT_CODE) -> Plan:
        hold = None
        if holds:
            hold = self._directory / f"hold-{self._keys}"
            os.mkfifo(hold)
        return Plan(exit_code=exit_code, output_bytes=64, count=self.starts.path, hold=hold)

    def key(self) -> str:
        self._keys += 1
        return f"key-{self._keys}"

    def submitted(self, plan: Plan) -> str:
        answer = self.service.submit(plan.body, key=self.key())
        assert answer.status_code == 201, answer.text
        job_id: str = answer.json()["id"]
        return job_id

    def arm(self, point: str) -> None:
        ready = self._armed.with_suffix(".new")
        ready.write_text(point)
        ready.rename(self._armed)

    def until_dead(self) -> None:
        assert self.service.until_killed() == -9
        self._armed.unlink()

    def come_back(self) -> None:
        self.service.start(*self._command).until_up()

    def stored(self) -> dict[str, tuple[str, int]]:
        """Status and attempt of every job, in the dead service's own file."""
        with closing(sqlite3.connect(self.service.data_dir / "snakeline.db")) as connection:
            rows = connection.execute("SELECT id, status, attempt FROM jobs").fetchall()
        return {job_id: (status, attempt) for job_id, status, attempt in rows}

    def until(self, job_id: str, *statuses: str) -> dict[str, Any]:
        def reached() -> dict[str, Any]:
            job = self.service.job(job_id)
            return job if job["status"] in statuses else {}

        return wait_until(reached, timeout_s=20, what=f"{job_id} to be {statuses}")

    def until_started(self, job_id: str, attempt: int = 1) -> None:
        wait_until(lambda: self.starts.counted()[job_id, attempt], timeout_s=20, what=f"{job_id} to start")

    def release(self, plan: Plan) -> None:
        def opened() -> bool:
            try:
                os.close(os.open(plan.hold or "", os.O_WRONLY | os.O_NONBLOCK))
            except OSError:
                return False
            return True

        wait_until(opened, timeout_s=20, what=f"{plan.hold} to be read")

    def ran_once(self, job_id: str, plan: Plan, *, attempts: int = 1) -> None:
        """It ends as planned, and each attempt has started once."""
        job = self.until(job_id, "completed", "failed", "cancelled")
        assert (job["status"], job["exit_code"], job["attempt"]) == (plan.status, plan.exit_code, attempts)
        counted = {key: times for key, times in self.starts.counted().items() if key[0] == job_id}
        assert counted == {(job_id, attempt): 1 for attempt in range(1, attempts + 1)}
        for attempt in range(1, attempts + 1):
            assert plan.log_is_exact(self.service.log_of(job_id, attempt))

    def end_jobs(self) -> None:
        if not self.service.is_started:
            self._armed.unlink(missing_ok=True)
            self.come_back()
        for job in self.service.jobs():
            if job["status"] in ("pending", "running"):
                self.service.client.post(f"/jobs/{job['id']}/cancel")
        self.service.until_all_ended()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doomed]:
    directory = tmp_path_factory.mktemp("failpoints")
    # One core: a job that is held keeps the next one pending until the test is ready for it.
    settings = {"MAX_CORES": "1", "STOP_GRACE_S": "1", "WORKFLOWS_DIR": str(make_workflows(directory))}
    with ServiceUnderFire(directory, settings) as service:
        doomed = Doomed(directory, service)
        yield doomed
        assert service.stop() == 0


@pytest.fixture
def doomed(shared: Doomed) -> Iterator[Doomed]:
    yield shared
    shared.end_jobs()


@pytest.mark.parametrize(
    ("point", "is_stored"),
    [
        ("write-before-begin", False),
        ("write-before-commit", False),
        ("write-after-commit", True),
        ("answer-before-sending", True),
    ],
)
def test_a_submission_cut_off_is_stored_or_not_and_its_repetition_makes_one_job_that_runs_once(
    doomed: Doomed, point: str, *, is_stored: bool
) -> None:
    before = doomed.service.jobs()
    key, plan = doomed.key(), doomed.plan()
    doomed.arm(point)
    with pytest.raises(httpx2.TransportError):
        doomed.service.submit(plan.body, key=key)
    doomed.until_dead()
    new = doomed.stored().keys() - {job["id"] for job in before}
    assert len(new) == is_stored
    doomed.come_back()
    answer = doomed.service.submit(plan.body, key=key)
    assert answer.status_code == 201, answer.text
    assert answer.headers.get("Idempotent-Replayed") == ("true" if is_stored else None)
    job_id = answer.json()["id"]
    assert not is_stored or new == {job_id}
    doomed.ran_once(job_id, plan)
    assert len(doomed.service.jobs()) == len(before) + 1


@pytest.mark.parametrize(
    ("point", "status"),
    [
        ("claim-before-write", "pending"),
        ("launch-before-files", "running"),
        ("launch-after-files", "running"),
        ("launch-after-request", "running"),
        ("launch-after-answer", "running"),
    ],
)
def test_an_acknowledged_job_cut_off_on_its_way_to_the_start_runs_once(
    doomed: Doomed, point: str, status: str
) -> None:
    first_plan, plan = doomed.plan(holds=True), doomed.plan()
    first = doomed.submitted(first_plan)
    doomed.until_started(first)
    job_id = doomed.submitted(plan)
    doomed.arm(point)
    doomed.release(first_plan)
    doomed.until_dead()
    assert doomed.stored()[job_id] == (status, 1)
    doomed.come_back()
    doomed.ran_once(job_id, plan)
    doomed.ran_once(first, first_plan)


@pytest.mark.parametrize(
    ("point", "status"), [("exit-before-write", "running"), ("exit-after-write", "failed")]
)
def test_an_exit_cut_off_on_its_way_to_the_store_is_recorded_exactly(
    doomed: Doomed, point: str, status: str
) -> None:
    plan = doomed.plan(holds=True)
    job_id = doomed.submitted(plan)
    doomed.until_started(job_id)
    doomed.arm(point)
    doomed.release(plan)
    doomed.until_dead()
    assert doomed.stored()[job_id] == (status, 1)
    doomed.come_back()
    doomed.ran_once(job_id, plan)


@pytest.mark.parametrize(
    ("point", "is_kept"),
    [("write-before-commit", False), ("write-after-commit", True), ("cancel-before-signal", True)],
)
def test_a_cancel_cut_off_before_it_is_stored_never_was_and_after_it_is_kept(
    doomed: Doomed, point: str, *, is_kept: bool
) -> None:
    plan = doomed.plan(holds=True)
    job_id = doomed.submitted(plan)
    doomed.until_started(job_id)
    doomed.arm(point)
    try:
        answer = doomed.service.client.post(f"/jobs/{job_id}/cancel")
    except httpx2.TransportError:
        pass
    else:
        assert (point, answer.status_code) == ("cancel-before-signal", 202)
    doomed.until_dead()
    doomed.come_back()
    if is_kept:
        assert doomed.until(job_id, "cancelled")["reason"] == "cancel_requested"
        assert doomed.starts.counted()[job_id, 1] == 1
    else:
        assert doomed.service.job(job_id)["cancel_requested_at"] is None
        doomed.release(plan)
        doomed.ran_once(job_id, plan)


@pytest.mark.parametrize(("point", "attempts"), [("write-before-commit", 1), ("write-after-commit", 2)])
def test_a_retry_cut_off_makes_one_new_attempt_or_none(doomed: Doomed, point: str, attempts: int) -> None:
    plan = doomed.plan()
    job_id = doomed.submitted(plan)
    doomed.until(job_id, "failed")
    doomed.arm(point)
    with pytest.raises(httpx2.TransportError):
        doomed.service.client.post(f"/jobs/{job_id}/retry")
    doomed.until_dead()
    assert doomed.stored()[job_id] == ("failed" if attempts == 1 else "pending", attempts)
    doomed.come_back()
    doomed.ran_once(job_id, plan, attempts=attempts)


def test_every_point_is_met_by_a_test(request: pytest.FixtureRequest) -> None:
    met = {
        arguments[0]
        for function in list(globals().values())
        for mark in getattr(function, "pytestmark", [])
        if mark.name == "parametrize"
        for arguments in mark.args[1]
    }
    assert met == set(POINTS)

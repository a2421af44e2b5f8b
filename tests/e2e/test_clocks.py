"""The wall clock is set by days while jobs run, and the service or its launcher stand still for a while."""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import closing, contextmanager, suppress
from datetime import datetime, timedelta
from itertools import cycle, pairwise
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from runner.jobs import JobSpec, JobStatus, Reason
from tests.support.faketime import SetClock, clocked_server, needs_set_clock
from tests.support.runners import Hold, RunningRunner, settings_for
from tests.support.server import LiveServer, running_server
from tests.support.sse import read_events
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.client import ContractClient

DAYS = 10.0
LATE_S = 5.0
"""How late a deadline may be seen on a busy machine; a clock that is believed is wrong by days."""
EVENTS = {"Accept": "text/event-stream"}


def duration_s(job: dict[str, Any]) -> float:
    return (at(job, "completed_at") - at(job, "started_at")).total_seconds()


def at(job: dict[str, Any], field: str) -> datetime:
    return datetime.fromisoformat(job[field])


def submit_held(client: ContractClient, hold: Hold, **mock: Any) -> str:
    job_id: str = client.submit(parameters={"mock": {"hold": hold.path, **mock}})["id"]
    return job_id


def newest_first(client: ContractClient) -> list[str]:
    """Every job, by pages of one."""
    ids: list[str] = []
    url: str | None = "/jobs?limit=1"
    while url:
        page = client.get(url).json()
        ids += [job["id"] for job in page["items"]]
        url = page["next_cursor"] and f"/jobs?limit=1&cursor={page['next_cursor']}"
    return ids


@contextmanager
def restless(clock: SetClock) -> Iterator[None]:
    """The clock is set to and fro, twenty times a second."""
    enough = threading.Event()

    def go_round() -> None:
        for days in cycle((DAYS, -DAYS, 0.0)):
            clock.jump(days)
            if enough.wait(0.05):
                return

    thread = threading.Thread(target=go_round)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()
        clock.jump(0)


# ---------------------------------------------------------------- the service's clock


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SetClock]:
    with closing(SetClock(tmp_path_factory.mktemp("clock"))) as clock:
        yield clock


@pytest.fixture(scope="module")
def clocked(clock: SetClock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with clocked_server(tmp_path_factory.mktemp("clocked"), clock, MAX_CORES="1", STOP_GRACE_S="1") as server:
        yield server


@needs_set_clock
class TestServiceClock:
    @pytest.fixture(autouse=True)
    def at_the_end_all_is_as_before(self, clocked: LiveServer, clock: SetClock) -> Iterator[None]:
        yield
        clock.jump(0)
        clocked.end_jobs()

    def test_the_service_sees_the_clock_that_was_set(self, clocked: LiveServer, clock: SetClock) -> None:
        clock.jump(-DAYS)
        job = clocked.client.submit(parameters={"mock": {"seconds": 0}})
        assert abs(at(job, "created_at") - clock.now()) < timedelta(seconds=30)

    @pytest.mark.parametrize("days", [DAYS, -DAYS])
    def test_a_deadline_is_kept_when_the_clock_is_set(
        self, clocked: LiveServer, clock: SetClock, tmp_path: Path, days: float
    ) -> None:
        client, hold = clocked.client, Hold(tmp_path)
        job_id = client.submit(timeout_s=1, parameters={"mock": {"hold": hold.path}})["id"]
        client.wait_for(job_id, "running")
        clock.jump(days)
        job = client.wait_for(job_id)
        assert job["reason"] == "timed_out"
        assert 1 <= duration_s(job) < 1 + LATE_S

    def test_a_long_poll_keeps_its_time_and_still_hears_of_changes(
        self, clocked: LiveServer, clock: SetClock, tmp_path: Path
    ) -> None:
        client, hold = clocked.client, Hold(tmp_path)
        client.wait_for(submit_held(client, hold), "running")
        # It waits for the only core: nothing becomes of it meanwhile.
        job_id = client.submit(parameters={"mock": {"seconds": 0}})["id"]
        etag = client.get(f"/jobs/{job_id}").headers["etag"]
        with restless(clock):
            began = time.monotonic()
            answer = client.get(f"/jobs/{job_id}?wait=1", headers={"If-None-Match": etag})
            took_s = time.monotonic() - began
            assert answer.status_code == 304
            assert answer.headers["etag"] == etag
            assert 0.95 <= took_s < 1 + LATE_S

            releasing = threading.Thread(target=hold.release)
            began = time.monotonic()
            releasing.start()
            answer = client.get(f"/jobs/{job_id}?wait=25", headers={"If-None-Match": etag})
            releasing.join()
            assert answer.status_code == 200
            assert answer.headers["etag"] != etag
            assert time.monotonic() - began < 10

    def test_a_follower_is_told_all_and_of_the_end(
        self, clocked: LiveServer, clock: SetClock, tmp_path: Path
    ) -> None:
        client, hold = clocked.client, Hold(tmp_path)
        job_id = submit_held(client, hold, lines=50, exit_code=7)
        client.wait_for(job_id, "running")
        with (
            restless(clock),
            client.stream("GET", f"/jobs/{job_id}/logs?follow=true", headers=EVENTS) as answer,
        ):
            pieces = answer.iter_bytes()
            stream = next(pieces)
            hold.release()
            released = time.monotonic()
            stream += b"".join(pieces)
            assert time.monotonic() - released < 5
        *told, end = read_events(stream)
        assert '"exit_code":7' in end.data
        assert "".join(event.data for event in told).encode() == client.get(f"/jobs/{job_id}/logs").content

    def test_jobs_are_listed_and_started_in_the_order_of_their_submission(
        self, clocked: LiveServer, clock: SetClock, tmp_path: Path
    ) -> None:
        client, hold = clocked.client, Hold(tmp_path)
        first = submit_held(client, hold)  # it takes the only core
        client.wait_for(first, "running")
        ids = [first]
        for days in (DAYS, -DAYS, 0.0, -2 * DAYS):
            clock.jump(days)
            ids.append(client.submit(parameters={"mock": {"seconds": 0}})["id"])
        assert newest_first(client)[: len(ids)] == ids[::-1]
        hold.release()
        jobs = [client.wait_for(job_id, "completed") for job_id in ids]
        started = [at(job, "started_at") for job in jobs]  # by the shims' clock, which is right
        assert started == sorted(started)
        assert newest_first(client)[: len(ids)] == ids[::-1]

    def test_a_jobs_changes_keep_their_order(
        self, clocked: LiveServer, clock: SetClock, tmp_path: Path
    ) -> None:
        client, hold = clocked.client, Hold(tmp_path)
        clock.jump(DAYS)
        seen = [client.submit(parameters={"mock": {"hold": hold.path, "ignore_term": True}})]
        job_id = seen[0]["id"]
        seen.append(client.wait_for(job_id, "running"))
        clock.jump(-DAYS)
        client.post(f"/jobs/{job_id}/cancel")
        seen.append(client.job(job_id))
        clock.jump(0)
        seen.append(client.wait_for(job_id, "cancelled"))
        clock.jump(-DAYS)
        client.post(f"/jobs/{job_id}/retry")
        seen.append(client.wait_for(job_id, "running"))
        hold.release()
        seen.append(client.wait_for(job_id, "completed"))

        for before, after in pairwise(seen):
            assert at(before, "updated_at") <= at(after, "updated_at")
        assert 0 <= duration_s(seen[-1]) < 30
        with closing(sqlite3.connect(f"file:{clocked.data_dir}/snakeline.db?mode=ro", uri=True)) as store:
            rows = store.execute(
                "SELECT kind FROM job_events e JOIN jobs j ON j.seq = job_seq WHERE j.id = ? ORDER BY e.seq",
                (job_id,),
            )
            kinds = [kind for (kind,) in rows if kind != "progressed"]
        assert kinds == ["submitted", "claimed", "cancel_requested", "ended", "retried", "claimed", "ended"]

    def test_after_a_restart_in_the_past_new_jobs_are_still_the_newest(
        self, clock: SetClock, tmp_path: Path
    ) -> None:
        with clocked_server(tmp_path, clock) as server:
            hold = Hold(tmp_path)
            held = submit_held(server.client, hold, exit_code=3)
            server.client.wait_for(held, "running")
            server.process.kill()
            server.process.wait()
        clock.jump(-DAYS)
        with clocked_server(tmp_path, clock) as server:
            newer = server.client.submit(parameters={"mock": {"seconds": 0}})
            hold.release()
            job = server.client.wait_for(held)
            assert job["exit_code"] == 3
            assert 0 <= duration_s(job) < 30
            assert at(newer, "created_at") < at(job, "created_at")
            assert newest_first(server.client) == [newer["id"], held]


# ---------------------------------------------------------------- the shim's clock


@needs_set_clock
class TestShimClock:
    @pytest.fixture
    def clock(self, tmp_path: Path) -> Iterator[SetClock]:
        with closing(SetClock(tmp_path)) as clock:
            yield clock

    @pytest.fixture
    def runner(self, tmp_path: Path, clock: SetClock) -> Iterator[RunningRunner]:
        settings = settings_for(tmp_path / "data", python=clock.python(), stop_grace_s=1.0)
        with closing(RunningRunner(settings)) as runner:
            yield runner

    @pytest.mark.parametrize("days", [DAYS, -DAYS])
    def test_deadline_and_duration_are_right_when_the_clock_is_set(
        self, runner: RunningRunner, clock: SetClock, tmp_path: Path, days: float
    ) -> None:
        hold = Hold(tmp_path)
        clock.jump(-days)
        spec = JobSpec(timeout_s=1, parameters={"mock": {"hold": hold.path}})
        job = runner.submit(spec)
        runner.wait_for(job, lambda _: (runner.job_dir(job) / "attempts/1/log.0").exists())
        clock.jump(days)
        began = time.monotonic()
        ended = runner.ended(job)
        assert ended.reason is Reason.TIMED_OUT
        assert time.monotonic() - began < 1 + LATE_S
        assert ended.started_at is not None
        assert ended.completed_at is not None
        # The shim's clock is the one that was set: the attempt began by it.
        assert ended.started_at - job.created_at == pytest.approx(
            timedelta(days=-days), abs=timedelta(minutes=1)
        )
        assert 1 <= (ended.completed_at - ended.started_at).total_seconds() < 1 + LATE_S

    def test_sigkill_comes_after_the_grace_when_the_clock_is_set(
        self, runner: RunningRunner, clock: SetClock, tmp_path: Path
    ) -> None:
        job = runner.submit(hold=str(tmp_path / "never"), ignore_term=True, lines=1)
        runner.wait_for(job, lambda _: (runner.job_dir(job) / "attempts/1/log.0").exists())
        with restless(clock):
            began = time.monotonic()
            runner.service.cancel(job.id)
            ended = runner.wait_for(job, JobStatus.CANCELLED)
            assert 1 <= time.monotonic() - began < 1 + LATE_S
        assert ended.exit_signal == 9


# ---------------------------------------------------------------- standing still


@contextmanager
def stopped(process: psutil.Process) -> Iterator[None]:
    """The process, and no other, stands still."""
    process.suspend()
    try:
        wait_until(lambda: process.status() == psutil.STATUS_STOPPED, what=f"{process} to stop")
        yield
    finally:
        with suppress(psutil.NoSuchProcess):  # a launcher that hangs is replaced after a while
            process.resume()


def until(moment: float) -> None:
    wait_until(lambda: time.monotonic() >= moment, timeout_s=moment, what="the time to pass")


@pytest.mark.parametrize("still_s", [3, pytest.param(60, marks=pytest.mark.soak)])
def test_a_service_that_stood_still_records_what_happened_meanwhile(
    tmp_path: Path, still_s: float, record_property: Any
) -> None:
    with running_server(tmp_path, MAX_CORES="3", STOP_GRACE_S="1") as server:
        client = server.client
        ending, following = Hold(tmp_path, "ending"), Hold(tmp_path, "following")
        late = client.submit(timeout_s=2, parameters={"mock": {"hold": str(tmp_path / "never")}})["id"]
        ends = submit_held(client, ending, exit_code=77, output_bytes=300_000)
        followed = submit_held(client, following, exit_code=5, output_bytes=100_000, lines=10)
        queued = client.submit(parameters={"mock": {"seconds": 0}})["id"]
        ids = [late, ends, followed, queued]
        for job_id in ids[:3]:
            client.wait_for(job_id, "running")
            wait_until(lambda url=f"/jobs/{job_id}/logs": client.get(url).content, what="its output")  # type: ignore[misc]
        answers: dict[str, Any] = {}

        def follow() -> None:
            with client.stream("GET", f"/jobs/{followed}/logs?follow=true", timeout=90) as answer:
                answers["first"] = True
                answers["log"] = answer.read()

        def submit() -> None:
            answers["submitted"] = client.post("/jobs", json={"name": "sent meanwhile"}, timeout=90)

        follower, submitter = threading.Thread(target=follow), threading.Thread(target=submit)
        follower.start()
        wait_until(lambda: "first" in answers, what="the follower's first bytes")
        began = time.monotonic()
        with stopped(psutil.Process(server.process.pid)):
            submitter.start()
            ending.release()
            following.release()
            records = [server.data_dir / "jobs" / job_id / "attempts/1/exit.json" for job_id in ids[:3]]
            wait_until(lambda: all(record.exists() for record in records), what="all jobs to end")
            assert time.monotonic() - began < 2 + LATE_S, "the deadline was kept late"
            until(began + still_s)
        follower.join(20)
        submitter.join(20)

        jobs = [client.wait_for(job_id) for job_id in ids]
        assert [job["reason"] for job in jobs] == [
            "timed_out",
            "exited_nonzero",
            "exited_nonzero",
            "exited_zero",
        ]
        assert [job["exit_code"] for job in jobs[1:]] == [77, 5, 0]
        assert 2 <= duration_s(jobs[0]) < 2 + LATE_S
        assert max(duration_s(job) for job in jobs) < still_s + LATE_S
        assert answers["log"] == client.get(f"/jobs/{followed}/logs").content
        assert len(answers["log"]) > 100_000
        assert answers["submitted"].status_code == 201
        assert newest_first(client) == [answers["submitted"].json()["id"], *ids[::-1]]
        numbers = f"service stopped {time.monotonic() - began:.1f} s: 4 results exact, 0 lost, deadline kept"
        record_property("stopped", numbers)
        print(numbers)  # noqa: T201 - told with -rA


@pytest.mark.parametrize("still_s", [1, pytest.param(60, marks=pytest.mark.soak)])
def test_launches_wait_for_a_launcher_that_stands_still(
    tmp_path: Path, still_s: float, record_property: Any
) -> None:
    marks = tmp_path / "starts"
    marks.mkdir()
    with running_server(tmp_path, MAX_CORES="50", STOP_GRACE_S="1", JOB_WRITABLE=str(marks)) as server:
        client = server.client
        client.run(parameters={"mock": {"seconds": 0}})
        (launcher,) = (
            child
            for child in psutil.Process(server.process.pid).children()
            if "snakeline: launcher" in " ".join(child.cmdline())
        )
        starts = [marks / str(number) for number in range(40)]
        began = time.monotonic()
        with stopped(launcher):
            ids = [
                client.submit(parameters={"mock": {"touch": str(path), "exit_code": number}})["id"]
                for number, path in enumerate(starts)
            ]
            for job_id in ids:
                client.wait_for(job_id, "running")
            cancelled = client.submit(parameters={"mock": {"hold": str(tmp_path / "never")}})["id"]
            client.wait_for(cancelled, "running")
            assert client.post(f"/jobs/{cancelled}/cancel").status_code == 202
            until(began + still_s)
        jobs = [client.wait_for(job_id) for job_id in ids]
        assert [job["exit_code"] for job in jobs] == list(range(40))
        assert {job["attempt"] for job in jobs} == {1}
        assert all(path.exists() for path in starts)
        assert client.wait_for(cancelled)["reason"] == "cancel_requested"
        numbers = f"launcher stopped {still_s} s: 40 launches waited, 0 lost, 0 twice"
        record_property("stopped", numbers)
        print(numbers)  # noqa: T201 - told with -rA

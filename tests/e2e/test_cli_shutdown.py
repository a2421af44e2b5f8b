"""SIGTERM with jobs running: what becomes of them, of those who follow them, and of new submissions."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx2
import psutil
import pytest

from tests.support.runners import Hold
from tests.support.server import LiveServer, running_server
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from pathlib import Path


def held(server: LiveServer, hold: Hold, **mock: Any) -> dict[str, Any]:
    """A job that runs until `hold` is released, in its engine already."""
    job = server.client.submit(parameters={"mock": {"hold": hold.path, **mock}})
    server.client.wait_for(job["id"], "running")
    # It has its title before it is the engine; once it writes, it handles signals as it was told to.
    log = server.data_dir / "jobs" / job["id"] / "attempts/1/log.0"
    wait_until(lambda: log.exists() and log.stat().st_size, what="the engine to run")
    return job


def processes_of(job_id: str) -> list[psutil.Process]:
    """The job's processes, its shim left out."""
    marker = f"SNAKELINE_JOB_ID={job_id}".encode()
    found = []
    for process in psutil.process_iter():
        try:
            title = b" ".join(arg.encode() for arg in process.cmdline())
            with open(f"/proc/{process.pid}/environ", "rb") as environ:
                marked = marker in environ.read().split(b"\0")
        except (psutil.Error, OSError):
            continue
        if marked or (job_id.encode() in title and b"shim of" not in title):
            found.append(process)
    return found


def terminated(server: LiveServer) -> tuple[int, float]:
    """SIGTERM: the exit code and how long it took, in seconds."""
    began = time.monotonic()
    return server.stop(), time.monotonic() - began


def test_stopped_jobs_have_their_grace_are_recorded_and_resume_at_the_next_start(tmp_path: Path) -> None:
    settings = {"ON_SHUTDOWN": "stop", "SHUTDOWN_S": "8", "MAX_CORES": "2"}
    hold = Hold(tmp_path)
    with running_server(tmp_path, **settings) as server:
        job, waiting = held(server, hold), server.client.submit(cores=2)
        code, took_s = terminated(server)
        assert code == 0, server.log
        assert took_s < 8
        assert not processes_of(job["id"])
    with running_server(tmp_path, **settings) as again:
        resumed = again.client.wait_for(job["id"], "running")
        assert resumed["attempt"] == 2
        hold.release()
        ended = again.client.wait_for(job["id"])
        assert (ended["status"], ended["exit_code"]) == ("completed", 0)
        assert again.client.wait_for(waiting["id"])["attempt"] == 1
        first = again.client.get(f"/jobs/{job['id']}/logs?attempt=1").text
        assert "Terminating processes on user request" in first


def test_twenty_jobs_of_which_some_ignore_sigterm_are_gone_in_time(tmp_path: Path) -> None:
    with running_server(
        tmp_path, ON_SHUTDOWN="stop", SHUTDOWN_S="6", MAX_CORES="20", STOP_GRACE_S="60"
    ) as server:
        holds = [Hold(tmp_path, f"hold-{n}") for n in range(20)]
        jobs = [
            server.client.submit(
                parameters={"mock": {"hold": h.path, "ignore_term": n % 5 == 0, "setsid_children": n % 2}}
            )
            for n, h in enumerate(holds)
        ]
        for job in jobs:
            wait_until(lambda job=job: processes_of(job["id"]), what="its engine")  # type: ignore[misc]
        code, took_s = terminated(server)
        assert (code, took_s < 6) == (0, True), server.log
        assert [p for job in jobs for p in processes_of(job["id"])] == []
    with running_server(tmp_path, ON_SHUTDOWN="stop", MAX_CORES="1", STOP_GRACE_S="0.2") as again:
        states = {again.client.job(job["id"])["status"] for job in jobs}
        assert states <= {"pending", "running"}
        assert {again.client.job(job["id"])["attempt"] for job in jobs} == {2}


def test_a_cancel_or_an_end_of_its_own_is_not_taken_for_an_interruption(tmp_path: Path) -> None:
    with running_server(tmp_path, ON_SHUTDOWN="stop", MAX_CORES="4", STOP_GRACE_S="1") as server:
        cancelled = held(server, Hold(tmp_path, "a"), ignore_term=True)
        failed = server.client.run(parameters={"mock": {"exit_code": 3}})
        server.client.post(f"/jobs/{cancelled['id']}/cancel")
        assert terminated(server)[0] == 0
    with running_server(tmp_path, ON_SHUTDOWN="stop") as again:
        assert again.client.job(cancelled["id"])["status"] == "cancelled"
        now = again.client.job(failed["id"])
        assert (now["status"], now["exit_code"], now["attempt"]) == ("failed", 3, 1)


def test_while_jobs_are_waited_for_reads_are_answered_and_submissions_told_to_come_back(
    tmp_path: Path,
) -> None:
    hold = Hold(tmp_path)
    with (
        running_server(tmp_path, ON_SHUTDOWN="drain", SHUTDOWN_S="60", MAX_CORES="1") as server,
        ThreadPoolExecutor(1) as pool,
        httpx2.Client(base_url=server.url, timeout=60, trust_env=False, verify=False) as follower,
    ):
        client = server.client
        job, waiting = held(server, hold, stderr_text="the last word", exit_code=4), client.submit()
        followed = pool.submit(lambda: follower.get(f"/jobs/{job['id']}/logs?follow=true").text)
        server.process.terminate()
        wait_until(lambda: client.get("/readyz").status_code == 503, what="it to wind down")
        assert "stopping" in client.get("/readyz").json()["detail"]
        refused = client.post("/jobs", json={})
        assert (refused.status_code, refused.json()["type"]) == (503, "shutting-down")
        assert int(refused.headers["retry-after"]) > 0
        assert client.post(f"/jobs/{job['id']}/retry").status_code == 503
        assert client.job(job["id"])["status"] == "running"
        assert server.process.poll() is None
        hold.release()
        assert "the last word" in followed.result(20)
        assert server.process.wait(10) == 0, server.log
    with running_server(tmp_path) as again:
        ended = again.client.job(job["id"])
        assert (ended["status"], ended["exit_code"], ended["attempt"]) == ("failed", 4, 1)
        assert again.client.wait_for(waiting["id"])["status"] == "completed"


def test_what_outlasts_the_drain_is_stopped_in_time(tmp_path: Path) -> None:
    with running_server(tmp_path, ON_SHUTDOWN="drain", SHUTDOWN_S="5", STOP_GRACE_S="1") as server:
        job = held(server, Hold(tmp_path))
        code, took_s = terminated(server)
        assert (code, took_s < 5) == (0, True), server.log
        assert not processes_of(job["id"])
    with running_server(tmp_path) as again:
        assert again.client.job(job["id"])["attempt"] == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_lets_the_jobs_go_at_once(tmp_path: Path, number: signal.Signals) -> None:
    hold = Hold(tmp_path)
    with running_server(tmp_path, ON_SHUTDOWN="drain", SHUTDOWN_S="600") as server:
        job = held(server, hold)
        server.process.send_signal(number)
        wait_until(lambda: server.client.get("/readyz").status_code == 503, what="it to wind down")
        server.process.send_signal(number)
        assert server.process.wait(5) == 0, server.log
    with running_server(tmp_path) as again:
        assert again.client.job(job["id"])["status"] == "running"
        hold.release()
        ended = again.client.wait_for(job["id"])
        assert (ended["status"], ended["attempt"]) == ("completed", 1)


def test_a_service_killed_while_it_stops_its_jobs_loses_no_resumption(tmp_path: Path) -> None:
    with running_server(tmp_path, ON_SHUTDOWN="stop", SHUTDOWN_S="60", STOP_GRACE_S="30") as server:
        job = held(server, Hold(tmp_path), ignore_term=True)
        server.process.terminate()
        wait_until(lambda: "supervisor.stopping_jobs" in server.log, what="it to stop its jobs")
        server.process.kill()
        server.process.wait()
        (engine,) = processes_of(job["id"])
        engine.kill()  # its grace is over
        wait_until(lambda: not processes_of(job["id"]), what="the job to end")
        exit_record = server.data_dir / "jobs" / job["id"] / "attempts/1/exit.json"
        wait_until(exit_record.exists, what="the record")
    with running_server(tmp_path, STOP_GRACE_S="0.2") as again:
        assert again.client.job(job["id"])["attempt"] == 2, os.listdir(exit_record.parent)

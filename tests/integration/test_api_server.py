"""Starting and stopping the service's process."""

from __future__ import annotations

import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx2

from tests.support.server import running_server
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.client import ContractClient
    from tests.support.server import LiveServer


def test_the_start_up_line_says_where_it_is_and_that_the_engine_is_a_stand_in(server: LiveServer) -> None:
    assert server.start_up_line == (
        f"Snakeline is at {server.url} · engine: mock — a stand-in, no real pipelines run · "
        f"data: {server.data_dir}"
    )


def test_it_is_ready_and_says_what_runs_the_jobs(client: ContractClient) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    ready = client.get("/readyz").json()
    assert ready["status"] == "ready"
    assert ready["engine"] == {"name": "mock", "version": "mock", "is_mock": True}
    assert all(check["ok"] for check in ready["checks"])
    assert ready["isolation"]


def test_sigterm_ends_streams_and_long_polls_at_once_and_exits_0(tmp_path: Path) -> None:
    with running_server(tmp_path, DATABASE_URL="memory://", STOP_GRACE_S="1", MAX_CORES="2") as own:
        gate = tmp_path / "gate"
        client, job_id = own.client, ""
        job_id = client.submit(parameters={"mock": {"hold": str(gate)}})["id"]
        running = client.wait_for(job_id, "running")
        pending_id = client.submit(cores=2)["id"]
        etag = client.get(f"/jobs/{pending_id}").headers["etag"]
        assert running["status"] == "running"

        def follow(number: int) -> int:
            with httpx2.Client(base_url=own.url, timeout=30, trust_env=False, verify=False) as other:
                headers = {"Accept": "text/event-stream"} if number % 2 else {}
                target = job_id if number % 3 else pending_id
                return other.get(f"/jobs/{target}/logs?follow=true", headers=headers).status_code

        def poll(_: int) -> int:
            with httpx2.Client(base_url=own.url, timeout=30, trust_env=False, verify=False) as other:
                headers = {"If-None-Match": etag}
                return other.get(f"/jobs/{pending_id}?wait=30", headers=headers).status_code

        connections = _connections(own)
        address = urlsplit(own.url)
        target_address = (str(address.hostname), address.port)
        with (
            ThreadPoolExecutor(20) as pool,
            socket.create_connection(target_address) as half,
        ):
            half.sendall(
                b"POST /jobs HTTP/1.1\r\nHost: x\r\n"
                b"Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
            )
            follows = [pool.submit(follow, number) for number in range(12)]
            polls = [pool.submit(poll, number) for number in range(6)]
            wait_until(
                lambda: _connections(own) >= connections + 19, timeout_s=10, what="everybody to be connected"
            )
            assert client.get("/healthz").status_code == 200
            gate_was = gate.exists()
            started = time.monotonic()
            own.process.terminate()
            assert {future.result(10) for future in follows} == {200}
            assert {future.result(10) for future in polls} == {304}
            answered_s = time.monotonic() - started
            code = own.process.wait(10)
        gate.write_text("go")  # the job outlives its service and ends by itself
        assert not gate_was
        assert code == 0, own.log
        assert answered_s < 2
        assert "graceful shutdown exceeded" not in own.log, "the half-sent body was waited for"


def _connections(server: LiveServer) -> int:
    """Descriptors of the service that are sockets."""
    folder = f"/proc/{server.process.pid}/fd"
    found = 0
    for name in os.listdir(folder):
        try:
            found += os.readlink(f"{folder}/{name}").startswith("socket:")
        except FileNotFoundError:
            continue
    return found


def test_an_idle_keep_alive_connection_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with running_server(tmp_path, DATABASE_URL="memory://") as own:
        own.client.get("/healthz")  # and its connection stays open
        own.process.terminate()
        assert own.process.wait(10) == 0
        assert "graceful shutdown exceeded" not in own.log


def test_proxy_headers_are_not_believed(client: ContractClient) -> None:
    answer = client.post("/jobs", json={}, headers={"X-Forwarded-Host": "evil", "X-Forwarded-Proto": "https"})
    assert answer.headers["location"].startswith("/jobs/")

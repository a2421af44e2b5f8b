"""The log over HTTP, followed while a job writes it."""

from __future__ import annotations

import json
import os
import threading
import time
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from runner.attempt_files import AttemptFiles
from tests.support.held_job import held_job
from tests.support.server import running_server
from tests.support.sse import Event, read_events
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.client import ContractClient
    from tests.support.server import LiveServer

EVENTS = {"Accept": "text/event-stream"}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A service that runs few jobs at a time."""
    with running_server(tmp_path_factory.mktemp("small"), MAX_CORES="8", DATABASE_URL="memory://") as own:
        yield own


@pytest.fixture(scope="module")
def ended(server: LiveServer) -> tuple[str, bytes]:
    """The log's address and content, of a job that has ended."""
    url = f"/jobs/{server.client.run()['id']}/logs"
    return url, server.client.get(url).content


class TestFollow:
    def test_it_streams_as_the_job_writes_and_ends_with_it(
        self, client: ContractClient, tmp_path: Path
    ) -> None:
        with held_job(client, tmp_path, stderr_text="before") as (job_id, gate):
            got = b""
            with client.stream("GET", f"/jobs/{job_id}/logs?follow=true") as answer:
                assert "content-length" not in answer.headers
                for piece in answer.iter_raw():
                    got += piece
                    if b"Building DAG" in got and not gate.exists():
                        assert client.job(job_id)["status"] == "running"
                        gate.write_text("go")
        assert got == client.get(f"/jobs/{job_id}/logs").content
        assert client.job(job_id)["status"] == "completed"

    def test_an_ended_job_answers_at_once(self, client: ContractClient, ended: tuple[str, bytes]) -> None:
        url, log = ended
        assert client.get(url, params={"follow": "true"}).content == log
        assert client.get(url, params={"follow": "true", "offset": 100}).content == log[100:]
        lines = log.splitlines(keepends=True)
        assert client.get(url, params={"follow": "true", "tail": 2}).content == b"".join(lines[-2:])

    def test_a_pending_job_is_followed_from_its_start(self, small: LiveServer, tmp_path: Path) -> None:
        client = small.client
        with held_job(client, tmp_path) as (_, gate):
            job_id = client.submit(cores=8)["id"]
            with client.stream("GET", f"/jobs/{job_id}/logs?follow=true") as answer:
                assert answer.status_code == 200
                assert client.job(job_id)["status"] == "pending"
                gate.write_text("go")
                assert b"5 of 5 steps" in answer.read()

    def test_cancelling_a_pending_job_ends_its_followers(self, small: LiveServer, tmp_path: Path) -> None:
        client = small.client
        with held_job(client, tmp_path):
            job_id = client.submit(cores=8)["id"]
            with client.stream("GET", f"/jobs/{job_id}/logs?follow=true", headers=EVENTS) as answer:
                client.post(f"/jobs/{job_id}/cancel")
                events = read_events(answer.read())
        assert json.loads(events[-1].data)["status"] == "cancelled"

    def test_events_carry_offsets_and_end_with_the_result(
        self, client: ContractClient, ended: tuple[str, bytes]
    ) -> None:
        url, log = ended
        answer = client.get(url, params={"follow": "true"}, headers=EVENTS)
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        events = read_events(answer.content)
        assert "".join(e.data for e in events if e.event == "message").encode() == log
        assert events[-1] == Event(
            "end",
            '{"attempt":1,"status":"completed","exit_code":0,"exit_signal":null}',
            str(len(log)),
        )

    def test_a_stream_of_events_is_resumed_without_loss(self, client: ContractClient, tmp_path: Path) -> None:
        with held_job(client, tmp_path, output_bytes=200_000) as (job_id, gate):
            url = f"/jobs/{job_id}/logs?follow=true"
            text, last_id = "", ""
            with client.stream("GET", url, headers=EVENTS) as answer:
                got = b""
                for piece in answer.iter_raw():
                    got += piece
                    whole = got[: got.rfind(b"\n\n") + 2]
                    if b"id: " in whole:
                        break
            for event in read_events(whole):
                text, last_id = text + event.data, event.id
            gate.write_text("go")
            rest = client.get(url, headers={**EVENTS, "Last-Event-ID": last_id})
        text += "".join(e.data for e in read_events(rest.content) if e.event == "message")
        assert text.encode() == client.get(f"/jobs/{job_id}/logs").content

    @pytest.mark.parametrize("last", ["x", "-1", "1.5", "9" * 30])
    def test_an_event_id_that_is_not_ours_is_422(
        self, client: ContractClient, ended: tuple[str, bytes], last: str
    ) -> None:
        answer = client.get(ended[0], params={"follow": "true"}, headers={**EVENTS, "Last-Event-ID": last})
        assert answer.json()["errors"][0]["header"] == "Last-Event-ID"

    def test_head_does_not_follow(self, client: ContractClient, tmp_path: Path) -> None:
        with held_job(client, tmp_path) as (job_id, _):
            assert client.head(f"/jobs/{job_id}/logs?follow=true").status_code == 200

    def test_what_is_written_arrives_while_the_job_runs_on(self, server: LiveServer, tmp_path: Path) -> None:
        client = server.client
        with held_job(client, tmp_path) as (job_id, _):
            log = AttemptFiles.of(server.data_dir, job_id, 1).log_segment(0)
            wait_until(lambda: os.path.exists(log), what="the log to begin")
            with client.stream("GET", f"/jobs/{job_id}/logs?follow=true&tail=0") as answer:
                pieces, got = answer.iter_raw(), b""
                started = time.monotonic()
                for number in range(20):
                    line = b"line %d for the follower\n" % number
                    with open(log, "ab") as file:
                        file.write(line)
                    while line not in got:
                        got += next(pieces)
                # Each at once, and not only when the job's next figures wake the follower.
                assert time.monotonic() - started < 5
            assert client.job(job_id)["status"] == "running"

    def test_a_follower_that_has_gone_is_let_go_while_the_job_runs_on(
        self, server: LiveServer, tmp_path: Path
    ) -> None:
        client, name = server.client, uuid4().hex
        with held_job(client, tmp_path) as (job_id, _):
            url, headers = f"/jobs/{job_id}/logs?follow=true", {"X-Request-ID": name}
            with client.stream("GET", url, headers=headers) as answer:
                pieces = answer.iter_raw()  # kept: once it is collected, the answer is closed
                next(pieces)
                assert name not in server.log
            wait_until(lambda: name in server.log, timeout_s=5, what="the request to be over")
            assert client.job(job_id)["status"] == "running"

    def test_idle_followers_hold_no_thread_and_leave_nothing_behind(
        self, server: LiveServer, tmp_path: Path
    ) -> None:
        client = server.client

        def descriptors() -> int:
            return len(os.listdir(f"/proc/{server.process.pid}/fd"))

        with held_job(client, tmp_path) as (job_id, _):
            client.get(f"/jobs/{job_id}/logs")
            idle = descriptors()
            # More than the thread pool has threads: were one held by each, no list would be answered.
            streams = [client.stream("GET", f"/jobs/{job_id}/logs?follow=true") for _ in range(60)]
            for stream in streams:
                next(stream.__enter__().iter_raw())
            assert client.get("/jobs", timeout=5).status_code == 200
            for stream in streams:
                stream.__exit__(None, None, None)
            wait_until(lambda: descriptors() <= idle + 2, timeout_s=10, what="the descriptors to close")


def test_two_followers_see_the_same(client: ContractClient, tmp_path: Path) -> None:
    with held_job(client, tmp_path, lines=50) as (job_id, gate):
        got: list[bytes] = []
        url = f"/jobs/{job_id}/logs?follow=true"
        followers = [threading.Thread(target=lambda: got.append(client.get(url).content)) for _ in range(2)]
        for follower in followers:
            follower.start()
        gate.write_text("go")
        for follower in followers:
            follower.join(20)
    assert got[0] == got[1] == client.get(f"/jobs/{job_id}/logs").content

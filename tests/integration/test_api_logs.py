"""The log over HTTP: whole, in part, and followed."""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from runner.attempt_files import AttemptFiles
from tests.support.server import running_server
from tests.support.sse import Event, read_events
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.client import ContractClient
    from tests.support.server import LiveServer

LIMIT_BYTES = 2**16
LONG_BYTES = 2**18 + 5
EVENTS = {"Accept": "text/event-stream"}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A service that keeps 64 KiB of a log."""
    directory = tmp_path_factory.mktemp("small")
    with running_server(directory, LOG_LIMIT_MB="0.0625", MAX_CORES="8", DATABASE_URL="memory://") as own:
        yield own


@pytest.fixture(scope="module")
def ended(server: LiveServer) -> tuple[str, bytes]:
    """The log's address and content, of a job that has ended."""
    job_id = server.client.run(parameters={"mock": {"output_bytes": 4096}})["id"]
    url = f"/jobs/{job_id}/logs"
    return url, server.client.get(url).content


@pytest.fixture(scope="module")
def cut(small: LiveServer) -> tuple[str, int, int, int]:
    """The log's address, where its gap begins and ends, and its size."""
    job_id = small.client.run(parameters={"mock": {"output_bytes": LONG_BYTES}})["id"]
    url = f"/jobs/{job_id}/logs"
    headers = small.client.head(url).headers
    start, end = map(int, headers["x-log-skipped"].split("-"))
    return url, start, end, int(headers["x-log-size"])


@contextmanager
def held_job(client: ContractClient, directory: Path, **mock: Any) -> Iterator[tuple[str, Path]]:
    """A job that has printed and now runs until its gate is written to."""
    gate = directory / f"gate-{uuid4().hex}"
    job_id = client.submit(parameters={"mock": {"hold": str(gate), **mock}})["id"]
    client.wait_for(job_id, "running")
    try:
        yield job_id, gate
    finally:
        gate.write_text("go")


class TestWhole:
    def test_it_is_plain_text_of_known_length(self, client: ContractClient, ended: tuple[str, bytes]) -> None:
        url, log = ended
        answer = client.get(url)
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["accept-ranges"] == "bytes"
        assert int(answer.headers["content-length"]) == int(answer.headers["x-log-size"]) == len(log) > 4096
        assert b"".join(b"%015d\n" % n for n in range(256)) in log

    def test_head_has_the_same_headers_and_no_body(
        self, client: ContractClient, ended: tuple[str, bytes]
    ) -> None:
        get, head = client.get(ended[0]), client.head(ended[0])
        names = ("content-length", "content-type", "etag", "x-log-size")
        assert [head.headers[name] for name in names] == [get.headers[name] for name in names]
        assert head.content == b""

    def test_a_range_means_nothing_to_head(self, client: ContractClient, ended: tuple[str, bytes]) -> None:
        head = client.head(ended[0], headers={"Range": "bytes=0-9"})
        assert (head.status_code, head.headers["content-length"]) == (200, str(len(ended[1])))

    def test_an_ended_log_has_an_etag_and_answers_304(
        self, client: ContractClient, ended: tuple[str, bytes]
    ) -> None:
        etag = client.get(ended[0]).headers["etag"]
        # A proxy that compresses makes it weak.
        for same in (etag, f"W/{etag}", f'"other", {etag}', "*"):
            assert client.get(ended[0], headers={"If-None-Match": same}).status_code == 304
        assert client.get(ended[0], headers={"If-None-Match": '"1-1"'}).status_code == 200

    def test_a_running_log_has_no_etag(self, client: ContractClient, tmp_path: Path) -> None:
        with held_job(client, tmp_path) as (job_id, _):
            assert "etag" not in client.get(f"/jobs/{job_id}/logs").headers

    def test_a_pending_job_has_an_empty_log(self, small: LiveServer, tmp_path: Path) -> None:
        client = small.client
        with held_job(client, tmp_path):
            job_id = client.submit(cores=8)["id"]
            assert client.job(job_id)["status"] == "pending"
            answer = client.get(f"/jobs/{job_id}/logs")
            assert (answer.status_code, answer.content) == (200, b"")
        client.wait_for(job_id)

    def test_every_attempt_has_its_own(self, client: ContractClient) -> None:
        job_id = client.run(parameters={"mock": {"fail_rule": "shuffle", "fail_times": 1}})["id"]
        client.post(f"/jobs/{job_id}/retry")
        client.wait_for(job_id)
        url = f"/jobs/{job_id}/logs"
        first, second = (client.get(url, params={"attempt": n}).content for n in (1, 2))
        assert b"Error in rule shuffle" in first
        assert b"Error" not in second
        assert client.get(url).content == second
        assert client.get(url).headers["x-log-attempt"] == "2"
        assert client.get(url, params={"attempt": 3}).json()["type"] == "log-not-found"


class TestPart:
    @pytest.mark.parametrize(
        ("header", "start", "stop"),
        [
            ("bytes=0-0", 0, 1),
            ("bytes=10-19", 10, 20),
            ("bytes=100-", 100, None),
            ("bytes=-7", -7, None),
            ("bytes=-99999999", 0, None),
            ("bytes=10-99999999", 10, None),
            ("Bytes= 3-4", 3, 5),
        ],
    )
    def test_a_range_is_206(
        self, client: ContractClient, ended: tuple[str, bytes], header: str, start: int, stop: int | None
    ) -> None:
        url, log = ended
        answer = client.get(url, headers={"Range": header})
        first = start % len(log)
        assert (answer.status_code, answer.content) == (206, log[start:stop])
        assert (
            answer.headers["content-range"] == f"bytes {first}-{first + len(answer.content) - 1}/{len(log)}"
        )

    @pytest.mark.parametrize(
        "header", ["bytes=0-1,3-4", "bytes=5-3", "bytes=-", "bytes=a-b", "lines=1-2", "0-5", ""]
    )
    def test_several_or_malformed_ranges_are_ignored(
        self, client: ContractClient, ended: tuple[str, bytes], header: str
    ) -> None:
        answer = client.get(ended[0], headers={"Range": header})
        assert (answer.status_code, answer.content) == (200, ended[1])

    def test_a_range_behind_the_end_is_416_with_the_size(
        self, client: ContractClient, ended: tuple[str, bytes]
    ) -> None:
        for header in ("bytes=99999999-", "bytes=-0"):
            answer = client.get(ended[0], headers={"Range": header})
            assert answer.status_code == 416
            assert answer.headers["content-range"] == f"bytes */{len(ended[1])}"

    def test_if_range_with_another_etag_answers_the_whole(
        self, client: ContractClient, ended: tuple[str, bytes]
    ) -> None:
        etag = client.head(ended[0]).headers["etag"]
        same = client.get(ended[0], headers={"Range": "bytes=0-1", "If-Range": etag})
        other = client.get(ended[0], headers={"Range": "bytes=0-1", "If-Range": '"1-1"'})
        assert (same.status_code, other.status_code) == (206, 200)

    def test_tail_is_the_last_lines(self, client: ContractClient, ended: tuple[str, bytes]) -> None:
        url, log = ended
        lines = log.splitlines(keepends=True)
        for count in (0, 1, 3, len(lines), len(lines) + 5):
            answer = client.get(url, params={"tail": count})
            expected = b"".join(lines[-count:]) if count else b""
            assert answer.content == expected
            assert int(answer.headers["x-log-offset"]) == len(log) - len(expected)

    def test_offset_and_limit_walk_through_the_log(
        self, client: ContractClient, ended: tuple[str, bytes]
    ) -> None:
        url, log = ended
        offset, read = 0, b""
        while offset < len(log):
            answer = client.get(url, params={"offset": offset, "limit": 1000})
            assert answer.headers["x-log-offset"] == str(offset)
            offset = int(answer.headers["x-log-next-offset"])
            read += answer.content
        assert read == log
        behind = client.get(url, params={"offset": len(log) + 10})
        assert (behind.status_code, behind.content) == (200, b"")
        assert behind.headers["x-log-next-offset"] == str(len(log))

    @pytest.mark.parametrize(
        "query",
        ["tail=-1", "offset=-1", "limit=0", "attempt=0", "tail=1&offset=1", "follow=true&limit=1", "foo=1"],
    )
    def test_a_query_that_makes_no_sense_is_422(
        self, client: ContractClient, ended: tuple[str, bytes], query: str
    ) -> None:
        assert client.get(f"{ended[0]}?{query}").status_code == 422


class TestGap:
    def test_a_whole_read_has_one_marker_line(
        self, small: LiveServer, cut: tuple[str, int, int, int]
    ) -> None:
        url, start, end, size = cut
        answer = small.client.get(url)
        assert 0 < start < end < size
        assert size - (end - start) <= LIMIT_BYTES
        head, marker, tail = answer.content.partition(b"\n[snakeline: %d bytes skipped]\n" % (end - start))
        assert marker
        assert (len(head), len(tail)) == (start, size - end)
        assert int(answer.headers["content-length"]) == len(answer.content)

    @pytest.mark.parametrize("around", [-2, -1, 0, 1])
    def test_a_range_never_crosses_it(
        self, small: LiveServer, cut: tuple[str, int, int, int], around: int
    ) -> None:
        url, start, end, size = cut
        whole = small.client.get(url).content
        from_it = small.client.get(url, headers={"Range": f"bytes={start + around}-"})
        first = start + around if around < 0 else end
        last = start if around < 0 else size
        assert from_it.headers["content-range"] == f"bytes {first}-{last - 1}/{size}"
        assert from_it.content == (whole[first:start] if around < 0 else whole[-(size - end) :])

    def test_a_range_inside_it_is_416(self, small: LiveServer, cut: tuple[str, int, int, int]) -> None:
        url, start, end, size = cut
        answer = small.client.get(url, headers={"Range": f"bytes={start}-{end - 1}"})
        assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{size}")

    def test_a_walk_by_offset_jumps_over_it(self, small: LiveServer, cut: tuple[str, int, int, int]) -> None:
        url, start, end, size = cut
        offset, spans = 0, []
        while offset < size:
            headers = small.client.get(url, params={"offset": offset, "limit": 5000}).headers
            begin, offset = int(headers["x-log-offset"]), int(headers["x-log-next-offset"])
            spans.append((begin, offset))
        gaps = [(a[1], b[0]) for a, b in itertools.pairwise(spans) if a[1] != b[0]]
        assert gaps == [(start, end)]

    def test_tail_reaches_back_over_it_with_a_marker(
        self, small: LiveServer, cut: tuple[str, int, int, int]
    ) -> None:
        url, _, end, size = cut
        assert len(small.client.get(url, params={"tail": 100_000}).content) >= size - end

    def test_followers_are_told_of_it(self, small: LiveServer, cut: tuple[str, int, int, int]) -> None:
        url, start, end, size = cut
        plain = small.client.get(url, params={"follow": "true"})
        assert plain.content == small.client.get(url).content
        events = read_events(small.client.get(url, params={"follow": "true"}, headers=EVENTS).content)
        gaps = [event for event in events if event.event == "gap"]
        assert [json.loads(gap.data) for gap in gaps] == [{"start": start, "end": end}]
        assert gaps[0].id == str(end)
        assert events[-1].id == str(size)


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


def test_forty_five_slow_readers_do_not_hold_up_the_health_check(small: LiveServer, tmp_path: Path) -> None:
    client = small.client
    job_id = client.run(parameters={"mock": {"output_bytes": LIMIT_BYTES}})["id"]
    streams = [client.stream("GET", f"/jobs/{job_id}/logs") for _ in range(45)]
    answers = [stream.__enter__() for stream in streams]
    assert client.get("/healthz").elapsed.total_seconds() < 1
    assert client.get("/jobs").elapsed.total_seconds() < 2
    for answer in answers:
        answer.close()


def test_a_log_of_many_megabytes_is_exact_and_never_in_memory(server: LiveServer) -> None:
    client, size = server.client, 96 * 2**20
    job_id = client.run(parameters={"mock": {"output_bytes": size}})["id"]
    before = _resident_bytes(server)
    total = 0
    with client.stream("GET", f"/jobs/{job_id}/logs") as answer:
        for piece in answer.iter_raw():
            total += len(piece)
    assert total == int(answer.headers["content-length"]) > size
    assert _resident_bytes(server) - before < size // 3
    client.delete(f"/jobs/{job_id}")


def _resident_bytes(server: LiveServer) -> int:
    with open(f"/proc/{server.process.pid}/status", encoding="ascii") as file:
        line = next(line for line in file if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


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

"""The log over HTTP: whole and in part."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING

import pytest

from tests.support.held_job import held_job
from tests.support.server import running_server
from tests.support.sse import read_events

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

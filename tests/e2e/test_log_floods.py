"""A job writes a gigabyte a second: the disk, the log and the API hold."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from tests.support.byte_writer import installed, line
from tests.support.server import running_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.client import ContractClient
    from tests.support.server import LiveServer

MIB = 2**20
LIMIT_BYTES = 8 * MIB
GAP = re.compile(rb"\n\[snakeline: (\d+) bytes skipped\]\n")
ANSWER_WITHIN_S = 10.0
"""Says that the API answers at all on a machine that is busy with much else; `make bench` measures it."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    directory = tmp_path_factory.mktemp("flood")
    with running_server(
        directory,
        **installed(str(directory)),
        MAX_CORES="2",
        STOP_GRACE_S="1",
        LOG_LIMIT_MB=str(LIMIT_BYTES // MIB),
    ) as own:
        yield own


class LogFiles:
    """What the log of an attempt takes on the disk, looked at without a pause."""

    def __init__(self, attempt: Path) -> None:
        self._attempt = attempt
        self.looks = 0
        self.most_bytes = 0
        self.most_files = 0
        self._enough = threading.Event()

    @contextmanager
    def watched(self) -> Iterator[None]:
        thread = threading.Thread(target=self._watch)
        thread.start()
        try:
            yield
        finally:
            self._enough.set()
            thread.join()

    def _watch(self) -> None:
        while not self._enough.wait(0.001):
            names = self._names()
            try:
                sizes = [os.stat(self._attempt / name).st_size for name in names]
            except FileNotFoundError:
                continue
            if self._names() != names:
                continue  # what was dropped meanwhile would be counted beside what replaced it
            self.most_bytes = max(self.most_bytes, sum(sizes))
            self.most_files = max(self.most_files, len(sizes))
            self.looks += 1

    def _names(self) -> set[str]:
        return {name for name in os.listdir(self._attempt) if name.startswith("log.")}


def submit_flood(client: ContractClient, seconds: float) -> str:
    body = {"workflow": "bytes", "parameters": {"acts": [f"flood:{seconds:g}"]}}
    job_id: str = client.submit(**body)["id"]
    client.wait_for(job_id, "running")
    return job_id


def read_a_part(client: ContractClient, url: str, offset: int) -> tuple[int, bytes]:
    """Some of the log at or behind `offset`: where it begins, and the bytes."""
    answer = client.get(f"{url}?offset={offset}&limit=100000")
    assert answer.status_code == 200
    return int(answer.headers["x-log-offset"]), answer.content


class Follower:
    """Reads the log from its beginning while it is written, and holds every byte against its place."""

    def __init__(self, client: ContractClient, url: str) -> None:
        self.offset = self.gaps = 0
        self._client = client
        self._url = url
        self._thread = threading.Thread(target=self._follow)
        self._wrong: str | None = "it has not ended"

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._thread.join(30)
        assert self._wrong is None

    def _follow(self) -> None:
        rest = b""
        with self._client.stream("GET", f"{self._url}?follow=true") as answer:
            for piece in answer.iter_raw(MIB):
                rest += piece
                while rest:
                    content, newline, _ = rest.partition(b"\n")  # the job itself writes none
                    if content != line(self.offset, len(content)):
                        self._wrong = f"the bytes behind {self.offset} are not those that were written"
                        return
                    self.offset += len(content)
                    rest = rest[len(content) :]
                    if newline:
                        marker = GAP.match(rest)
                        if marker is None:
                            break  # it goes on in the next piece
                        self.offset += int(marker[1])
                        self.gaps += 1
                        rest = rest[marker.end() :]
        self._wrong = f"left over: {rest[:100]!r}" if rest else None


@pytest.mark.parametrize("seconds", [2, pytest.param(60, marks=pytest.mark.soak)])
def test_a_flood_stays_within_the_limit_and_what_is_kept_is_exact(
    service: LiveServer, seconds: float, record_property: Any
) -> None:
    client = service.client
    job_id = submit_flood(client, seconds)
    url = f"/jobs/{job_id}/logs"
    directory = service.data_dir / "jobs" / job_id
    files = LogFiles(directory / "attempts/1")
    follower = Follower(client, url)
    follower.start()
    exact = broken = 0
    slowest_s = 0.0
    with files.watched():
        while client.job(job_id)["status"] == "running":
            asked = time.monotonic()
            assert client.get("/healthz").status_code == 200
            client.submit(workflow="bytes", parameters={"acts": []})
            slowest_s = max(slowest_s, time.monotonic() - asked)
            size = int(client.head(url).headers["x-log-size"])
            for offset in (0, size // 2, max(0, size - 3 * MIB), max(0, size - 50_000)):
                try:
                    at, part = read_a_part(client, url, offset)
                except httpx2.RemoteProtocolError:
                    broken += 1  # dropped while it was sent: said, not filled up with something else
                    continue
                assert at >= offset
                assert part == line(at, len(part))
                exact += 1

    job = client.wait_for(job_id)
    assert (job["status"], job["exit_code"]) == ("completed", 0)
    written = json.loads((directory / "work/written.json").read_text())["bytes"]
    head = client.head(url).headers
    start, end = map(int, head["x-log-skipped"].split("-"))
    assert int(head["x-log-size"]) == written
    follower.join()
    assert follower.offset == written
    assert start == LIMIT_BYTES // 8
    assert LIMIT_BYTES * 3 // 4 < start + written - end <= LIMIT_BYTES
    for first, last in ((0, start), (end, written)):
        answer = client.get(url, headers={"Range": f"bytes={first}-{last - 1}"})
        assert answer.content == line(first, last - first)
    assert files.looks > 20
    assert files.most_bytes <= LIMIT_BYTES
    assert files.most_files <= 9  # the oldest goes when the newest has been made
    assert slowest_s < ANSWER_WITHIN_S
    assert exact > 0
    numbers = (
        f"flood of {written / MIB / seconds:,.0f} MiB/s for {seconds} s: {files.most_bytes / MIB:.2f} of "
        f"{LIMIT_BYTES // MIB} MiB on disk at most in {files.looks:,} looks; "
        f"{exact} parts exact, {broken} cut short, 0 wrong; a follower exact over {follower.gaps} gaps"
    )
    record_property("flood", numbers)
    print(numbers)  # noqa: T201 - told with -rA


def test_a_flood_is_cancelled_like_any_job(service: LiveServer) -> None:
    job_id = submit_flood(service.client, 60)
    began = time.monotonic()
    service.client.post(f"/jobs/{job_id}/cancel")
    job = service.client.wait_for(job_id)
    assert job["status"] == "cancelled"
    assert time.monotonic() - began < 1 + ANSWER_WITHIN_S


def test_a_deadline_is_kept_in_a_flood(service: LiveServer) -> None:
    job = service.client.run(workflow="bytes", parameters={"acts": ["flood:60"]}, timeout_s=1)
    assert job["reason"] == "timed_out"
    assert job["usage"]["cpu_s"] < 60

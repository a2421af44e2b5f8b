"""What the client bears: refusals that pass, breaks, a service that is away for a moment."""

from __future__ import annotations

import json
import random
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from snakeline import Client, Problem, Unreachable
from snakeline.client.retries import ABSENCE_S
from tests.support.cutting_proxy import CuttingProxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.server import LiveServer


class Scripted(ThreadingHTTPServer):
    """Answers with each of `script` in its turn, then with 200; None breaks the connection."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answering)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.script: list[tuple[int, dict[str, str]] | None] = []
        self.heard: list[tuple[str, str, str | None]] = []


class _Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Scripted

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.heard.append((self.command, self.path, self.headers.get("Idempotency-Key")))
        status: int = 200
        headers: dict[str, str] = {}
        if self.server.script:
            step = self.server.script.pop(0)
            if step is None:
                self.close_connection = True
                return
            status, headers = step
        body = json.dumps({"type": "busy", "items": [], "status": "ready", "key": "k"}).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_DELETE = _answer  # noqa: N815 - as http.server has it

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    with Scripted() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def reached(scripted: Scripted) -> Iterator[Client]:
    """A client that has had an answer."""
    with Client(scripted.url, retry_for_s=5) as client:
        client.workflows()
        scripted.heard.clear()
        yield client


AT_ONCE = {"Retry-After": "0"}


def test_a_refusal_that_passes_is_borne(reached: Client, scripted: Scripted) -> None:
    scripted.script = [(503, AT_ONCE), (429, AT_ONCE), (503, AT_ONCE)]
    assert reached.create_key("lims", ["read"])["key"] == "k"
    assert len(scripted.heard) == 4


def test_one_that_would_take_too_long_is_raised_at_once(reached: Client, scripted: Scripted) -> None:
    scripted.script = [(429, {"Retry-After": "600", "X-Request-ID": "r-17"})]
    with pytest.raises(Problem) as refused:
        reached.workflows()
    assert (refused.value.retry_after_s, refused.value.request_id) == (600, "r-17")
    assert len(scripted.heard) == 1


def test_a_break_is_borne_where_a_second_request_does_no_harm(reached: Client, scripted: Scripted) -> None:
    scripted.script = [None]
    assert reached.workflows() == []
    assert len(scripted.heard) == 2


@pytest.mark.parametrize("call", ["retry", "cancel", "delete"])
def test_what_changes_something_is_not_sent_twice(reached: Client, scripted: Scripted, call: str) -> None:
    scripted.script = [None]
    with pytest.raises(Unreachable):
        getattr(reached, call)("019ab5f0-1c2d-7e3f-8a4b-5c6d7e8f9a0b")
    assert len(scripted.heard) == 1


def test_an_address_that_never_answered_is_not_waited_for() -> None:
    began = time.monotonic()
    with Client("http://127.0.0.1:9", retry_for_s=600) as client, pytest.raises(Unreachable):
        client.workflows()
    assert time.monotonic() - began < ABSENCE_S / 2


def test_a_submission_whose_answer_is_lost_makes_one_job(server: LiveServer) -> None:
    before = server.client.get("/jobs?q=lost-answer").json()["total"]
    with CuttingProxy(server.url, after_bytes=600, cuts=2) as proxy, Client(proxy.url) as client:
        client._connection._was_reached = True
        job = client.submit("demo", name="lost-answer")
    assert proxy.cut == 2
    assert server.client.job(job.id)["name"] == "lost-answer"
    assert server.client.get("/jobs?q=lost-answer").json()["total"] == before + 1


@pytest.mark.parametrize("seed", range(3))
def test_a_followed_log_is_exact_wherever_the_stream_is_cut(server: LiveServer, seed: int) -> None:
    chance = random.Random(seed)
    parameters = {"mock": {"lines": 40_000, "seconds": 0}}
    job_id = server.client.run(parameters=parameters)["id"]
    with (
        CuttingProxy(server.url, after_bytes=lambda: chance.randint(1, 150_000), cuts=3) as proxy,
        Client(proxy.url, retry_for_s=30) as client,
    ):
        client._connection._was_reached = True
        pieces = list(client.follow_log_pieces(job_id, attempt=1))
    whole = server.client.get(f"/jobs/{job_id}/logs").content
    assert "".join(piece.text for piece in pieces).encode() == whole
    assert pieces[-1].offset == len(whole)
    assert proxy.cut == 3


def test_the_bytes_of_a_log_and_of_a_file_are_exact_wherever_they_are_cut(
    server: LiveServer, tmp_path: Path
) -> None:
    chance = random.Random(7)
    job_id = server.client.run(parameters={"mock": {"lines": 20_000, "seconds": 0}})["id"]
    whole = server.client.get(f"/jobs/{job_id}/logs").content
    work = server.data_dir / "jobs" / job_id / "work"
    (work / "big").write_bytes(chance.randbytes(3_000_000))
    with (
        CuttingProxy(server.url, after_bytes=lambda: chance.randint(1, 900_000), cuts=6) as proxy,
        Client(proxy.url, retry_for_s=30) as client,
    ):
        client._connection._was_reached = True
        parts = list(client.log_parts(job_id))
        client.download(job_id, "big", tmp_path / "big")
    assert b"".join(part.data for part in parts) == whole
    assert (tmp_path / "big").read_bytes() == (work / "big").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["big"]
    assert proxy.cut == 6


def test_a_file_that_changes_while_it_is_cut_is_fetched_anew(server: LiveServer, tmp_path: Path) -> None:
    job_id = server.client.run()["id"]
    file = server.data_dir / "jobs" / job_id / "work" / "changing"
    file.write_bytes(b"a" * 2_000_000)
    newer = file.with_name("newer")
    newer.write_bytes(b"b" * 1_000_000)

    def between() -> int:
        if proxy.cut == 1:
            newer.replace(file)
        return 700_000

    with CuttingProxy(server.url, after_bytes=between, cuts=1) as proxy, Client(proxy.url) as client:
        client._connection._was_reached = True
        client.download(job_id, "changing", tmp_path / "saved")
    assert (tmp_path / "saved").read_bytes() == b"b" * 1_000_000

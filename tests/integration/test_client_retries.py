"""What the client bears: refusals that pass, breaks, a service that is away for a moment."""

from __future__ import annotations

import json
import random
import time
from typing import TYPE_CHECKING

import pytest

from snakeline import Client, Problem, Unreachable, Waiting
from snakeline.client.retries import ABSENCE_S
from tests.support.cutting_proxy import CuttingProxy
from tests.support.scripted_service import Scripted, Step, scripted_service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.server import LiveServer


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    with scripted_service() as server:
        yield server


@pytest.fixture
def reached(scripted: Scripted) -> Iterator[Client]:
    """A client that has had an answer."""
    with Client(scripted.url, retry_for_s=5) as client:
        client.workflows()
        scripted.heard.clear()
        yield client


AT_ONCE = {"Retry-After": "0"}
JOB_ID = "019ab5f0-1c2d-7e3f-8a4b-5c6d7e8f9a0b"


def test_a_refusal_that_passes_is_borne(reached: Client, scripted: Scripted) -> None:
    scripted.script = [Step(503, AT_ONCE), Step(429, AT_ONCE), Step(503, AT_ONCE)]
    assert reached.create_key("lims", ["read"])["key"] == "k"
    assert len(scripted.heard) == 4


def test_one_that_would_take_too_long_is_raised_at_once(reached: Client, scripted: Scripted) -> None:
    scripted.script = [Step(429, {"Retry-After": "600", "X-Request-ID": "r-17"})]
    with pytest.raises(Problem) as refused:
        reached.workflows()
    assert (refused.value.retry_after_s, refused.value.request_id) == (600, "r-17")
    assert len(scripted.heard) == 1


def test_a_break_is_borne_where_a_second_request_does_no_harm(reached: Client, scripted: Scripted) -> None:
    scripted.script = [None]
    assert reached.workflows() == []
    assert len(scripted.heard) == 2


@pytest.mark.parametrize("call", ["retry", "cancel", "delete"])
@pytest.mark.parametrize("step", [None, Step(502), Step(504)])
def test_what_changes_something_is_not_sent_twice(
    reached: Client, scripted: Scripted, call: str, step: Step | None
) -> None:
    scripted.script = [step]
    with pytest.raises((Unreachable, Problem)):
        getattr(reached, call)(JOB_ID)
    assert len(scripted.heard) == 1


@pytest.mark.parametrize("status", [502, 504])
def test_a_proxy_without_its_service_is_borne_where_a_break_would_be(
    reached: Client, scripted: Scripted, status: int
) -> None:
    scripted.script = [Step(status), Step(200, body=b'{"items": []}')]
    assert reached.workflows() == []
    scripted.script = [Step(status), Step(204, body=b"")]
    assert list(reached.events(JOB_ID)) == []
    assert len(scripted.heard) == 4


def test_who_wants_to_know_is_told_of_each_pause_and_of_its_end(scripted: Scripted) -> None:
    told: list[Waiting | None] = []
    scripted.script = [Step(200), Step(429, AT_ONCE, b'{"title": "Too many"}'), Step(503, AT_ONCE, b"")]
    with Client(scripted.url, on_wait=told.append) as client:
        client.workflows()
        assert told == []
        client.workflows()
    pauses = [each for each in told[::2] if each is not None]
    assert [(each.why, each.number) for each in pauses] == [
        ("429 Too many", 2),
        ("503 Service Unavailable", 3),
    ]
    assert told[1::2] == [None, None]


def test_a_job_is_looked_at_now_and_then_where_too_many_are_waited_for(
    server: LiveServer, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snakeline.client.sync.client._LOOK_S", 0)
    ended = server.client.run()
    running = {**ended, "status": "running"}
    full = Step(429, {"Retry-After": "0"}, b'{"type": "too-many-streams"}')
    states = [Step(body=json.dumps(job).encode()) for job in (running, running, ended)]
    scripted.script = [states[0], full, states[1], full, states[2]]
    with Client(scripted.url) as client:
        assert client.wait(ended["id"]).status == "completed"
    assert ["wait=" in path for _, path, _ in scripted.heard] == [False, True, False, True, False]


def test_requests_go_on_in_the_callers_trace(
    scripted: Scripted, reached: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = f"00-{'a' * 32}-{'b' * 16}-01"
    monkeypatch.setenv("TRACEPARENT", parent)
    monkeypatch.setenv("TRACESTATE", "lims=7")
    reached.workflows()
    assert (scripted.headers[-1]["traceparent"], scripted.headers[-1]["tracestate"]) == (parent, "lims=7")
    monkeypatch.setenv("TRACEPARENT", "nonsense")
    reached.workflows()
    assert "traceparent" not in scripted.headers[-1]


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

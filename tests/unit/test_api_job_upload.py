"""A body that brings files may take long, but has to come."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from starlette.requests import Request

from api import job_upload
from api.problems import Problem
from api.upload_requests import WINDOW_S
from api.waiting import StopSignal
from runner.errors import ShuttingDown

if TYPE_CHECKING:
    from collections.abc import Sequence


async def _read(pieces: Sequence[bytes], stop: StopSignal, *, then: str) -> int:
    """How many bytes come out of these pieces, behind which the client stalls, goes or ends."""
    left = list(pieces)

    async def receive() -> dict[str, Any]:
        if left:
            return {"type": "http.request", "body": left.pop(0), "more_body": bool(left) or then != "end"}
        if then == "go":
            return {"type": "http.disconnect"}
        if then == "stop":
            stop.set()
        await asyncio.Event().wait()
        raise AssertionError

    request = Request({"type": "http", "method": "POST", "path": "/jobs", "headers": []}, receive)
    state: Any = SimpleNamespace(stop=stop)
    return sum([len(piece) async for piece in job_upload._pieces(request, state)])


def read(*pieces: bytes, then: str) -> int:
    return asyncio.run(_read(pieces, StopSignal(), then=then))


def test_all_of_it_comes_out_in_larger_pieces() -> None:
    assert read(*[b"x" * 1000] * 1000, b"", then="end") == 1_000_000


@pytest.mark.parametrize(("then", "slug"), [("stall", "body-too-slow"), ("go", "body-incomplete")])
def test_a_client_that_stalls_or_goes_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, then: str, slug: str
) -> None:
    monkeypatch.setattr(job_upload, "WINDOW_S", 0.05)
    with pytest.raises(Problem) as caught:
        read(b"x", then=then)
    assert caught.value.kind.slug == slug


def test_a_service_that_stops_does_not_wait_for_the_rest() -> None:
    with pytest.raises(ShuttingDown):
        read(b"x", then="stop")


def test_each_window_begins_anew_when_enough_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_upload, "WINDOW_BYTES", 10)
    windows = job_upload._Windows()
    before = windows._ends_at
    windows.count(9)
    assert windows._ends_at == before
    windows.leave_out(5.0)
    assert windows._ends_at == before + 5.0
    windows.count(1)
    assert windows.left_s() == pytest.approx(WINDOW_S, abs=1.0)

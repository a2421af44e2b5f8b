"""Clients that begin a request and do not end it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import uvicorn
from uvicorn.server import ServerState

from api import http_limits, request_body
from api.app import create_app
from api.http_limits import LimitedHttpProtocol
from api.settings import load_settings
from runner.bootstrap import build_runner

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from api.app import Application

SUBMIT = b"POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Application]:
    monkeypatch.setattr(http_limits, "HEAD_TIMEOUT_S", 0.3)
    monkeypatch.setattr(request_body, "BODY_TIMEOUT_S", 0.3)
    settings = load_settings(
        {"SNAKELINE_DATA_DIR": str(tmp_path / "data"), "SNAKELINE_DATABASE_URL": "memory://"}
    )
    runner = build_runner(settings.runner())
    yield create_app(runner, settings)
    runner.close()


async def until_closed(app: Application, *parts: bytes) -> bytes:
    """What the server answers until it closes the connection by itself; within 10 s, or TimeoutError."""
    config = uvicorn.Config(
        app, http=LimitedHttpProtocol, log_config=None, access_log=False, timeout_keep_alive=75
    )
    seen = asyncio.Event()

    class Seen(LimitedHttpProtocol):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            seen.set()

    loop = asyncio.get_running_loop()
    async with app.router.lifespan_context(app) as state:
        server = await loop.create_server(
            lambda: Seen(config, ServerState(), dict(state or {})), "127.0.0.1", 0
        )
        async with server, asyncio.timeout(10):
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            for part in parts:
                seen.clear()
                writer.write(part)
                await seen.wait()
            answer = await reader.read()
            writer.close()
            await writer.wait_closed()
    return answer


def test_a_connection_without_a_request_is_closed(app: Application) -> None:
    assert asyncio.run(until_closed(app)) == b""


def test_a_head_that_never_ends_is_closed(app: Application) -> None:
    assert asyncio.run(until_closed(app, b"GET /healthz HTTP/1.1\r\nX-Slow: ")) == b""


def test_a_second_head_on_the_connection_has_no_more_time(app: Application) -> None:
    first = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    answer = asyncio.run(until_closed(app, first, b"GET /healthz HTTP/1.1\r\nX-Slow: "))
    assert answer.count(b"HTTP/1.1 200 ") == 1


def test_a_body_that_never_comes_is_408(app: Application) -> None:
    answer = asyncio.run(until_closed(app, SUBMIT, b"{"))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"body-too-slow" in answer


def test_heads_that_come_in_pieces_do_not_add_up_over_a_connection(app: Application) -> None:
    request = b"GET /healthz HTTP/1.1\r\nX-Large: " + b"x" * 30_000
    ends = [b"\r\nHost: x\r\n\r\n"] * 3 + [b"\r\nHost: x\r\nConnection: close\r\n\r\n"]
    answer = asyncio.run(until_closed(app, *[part for end in ends for part in (request, end)]))
    assert answer.count(b"HTTP/1.1 200 ") == 4

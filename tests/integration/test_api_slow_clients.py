"""Clients that begin something and do not end it: a request, or the reading of an answer."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from api import http_limits, listener, request_body
from api.app import create_app
from api.settings import load_settings
from runner.bootstrap import build_runner
from tests.support.asgi_server import serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from api.app import Application

HEALTHZ = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
SUBMIT = b"POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
UNREAD = b"POST /jobs/x/cancel HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
PATIENCE_S = 0.3


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Application]:
    monkeypatch.setattr(http_limits, "HEAD_TIMEOUT_S", PATIENCE_S)
    monkeypatch.setattr(http_limits, "LINGER_S", PATIENCE_S)
    monkeypatch.setattr(request_body, "BODY_TIMEOUT_S", PATIENCE_S)
    monkeypatch.setattr(listener, "TAKES_NOTHING_S", PATIENCE_S)
    settings = load_settings(
        {"SNAKELINE_DATA_DIR": str(tmp_path / "data"), "SNAKELINE_DATABASE_URL": "memory://"}
    )
    runner = build_runner(settings.runner())
    yield create_app(runner, settings)
    runner.close()


def until_closed(app: Application, *parts: bytes) -> bytes:
    """What the server answers until it closes the connection by itself; within 10 s, or TimeoutError."""

    async def talk() -> bytes:
        async with serving(app) as served, asyncio.timeout(10):
            reader, writer = await served.connect()
            for part in parts:
                served.seen.clear()
                writer.write(part)
                await served.seen.wait()
            answer = await reader.read()
            writer.close()
            await writer.wait_closed()
        return answer

    return asyncio.run(talk())


def dribbled(app: Application, head: bytes) -> bytes:
    """What is answered to a request whose body comes byte by byte, until the server closes the connection."""

    async def talk() -> bytes:
        async with serving(app) as served, asyncio.timeout(10):
            reader, writer = await served.connect()
            writer.write(head)
            answer = asyncio.ensure_future(reader.read())
            while not served.gone.is_set():
                served.seen.clear()
                writer.write(b" ")
                with suppress(TimeoutError):
                    await asyncio.wait_for(served.gone.wait(), PATIENCE_S / 20)
            with suppress(ConnectionError):
                await answer
            writer.close()
        return answer.result()

    return asyncio.run(talk())


def test_a_connection_without_a_request_is_closed(app: Application) -> None:
    assert until_closed(app) == b""


def test_a_head_that_never_ends_is_closed(app: Application) -> None:
    assert until_closed(app, b"GET /healthz HTTP/1.1\r\nX-Slow: ") == b""
    assert app.connections.refused["head-too-slow"] == 1


def test_a_second_head_on_the_connection_has_no_more_time(app: Application) -> None:
    answer = until_closed(app, HEALTHZ + b"\r\n", b"GET /healthz HTTP/1.1\r\nX-Slow: ")
    assert answer.count(b"HTTP/1.1 200 ") == 1


def test_empty_lines_do_not_keep_a_connection(app: Application) -> None:
    assert until_closed(app, HEALTHZ + b"\r\n", b"\r\n").count(b"HTTP/1.1 200 ") == 1


def test_a_body_that_never_comes_is_408(app: Application) -> None:
    answer = until_closed(app, SUBMIT, b"{")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"body-too-slow" in answer


def test_a_body_that_comes_byte_by_byte_is_408_when_its_time_is_up(app: Application) -> None:
    answer = dribbled(app, SUBMIT.replace(b": 9", b": 99999"))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert answer.count(b"HTTP/1.1") == 1


def test_a_body_that_nobody_reads_does_not_keep_a_connection(app: Application) -> None:
    answer = dribbled(app, UNREAD)
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert answer.count(b"HTTP/1.1") == 1


def test_what_comes_after_an_early_answer_is_not_answered(app: Application) -> None:
    head = UNREAD.replace(b"Content-Length: 1000000", b"Transfer-Encoding: chunked")
    assert until_closed(app, head, b"3\r\nabc\r\n", b"zz\r\n").count(b"HTTP/1.1") == 1


def test_an_unread_body_that_ends_in_time_lets_the_connection_be_used_again(app: Application) -> None:
    body = b" " * 300_000
    head = UNREAD.replace(b"1000000", b"%d" % len(body))
    answer = until_closed(app, head + body[:10], body[10:] + HEALTHZ + b"Connection: close\r\n\r\n")
    assert (answer.count(b"HTTP/1.1 404 "), answer.count(b"HTTP/1.1 200 ")) == (1, 1)


@pytest.mark.parametrize("encoding", [b"Content-Length: 9000000", b"Transfer-Encoding: chunked"])
def test_a_client_that_sends_too_much_reads_413_and_not_a_reset(app: Application, encoding: bytes) -> None:
    async def talk() -> bytes:
        async with serving(app) as served, asyncio.timeout(10):
            reader, writer = await served.connect()
            head = b"POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            writer.write(head + encoding + b"\r\n\r\n")
            for _ in range(9):
                piece = b" " * 1_000_000
                writer.write(piece if encoding.startswith(b"C") else b"%x\r\n%b\r\n" % (len(piece), piece))
                await writer.drain()
            answer = await reader.read()
            writer.close()
            await writer.wait_closed()
        return answer

    answer = asyncio.run(talk())
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer.partition(b"\r\n\r\n")[0]


def test_heads_that_come_in_pieces_do_not_add_up_over_a_connection(app: Application) -> None:
    request = b"GET /healthz HTTP/1.1\r\nX-Large: " + b"x" * 30_000
    ends = [b"\r\nHost: x\r\n\r\n"] * 3 + [b"\r\nHost: x\r\nConnection: close\r\n\r\n"]
    answer = until_closed(app, *[part for end in ends for part in (request, end)])
    assert answer.count(b"HTTP/1.1 200 ") == 4


def test_a_reader_that_takes_nothing_is_cut_off(app: Application) -> None:
    async def talk() -> None:
        async with serving(app) as served, asyncio.timeout(20):
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(served.address)
            with client:
                client.sendall(b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n")
                await served.gone.wait()

    asyncio.run(talk())

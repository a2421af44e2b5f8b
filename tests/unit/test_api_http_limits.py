"""Requests whose heads are too large, however they are cut into pieces."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from api.http_limits import MAX_HEAD_BYTES, LimitedHttpProtocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

HEALTHZ = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"


async def answer_ok(scope: Any, receive: Callable[[], Awaitable[Any]], send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


async def never_ending(scope: Any, receive: Callable[[], Awaitable[Any]], send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"so far", "more_body": True})
    while (await receive())["type"] != "http.disconnect":
        pass


class Wire(asyncio.Transport):
    """The server's end of a connection: takes what is written, says when it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


async def _talk(app: Any, pieces: tuple[bytes, ...]) -> Wire:
    config = uvicorn.Config(app, http=LimitedHttpProtocol, log_config=None, access_log=False)
    config.load()
    protocol = LimitedHttpProtocol(config, ServerState(), {})
    wire = Wire()
    protocol.connection_made(wire)
    for piece in pieces:
        if not wire.closed:
            protocol.data_received(piece)
        for _ in range(10):
            await asyncio.sleep(0)
    protocol.connection_lost(None)
    for _ in range(10):
        await asyncio.sleep(0)
    return wire


def talk(*pieces: bytes, app: Any = answer_ok) -> Wire:
    return asyncio.run(_talk(app, pieces))


def header(size_bytes: int) -> bytes:
    return b"X-Large: " + b"x" * size_bytes + b"\r\n"


@pytest.mark.parametrize(
    "pieces",
    [
        (HEALTHZ + header(MAX_HEAD_BYTES) + b"\r\n",),
        (HEALTHZ + header(MAX_HEAD_BYTES // 2) * 2 + b"\r\n",),
        (HEALTHZ, header(MAX_HEAD_BYTES // 2), header(MAX_HEAD_BYTES // 2), b"\r\n"),
        (HEALTHZ + b"X-Endless: " + b"x" * MAX_HEAD_BYTES,),
        (HEALTHZ + b"X-Endless: ", *[b"x" * 10_000] * 7),
        (b"GET /" + b"x" * MAX_HEAD_BYTES + b" HTTP/1.1\r\nHost: x\r\n\r\n",),
        (
            b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\n",
            b"0123456789",
            HEALTHZ + header(70_000) + b"\r\n",
        ),
        (HEALTHZ + b"\r\n", HEALTHZ + b"X-Endless: " + b"x" * MAX_HEAD_BYTES),
    ],
    ids=[
        "whole",
        "two fields",
        "in pieces",
        "endless",
        "dribbled",
        "address",
        "after a body",
        "a second one",
    ],
)
def test_a_head_beyond_the_limit_is_431(pieces: tuple[bytes, ...]) -> None:
    wire = talk(*pieces)
    assert b"HTTP/1.1 431 " in wire.written
    assert b'"type":"head-too-large"' in wire.written
    assert wire.closed


@pytest.mark.parametrize(
    ("pieces", "answers"),
    [
        ((HEALTHZ + header(MAX_HEAD_BYTES - 100) + b"\r\n",), 1),
        ((HEALTHZ + header(30_000) + b"\r\n",) * 5, 5),
        ((HEALTHZ + header(30_000), b"\r\n") * 5, 5),
        ((b"POST / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n", b"y" * 100_000 + HEALTHZ, b"\r\n"), 2),
        ((b"POST / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" + b"y" * 100_000 + HEALTHZ, b"\r\n"), 2),
    ],
    ids=["just below", "one after another", "in halves", "behind a body", "with a body"],
)
def test_what_is_below_the_limit_is_answered(pieces: tuple[bytes, ...], answers: int) -> None:
    wire = talk(*pieces)
    assert wire.written.count(b"HTTP/1.1 200 ") == answers


async def never_answering(scope: Any, receive: Callable[[], Awaitable[Any]], send: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@pytest.mark.parametrize("second", [b"NOPE\r\n\r\n", HEALTHZ + header(MAX_HEAD_BYTES) + b"\r\n"])
def test_a_refusal_is_never_taken_for_the_answer_to_the_request_before(second: bytes) -> None:
    wire = talk(HEALTHZ + b"\r\n", second, app=never_answering)
    assert wire.closed
    assert wire.written == b""


def test_a_body_that_goes_wrong_is_400_for_its_own_request() -> None:
    head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert talk(head, b"zz\r\n", app=never_answering).written.startswith(b"HTTP/1.1 400 ")


def test_nothing_is_said_inside_an_answer_that_is_still_being_sent() -> None:
    wire = talk(HEALTHZ + b"\r\n", b"NOPE\r\n\r\n", app=never_ending)
    assert wire.closed
    assert b"HTTP/1.1 400" not in wire.written

"""Requests whose heads are too large, however they are cut into pieces."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from api import http_limits
from api.http_limits import MAX_HEAD_BYTES, MAX_HEADER_FIELDS
from tests.support.http_wire import never_ending, talk, until_ended

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

HEALTHZ = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"


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
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n",
            b"0123456789",
            HEALTHZ + header(70_000) + b"\r\n",
        ),
        (HEALTHZ + b"\r\n", HEALTHZ + b"X-Endless: " + b"x" * MAX_HEAD_BYTES),
        (HEALTHZ + b"a:\r\n" * MAX_HEADER_FIELDS + b"\r\n",),
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
        "many fields",
    ],
)
def test_a_head_beyond_the_limit_is_431(pieces: tuple[bytes, ...]) -> None:
    wire = talk(*pieces)
    assert b"HTTP/1.1 431 " in wire.written
    assert b'"type":"head-too-large"' in wire.written
    assert wire.ended


@pytest.mark.parametrize(
    ("pieces", "answers"),
    [
        ((HEALTHZ + header(MAX_HEAD_BYTES - 100) + b"\r\n",), 1),
        ((HEALTHZ + header(30_000) + b"\r\n",) * 5, 5),
        ((HEALTHZ + header(30_000), b"\r\n") * 5, 5),
        (
            (
                b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n",
                b"y" * 100_000 + HEALTHZ,
                b"\r\n",
            ),
            2,
        ),
        (
            (
                b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + b"y" * 100_000 + HEALTHZ,
                b"\r\n",
            ),
            2,
        ),
    ],
    ids=["just below", "one after another", "in halves", "behind a body", "with a body"],
)
def test_what_is_below_the_limit_is_answered(pieces: tuple[bytes, ...], answers: int) -> None:
    wire = talk(*pieces)
    assert wire.written.count(b"HTTP/1.1 200 ") == answers


async def never_answering(scope: Any, receive: Callable[[], Awaitable[Any]], send: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def without_reading(scope: Any, receive: object, send: object) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("second", [b"NOPE\r\n\r\n", HEALTHZ + header(MAX_HEAD_BYTES) + b"\r\n"])
def test_a_refusal_is_never_taken_for_the_answer_to_the_request_before(second: bytes) -> None:
    wire = talk(HEALTHZ + b"\r\n", second, app=never_answering)
    assert wire.ended
    assert wire.written == b""


def test_every_request_learns_that_its_client_has_gone() -> None:
    told = []

    async def app(scope: Any, receive: Callable[[], Awaitable[Any]], send: Any) -> None:
        await never_answering(scope, receive, send)
        told.append(scope["path"])

    talk(HEALTHZ + b"\r\n" + HEALTHZ.replace(b"healthz", b"readyz") + b"\r\n", app=app)
    assert told == ["/healthz"]


def test_a_body_that_goes_wrong_is_400_for_its_own_request() -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert talk(head, b"zz\r\n", app=never_answering).written.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    ("chunk", "times", "is_refused"),
    [
        (b"1\r\nx\r\n", 5000, True),
        (b"1\r\nx\r\n", 4000, False),
        (b"40\r\n" + b"x" * 64 + b"\r\n", 20_000, False),
        (b"1;" + b"a" * 16_000 + b"\r\nx\r\n", 70, True),
        (b"1;" + b"a" * 16_000 + b"\r\nx\r\n", 60, False),
    ],
    ids=["tiny", "few tiny", "many small", "mostly framing", "some framing"],
)
def test_a_body_does_not_come_in_crumbs(chunk: bytes, times: int, *, is_refused: bool) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    wire = talk(head, *[chunk * 10] * (times // 10), app=never_answering)
    assert wire.written.startswith(b"HTTP/1.1 400 ") is is_refused


def test_a_body_that_nobody_reads_has_an_end_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_limits, "BODY_TIMEOUT_S", 0.05)
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"
    assert until_ended(head, b"x", app=without_reading) == b""


def test_a_body_that_brings_files_has_as_long_as_it_keeps_coming(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_limits, "BODY_TIMEOUT_S", 0.05)
    monkeypatch.setattr(http_limits, "WINDOW_BYTES", 10)
    lines = b"Host: x\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: 99\r\n\r\n"
    begun = time.monotonic()
    assert until_ended(b"POST /jobs HTTP/1.1\r\n" + lines, b"x" * 10, app=without_reading) == b""
    assert time.monotonic() - begun >= 0.1  # the second window brought nothing


def test_nothing_is_said_inside_an_answer_that_is_still_being_sent() -> None:
    wire = talk(HEALTHZ + b"\r\n", b"NOPE\r\n\r\n", app=never_ending)
    assert wire.ended
    assert b"HTTP/1.1 400" not in wire.written

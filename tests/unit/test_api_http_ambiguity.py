"""Requests that two readers could read differently, a proxy and we: they are refused, or read in one way."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.http_wire import answer_ok, never_ending, talk

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

GET = b"GET / HTTP/1.1\r\nHost: x\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
CHUNKS = b"2\r\n{}\r\n0\r\n\r\n"
UPGRADE = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"

AMBIGUOUS = {
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": GET + b"Host: y\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/2.0": b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
    "both lengths": POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS,
    "both lengths, turned round": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n" + CHUNKS,
    "two lengths": POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} ",
    "a list of lengths": POST + b"Content-Length: 2, 2\r\n\r\n{}",
    "a signed length": POST + b"Content-Length: +2\r\n\r\n{}",
    "an endless length": POST + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n{}",
    "a space before the colon": POST + b"Content-Length : 2\r\n\r\n{}",
    "an encoding we do not decode": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + CHUNKS,
    "two encodings": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n" + CHUNKS,
    "an encoding of no name": POST + b"Transfer-Encoding: xchunked\r\n\r\n" + CHUNKS,
    "chunks in HTTP/1.0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS,
    "bare newlines": b"GET / HTTP/1.1\nHost: x\n\n",
    "a newline in a value": GET + b"X: a\nY: b\r\n\r\n",
    "a return in a value": GET + b"X: a\rb\r\n\r\n",
    "NUL in a value": GET + b"X: a\x00b\r\n\r\n",
    "a folded value": GET + b"X: a\r\n b\r\n\r\n",
    "a body before an upgrade": POST + UPGRADE + b"Content-Length: 2\r\n\r\n{}",
    "chunks before an upgrade": POST + UPGRADE + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS,
    "a negative chunk": POST + b"Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n",
    "a chunk in C's form": POST + b"Transfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n",
    "a chunk that ends in a newline": POST + b"Transfer-Encoding: chunked\r\n\r\n2;a\n{}\r\n0\r\n\r\n",
    "bytes in the address": b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    "a tunnel": b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n",
}
CLEAR = {
    "a get": GET + b"\r\n",
    "HTTP/1.0": b"GET / HTTP/1.0\r\n\r\n",
    "an absolute address": b"GET http://y/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "a length": POST + b"Content-Length: 2\r\n\r\n{}",
    "chunks": POST + b"Transfer-Encoding: Chunked\r\n\r\n" + CHUNKS,
    "chunks with extensions": POST + b"Transfer-Encoding: chunked\r\n\r\n2;a=b\r\n{}\r\n0\r\n\r\n",
    "bytes in a value": GET + b"X: \xff\r\n\r\n",
    "an upgrade": GET + UPGRADE + b"\r\n",
    "empty lines before": b"\r\n\r\n" + GET + b"\r\n",
}


def statuses(written: bytes) -> list[bytes]:
    return re.findall(rb"HTTP/1\.1 (\d+) ", written)


@pytest.mark.parametrize("request_", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_what_is_ambiguous_is_400_and_the_end(request_: bytes) -> None:
    wire = talk(request_, GET + b"\r\n")
    assert statuses(wire.written)[0] == b"400"
    assert len(statuses(wire.written)) == 1
    assert b"malformed-request" in wire.written
    assert wire.ended


@pytest.mark.parametrize("request_", CLEAR.values(), ids=CLEAR)
def test_what_is_clear_is_answered(request_: bytes) -> None:
    assert statuses(talk(request_).written) == [b"200"]


def test_a_request_behind_a_refused_upgrade_is_answered_too() -> None:
    assert statuses(talk(GET + UPGRADE + b"\r\n" + GET + b"\r\n").written) == [b"200", b"200"]


def test_a_trailer_does_not_pass_for_a_header() -> None:
    seen: list[dict[bytes, bytes]] = []

    async def app(scope: Any, receive: Callable[[], Awaitable[Any]], send: Any) -> None:
        await answer_ok(scope, receive, send)
        seen.append(dict(scope["headers"]))

    chunks = CHUNKS.replace(b"0\r\n\r\n", b"0\r\nAuthorization: Bearer x\r\nX-Forwarded-For: y\r\n\r\n")
    wire = talk(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks, app=app)
    assert statuses(wire.written) == [b"200"]
    assert seen == [{b"host": b"x", b"transfer-encoding": b"chunked"}]


def test_a_trailer_without_an_end_is_431() -> None:
    head = POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX: "
    assert statuses(talk(head, *[b"y" * 10_000] * 7, b"\r\n\r\n").written) == [b"431"]


@pytest.mark.parametrize("expect", [b"", b"Expect: 100-continue\r\n"])
def test_nothing_follows_a_refusal(expect: bytes) -> None:
    head = POST + expect + b"Transfer-Encoding: chunked\r\n\r\n"
    assert statuses(talk(head + b"zz\r\n", GET + b"\r\n").written) == [b"400"]


_PIECES = st.sampled_from(
    [
        *AMBIGUOUS.values(),
        *CLEAR.values(),
        b"\r\n",
        b"\x00",
        b"Host: y\r\n",
        b"Content-Length: 3\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
        b"0\r\n\r\n",
        b"Expect: 100-continue\r\n",
    ]
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(_PIECES, min_size=1, max_size=6).map(b"".join),
    st.data(),
    st.sampled_from([answer_ok, never_ending]),
)
def test_whatever_comes_a_refusal_is_the_last_that_is_said(
    sent: bytes, data: st.DataObject, app: Any
) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(sent) - 1)), max_size=6)))
    wire = talk(
        *[piece for a, b in zip([0, *cuts], [*cuts, len(sent)], strict=True) if (piece := sent[a:b])], app=app
    )
    said = [status for status in statuses(wire.written) if status != b"100"]
    assert b"400" not in said[:-1]
    assert b"431" not in said[:-1]
    if said and said[-1] != b"200":
        assert wire.written.count(b"x-frame-options: DENY") == 1
        assert wire.ended

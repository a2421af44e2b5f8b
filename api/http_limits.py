"""uvicorn's httptools protocol with the limits that its parser lacks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import uuid4

import structlog
from pydantic_core import to_json
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from api.problems import MEDIA_TYPE, Kind, Problem

if TYPE_CHECKING:
    from asyncio import TimerHandle

MAX_HEAD_BYTES = 64 * 2**10
HEAD_TIMEOUT_S = 20.0

_MALFORMED = Kind(400, "malformed-request", "This is not HTTP")
_HEAD_TOO_LARGE = Kind(431, "head-too-large", "The request line and headers are too large")
_TOO_LARGE_DETAIL = f"They must not be larger than {MAX_HEAD_BYTES} bytes."
_HEAD_END = b"\r\n\r\n"

_log = structlog.get_logger("api.requests")


class LimitedHttpProtocol(HttpToolsProtocol):
    """Bounds the head of a request: 64 KiB, as h11 does, and 20 s from its first byte or the connection.

    Otherwise a client could fill the memory with one endless header, or hold connections for ever by
    sending its headers a byte at a time.
    """

    _head_bytes = 0  # of the head's parsed part
    _waiting_bytes = 0  # of what came without ending the head or the field it belongs to
    _in_head = True
    _has_begun = False  # in the piece that came last
    _body_bytes = 0  # in the piece that came last
    _is_too_large = False
    _head_timer: TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        self._in_head = self._has_begun = True
        self._head_bytes = self._waiting_bytes = 0
        self._start_timer()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop_timer()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        self._has_begun = False
        self._body_bytes = 0
        super().data_received(data)
        # The parser keeps a field to itself until it ends.
        if not self._in_head or self.transport.is_closing():
            return
        self._waiting_bytes += len(data)
        if self._has_begun:
            # The rest of this piece is of requests before.
            self._waiting_bytes -= data.rfind(_HEAD_END) + len(_HEAD_END) if _HEAD_END in data else 0
            self._waiting_bytes -= self._body_bytes
        if self._waiting_bytes > MAX_HEAD_BYTES:
            self._refuse(_HEAD_TOO_LARGE, _TOO_LARGE_DETAIL)

    def send_400_response(self, msg: str) -> None:
        if self._is_too_large:
            self._refuse(_HEAD_TOO_LARGE, _TOO_LARGE_DETAIL)
        else:
            self._refuse(_MALFORMED, msg)

    def _count(self, size_bytes: int) -> None:
        self._head_bytes += size_bytes
        if self._head_bytes > MAX_HEAD_BYTES:
            self._is_too_large = True
            raise ValueError  # makes the parser give up, and the protocol call send_400_response

    def _refuse(self, kind: Kind, detail: str) -> None:
        """Answer without the application, which never sees this request, and close."""
        name = uuid4().hex
        _log.info("request", request_id=name, status=kind.status)
        if self._is_answering():
            self.transport.close()
            return
        body = to_json(Problem(kind, detail).document(name))
        head = [
            STATUS_LINE[kind.status],
            *(b"%b: %b\r\n" % pair for pair in self.server_state.default_headers),
            b"content-type: %b\r\n" % MEDIA_TYPE.encode(),
            b"content-length: %d\r\n" % len(body),
            b"x-request-id: %b\r\n" % name.encode(),
            b"x-content-type-options: nosniff\r\n",
            b"connection: close\r\n\r\n",
        ]
        self.transport.write(b"".join(head) + body)
        self.transport.close()

    def _is_answering(self) -> bool:
        """Whether what is written now would be taken for another request's answer, or a part of it."""
        cycle = getattr(self, "cycle", None)
        return cycle is not None and not cycle.response_complete and (self._in_head or cycle.response_started)

    def _start_timer(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._on_head_timeout)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _on_head_timeout(self) -> None:
        self._head_timer = None
        if self._in_head and not self.transport.is_closing():
            self.transport.close()

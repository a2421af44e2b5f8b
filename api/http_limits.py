"""uvicorn's httptools protocol with the limits that its parser lacks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from pydantic_core import to_json
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from api.problems import MEDIA_TYPE, Kind

if TYPE_CHECKING:
    from asyncio import TimerHandle

MAX_HEAD_BYTES = 64 * 2**10
HEAD_TIMEOUT_S = 20.0

_MALFORMED = Kind(400, "malformed-request", "This is not HTTP")
_HEAD_TOO_LARGE = Kind(431, "head-too-large", "The request line and headers are too large")


class LimitedHttpProtocol(HttpToolsProtocol):
    """Bounds the head of a request: 64 KiB, as h11 does, and 20 s from its first byte or the connection.

    Otherwise a client could fill the memory with one endless header, or hold connections for ever by
    sending its headers a byte at a time.
    """

    _head_bytes = 0
    _in_head = True
    _head_timer: TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        self._in_head = True
        self._start_timer()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_bytes = 0
        self._stop_timer()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._in_head or self.transport.is_closing():
            return
        self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(_HEAD_TOO_LARGE, f"They must not be larger than {MAX_HEAD_BYTES} bytes.")

    def send_400_response(self, msg: str) -> None:
        self._refuse(_MALFORMED, msg)

    def _refuse(self, kind: Kind, detail: str) -> None:
        """Answer without the application, which never sees this request, and close."""
        name = uuid4().hex
        document: dict[str, Any] = {
            "type": kind.slug,
            "title": kind.title,
            "status": kind.status,
            "detail": detail,
            "request_id": name,
        }
        body = to_json(document)
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

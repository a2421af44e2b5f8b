"""uvicorn's httptools protocol with the limits that it and its parser lack."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar
from uuid import uuid4

import structlog
from httptools import HttpParserError, HttpParserUpgrade
from pydantic_core import to_json
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from api.problems import MEDIA_TYPE, Kind, Problem
from api.security_headers import security_headers
from api.upload_requests import WINDOW_BYTES, is_upload

if TYPE_CHECKING:
    from asyncio import TimerHandle
    from collections.abc import Callable

    from api.client_limits import Connections

MAX_HEAD_BYTES = 64 * 2**10
MAX_HEADER_FIELDS = 128
HEAD_TIMEOUT_S = 20.0
BODY_TIMEOUT_S = 45.0  # longer than that of api.request_body, which has an answer
LINGER_S = 5.0
MAX_SMALL_PIECES = 4096  # of a body; more when it has as many times 64 bytes
_MIN_PIECE_BYTES = 64
MAX_FRAMING_BYTES = 2**20  # what may come with a body besides it; more when that is as large
_REFUSED_HEAD_TIMEOUT_S = 2.0

_MALFORMED = Kind(400, "malformed-request", "This is not HTTP")
_HEAD_TOO_LARGE = Kind(431, "head-too-large", "The request line and headers are too large")
_TOO_LARGE_DETAIL = (
    f"They must not be larger than {MAX_HEAD_BYTES} bytes, nor have more than {MAX_HEADER_FIELDS} fields."
)
_TOO_CUT_UP = "A body must not come in very many small pieces."
_HEAD_END = b"\r\n\r\n"

_log = structlog.get_logger("api.requests")


class Lingering:
    """A transport for answers that are ready before the request is: its `close` lets the client read them.

    A socket that is closed with unread input is reset, and the answer with it (RFC 9112, section 9.6).
    """

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = close


class LimitedHttpProtocol(HttpToolsProtocol):
    """Bounds what a client can hold open with a request that it does not end.

    The head has 64 KiB, 128 fields, and 20 s from its first byte or the connection; the body 45 s, or 45 s
    for each MiB where it brings files. Its pieces may not be so small that reading them is nothing but
    work. What comes of a body after its answer is thrown away for 5 s, then the
    connection is closed. How many connections a client may have is for `connections_of_clients` to say.
    """

    connections_of_clients: ClassVar[Connections]

    _refusal: Problem | None = None  # what to answer as soon as the head is there
    _head_bytes = 0  # of the head's parsed part
    _waiting_bytes = 0  # of what came without ending the head or the field it belongs to
    _in_head = True
    _in_body = False
    _has_begun = False  # in the piece that came last
    _body_bytes = 0  # in the piece that came last
    _whole_body_bytes = _pieces = _wire_bytes = 0  # of the body so far, and of all that came while it did
    _upload_bytes: int | None = None  # of a body that brings files, in this window
    _is_lingering = False
    _answering: RequestResponseCycle | None = None  # the oldest request without its whole answer
    _timer: TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._refusal = self.connections_of_clients.admit(self, self.client[0] if self.client else "")
        self._limit(_REFUSED_HEAD_TIMEOUT_S if self._refusal else HEAD_TIMEOUT_S, self._on_slow_head)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self.connections_of_clients.leave(self)
        if self._answering is not None and not self._answering.response_complete:
            # Where requests are queued, uvicorn tells the last one alone.
            self._answering.disconnected = True
            self._answering.message_event.set()
        super().connection_lost(exc)

    def give_way(self) -> bool:
        if self.transport.get_write_buffer_size():
            return False
        self.transport.close()
        return True

    def on_message_begin(self) -> None:
        self._in_head = self._has_begun = True
        self._head_bytes = self._waiting_bytes = 0
        if self._timer is None:
            self._limit(HEAD_TIMEOUT_S, self._on_slow_head)
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        if self._in_body:
            return  # a trailer, which must not pass for a header (RFC 9110, section 6.5.1)
        if len(self.headers) >= MAX_HEADER_FIELDS:
            self._give_up(Problem(_HEAD_TOO_LARGE, _TOO_LARGE_DETAIL))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._refusal is not None:
            self._give_up(self._refusal)
        if (detail := self._ambiguity()) is not None:
            self._give_up(Problem(_MALFORMED, detail))
        super().on_headers_complete()
        if not self.pipeline:
            self._answering = self.cycle
        self._in_head = False
        self._in_body = True
        self._whole_body_bytes = self._pieces = self._wire_bytes = 0
        self._upload_bytes = 0 if is_upload(self.scope["method"], self.scope["path"], self.headers) else None
        self._stop_timer()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        self._whole_body_bytes += len(body)
        self._pieces += 1
        if self._pieces > MAX_SMALL_PIECES + self._whole_body_bytes // _MIN_PIECE_BYTES:
            self._give_up(Problem(_MALFORMED, _TOO_CUT_UP))
        if self._upload_bytes is not None:
            self._upload_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_body = False
        self._stop_timer()
        if not self.cycle.response_complete:
            self.connections_of_clients.works(self)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        if self._is_lingering:
            return
        self._answering = self.pipeline[-1][0] if self.pipeline else None
        super().on_response_complete()
        if not self.pipeline:
            self.connections_of_clients.waits(self)
        if self._in_body:
            self._limit(LINGER_S, self.transport.close)

    def data_received(self, data: bytes) -> None:
        if self._is_lingering:
            return
        self._unset_keepalive_if_required()
        self._has_begun = False
        self._body_bytes = 0
        self._feed(data)
        if self.transport.is_closing() or self._is_lingering:
            return
        if self._in_head:
            self._check_unparsed(data)
        elif self._in_body:
            self._await_body(len(data))
        elif self._timer is None and self.timeout_keep_alive_task is None and self.cycle.response_complete:
            # Empty lines, or the end of a body that had its answer: what comes next is a head.
            self._limit(HEAD_TIMEOUT_S, self._on_slow_head)

    def send_400_response(self, msg: str) -> None:
        self._refuse(self._refusal or Problem(_MALFORMED, msg))

    def _ambiguity(self) -> str | None:
        """Why another reader of this request, a proxy before us, could read it differently; or None.

        The parser itself refuses most of it. See RFC 9112, sections 2.3, 3.2, 6.1 and 7.8.
        """
        version = self.parser.get_http_version()
        hosts = 0
        has_body = is_encoded = False
        for name, value in self.headers:
            if name == b"host":
                hosts += 1
            elif name == b"content-length":
                has_body = has_body or value != b"0"
            elif name == b"transfer-encoding":
                has_body = is_encoded = True
                if value.strip().lower() != b"chunked":
                    return "The only Transfer-Encoding is chunked."
        if version not in ("1.0", "1.1"):
            return "The version is HTTP/1.1."
        if hosts > 1 or (hosts == 0 and version == "1.1"):
            return "A request has exactly one Host."
        if is_encoded and version == "1.0":
            return "There is no Transfer-Encoding in HTTP/1.0."
        if has_body and self.parser.should_upgrade():
            return "A request with a body cannot upgrade to another protocol."
        return None

    def _feed(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
            except HttpParserUpgrade as upgrade:
                # To nothing that we speak: HTTP goes on behind it.
                data = data[upgrade.args[0] :]
            except HttpParserError:
                self.send_400_response("The request is malformed.")
                return
            else:
                return

    def _check_unparsed(self, data: bytes) -> None:
        """Refuse a head that grows unseen: the parser keeps a field to itself until it ends."""
        self._waiting_bytes += len(data)
        if self._has_begun:
            # The rest of this piece is of requests before.
            self._waiting_bytes -= data.rfind(_HEAD_END) + len(_HEAD_END) if _HEAD_END in data else 0
            self._waiting_bytes -= self._body_bytes
        if self._waiting_bytes > MAX_HEAD_BYTES:
            self._refuse(self._refusal or Problem(_HEAD_TOO_LARGE, _TOO_LARGE_DETAIL))

    def _await_body(self, size_bytes: int) -> None:
        """Bound the time of a body that has not come with its head, and what comes with it."""
        self._wire_bytes += size_bytes
        if self._wire_bytes > MAX_FRAMING_BYTES + 2 * self._whole_body_bytes:
            self._refuse(Problem(_MALFORMED, _TOO_CUT_UP))
            return
        if self._timer is None:
            self._limit(BODY_TIMEOUT_S, self._on_slow_body)
        if self.cycle.transport is self.transport:
            self.cycle.transport = Lingering(self.transport, self._close_gently)  # type: ignore[assignment]

    def _count(self, size_bytes: int) -> None:
        self._head_bytes += size_bytes
        if self._head_bytes > MAX_HEAD_BYTES:
            self._give_up(Problem(_HEAD_TOO_LARGE, _TOO_LARGE_DETAIL))

    def _give_up(self, refusal: Problem) -> None:
        """Make the parser stop, and the protocol call `send_400_response`."""
        self._refusal = self._refusal or refusal
        raise ValueError

    def _refuse(self, problem: Problem) -> None:
        """Answer without the application, which never sees this request, and close."""
        name = uuid4().hex
        kind = problem.kind
        client = self.client[0] if self.client else None
        _log.info("request", request_id=name, client=client, status=kind.status, problem=kind.slug)
        self.connections_of_clients.refused[kind.slug] += 1
        if not self._may_answer():
            self.transport.close()
            return
        body = to_json(problem.document(name))
        headers = [
            *self.server_state.default_headers,
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", name.encode()),
            *[(key.lower().encode(), value.encode()) for key, value in (problem.headers or {}).items()],
            *security_headers((), is_https=False),
            (b"connection", b"close"),
        ]
        lines = [b"%b: %b\r\n" % pair for pair in headers]
        self.transport.write(b"".join([STATUS_LINE[kind.status], *lines, b"\r\n", body]))
        if self._in_body:
            # The application waits for the rest: to it the client has gone.
            self.cycle.disconnected = True
            self.cycle.waiting_for_100_continue = False
            self.cycle.message_event.set()
        self._linger()

    def _may_answer(self) -> bool:
        """Whether what is written now is taken for the answer to the request that is being read."""
        cycle = getattr(self, "cycle", None)  # uvicorn's type leaves out that there may be none yet
        if self._in_head:
            return cycle is None or cycle.response_complete
        return not (self.pipeline or cycle is None or cycle.response_started)

    def _close_gently(self) -> None:
        if self._in_body:
            self._linger()
        else:
            self.transport.close()

    def _linger(self) -> None:
        """Close our side; throw away what still comes for a while, then close."""
        if self._is_lingering or self.transport.is_closing():
            return
        self._is_lingering = True
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._limit(LINGER_S, self.transport.close)

    def _limit(self, timeout_s: float, then: Callable[[], None]) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(timeout_s, then)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_slow_head(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self.connections_of_clients.refused["head-too-slow"] += 1
            self.transport.close()

    def _on_slow_body(self) -> None:
        self._timer = None
        may_go_on = self._upload_bytes is not None and self._upload_bytes >= WINDOW_BYTES
        if self.flow.read_paused or may_go_on:  # it is not the client who is slow, or it is not slow
            self._upload_bytes = None if self._upload_bytes is None else 0
            self._limit(BODY_TIMEOUT_S, self._on_slow_body)
        elif self._in_body:
            self.connections_of_clients.refused["body-too-slow"] += 1
            self.transport.close()


def protocol_with(connections: Connections) -> type[LimitedHttpProtocol]:
    """The protocol of one server, with the connections of its clients."""

    class CountedHttpProtocol(LimitedHttpProtocol):
        connections_of_clients = connections

    return CountedHttpProtocol

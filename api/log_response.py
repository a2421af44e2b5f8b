"""Sends a part of a log as it is, piece by piece: never the whole log in memory."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog
from starlette.responses import Response

from api.body_pieces import ContentChanged, send_pieces
from api.log_range import Span
from api.state import in_thread

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import Receive, Scope, Send

    from runner.log_store import Gap, Log

TEXT = "text/plain; charset=utf-8"

_log = structlog.get_logger(__name__)


def gap_marker(skipped_bytes: int) -> bytes:
    """The line that stands in a log where bytes are no longer kept."""
    return b"\n[snakeline: %d bytes skipped]\n" % skipped_bytes


class LogResponse(Response):
    """Bytes `span` of a log. With `marked`, a gap inside shows as a marker line, else there must be none."""

    def __init__(
        self, log: Log, span: Span, *, status: int, headers: Mapping[str, str], gap: Gap | None, marked: bool
    ) -> None:
        self._log = log
        self._span = span
        self._gap = gap if gap is not None and marked and span.start <= gap.start < span.end else None
        length = len(span)
        if self._gap is not None:
            skipped = min(self._gap.end, span.end) - self._gap.start
            self._marker = gap_marker(skipped)
            length += len(self._marker) - skipped
        super().__init__(None, status, {**headers, "Content-Length": str(length)}, TEXT)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - as in ASGI
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            for index, part in enumerate(self._parts()):
                if index:
                    await send({"type": "http.response.body", "body": self._marker, "more_body": True})
                await send_pieces(self._read, part.start, part.end, send, gone)
            if not gone.done():
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except ContentChanged:
            # Ending without the promised bytes makes the server break the connection: the client sees
            # that the answer is not whole.
            _log.warning("log_changed_while_sent")
        finally:
            gone.cancel()
            with suppress(asyncio.CancelledError):
                await gone

    def _parts(self) -> tuple[Span, ...]:
        if self._gap is None:
            return (self._span,)
        return Span(self._span.start, self._gap.start), Span(self._gap.end, self._span.end)

    async def _read(self, offset: int, most: int) -> tuple[int, bytes]:
        return await in_thread(self._log.read, offset, most)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

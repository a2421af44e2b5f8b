"""Sends an open file, or a part of it, and closes it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog
from starlette.responses import Response

from api.body_pieces import ContentChanged, send_pieces
from api.state import in_thread

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import Receive, Scope, Send

    from api.log_range import Span
    from runner.job_files import OpenedFile

_log = structlog.get_logger(__name__)


class OutputResponse(Response):
    """Bytes `span` of a file: of this very one, whatever its path leads to by now.

    A file that grows meanwhile is sent as far as it went; for one that has become shorter the answer breaks
    off, and the client sees that it is not whole.
    """

    def __init__(
        self, file: OpenedFile, span: Span, *, status: int, headers: Mapping[str, str], media_type: str
    ) -> None:
        self._file = file
        self._span = span
        super().__init__(None, status, {**headers, "Content-Length": str(len(span))}, media_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._file:
            await send(
                {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            if scope.get("snakeline.method") != "HEAD":
                await self._send_bytes(receive, send)

    async def _send_bytes(self, receive: Receive, send: Send) -> None:
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await send_pieces(self._read, self._span.start, self._span.end, send, gone)
            if not gone.done():
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except (ContentChanged, OSError) as error:
            # Ending without the promised bytes makes the server break the connection.
            _log.warning("file_changed_while_sent", error=type(error).__name__)
        finally:
            gone.cancel()
            with suppress(asyncio.CancelledError):
                await gone

    async def _read(self, offset: int, most: int) -> tuple[int, bytes]:
        return offset, await in_thread(self._file.read, offset, most)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

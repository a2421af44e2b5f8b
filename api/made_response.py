"""Sends what is made meanwhile: archives, and documents that may be very long."""

from __future__ import annotations

import asyncio
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import structlog
from starlette.responses import Response

from api.body_pieces import PieceSize
from runner.errors import RunnerError
from runner.file_listing import TooManyFiles

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from starlette.types import Receive, Scope, Send

    from api.state import AppState
    from runner.callers_jobs import CallersJobs

_log = structlog.get_logger(__name__)


class MadeResponse(Response):
    """The pieces as they come, each made when the client has taken the one before.

    Making them is work, so each piece waits for its tenant's turn. Where they end with an error the answer
    breaks off, and the client sees that it is not whole. It counts as a stream of its client.
    """

    def __init__(
        self,
        state: AppState,
        jobs: CallersJobs,
        pieces: Generator[bytes],
        *,
        media_type: str,
        headers: Mapping[str, str],
    ) -> None:
        self._state = state
        self._jobs = jobs
        self._pieces = pieces
        super().__init__(None, 200, headers, media_type)
        if "Content-Length" not in headers:
            del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._state.streams.open(scope), closing(self._pieces):
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            if scope.get("snakeline.method") == "HEAD":
                return
            gone = asyncio.ensure_future(_disconnected(receive))
            try:
                await self._send_pieces(send, gone)
            except (OSError, RunnerError, TooManyFiles) as error:
                # Ending without a last piece makes the server break the connection.
                _log.warning("answer_broken_off", error=type(error).__name__)
            finally:
                gone.cancel()
                with suppress(asyncio.CancelledError):
                    await gone

    async def _send_pieces(self, send: Send, gone: asyncio.Future[None]) -> None:
        size = PieceSize()
        while not gone.done():
            piece = await self._state.making.run_part(self._jobs, _some, self._pieces, size.bytes)
            if not piece:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            del piece  # not held while the client takes its time
            await size.taken(send)


def _some(pieces: Iterator[bytes], least_bytes: int) -> bytes:
    """At least so many bytes; fewer at the end, where there are none behind them."""
    found, size = [], 0
    for piece in pieces:
        found.append(piece)
        size += len(piece)
        if size >= least_bytes:
            break
    return b"".join(found)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

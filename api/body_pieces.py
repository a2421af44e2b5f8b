"""Sends what is too large to hold: in pieces, each only when the client has taken the one before."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from starlette.types import Send

LEAST_BYTES: Final = 64 * 2**10
MOST_BYTES: Final = 2**20
_AT_ONCE_S: Final = 0.05


class PieceSize:
    """How much to read next for one client: little at first, twice as much each time it takes it at once.

    So that of many clients who read slowly, or not at all, each costs little memory.
    """

    def __init__(self) -> None:
        self.bytes = LEAST_BYTES

    async def taken(self, send: Send) -> None:
        """Return once the client has taken nearly all that was sent."""
        begun = time.monotonic()
        # The server waits for room before it takes anything, be it nothing.
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        at_once = time.monotonic() - begun < _AT_ONCE_S
        self.bytes = min(2 * self.bytes, MOST_BYTES) if at_once else LEAST_BYTES


class ContentChanged(Exception):
    """Bytes that were promised in `Content-Length` are no longer there."""


async def send_pieces(
    read: Callable[[int, int], Awaitable[tuple[int, bytes]]],
    start: int,
    end: int,
    send: Send,
    gone: asyncio.Future[None],
) -> None:
    """Send bytes `[start, end)` until `gone` is done; raises ContentChanged.

    `read(offset, most)` gives some bytes, and the offset where they really begin.
    """
    size = PieceSize()
    while start < end and not gone.done():
        at, piece = await read(start, min(size.bytes, end - start))
        if at != start or not piece:
            raise ContentChanged
        start += len(piece)
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        del piece  # not held while the client takes its time
        if start < end:
            await size.taken(send)

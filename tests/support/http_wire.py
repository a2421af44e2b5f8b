"""The service's HTTP protocol without a network: bytes in, bytes out."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.server import ServerState

from api.client_limits import Connections
from api.http_limits import protocol_with

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


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
    """The server's end of a connection: takes what is written, says when its side is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False
        self.ended = False
        self.over = asyncio.Event()

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def close(self) -> None:
        self.closed = self.ended = True
        self.over.set()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


def _connected(app: Any) -> tuple[Any, Wire]:
    limited = protocol_with(Connections(100, 100))
    config = uvicorn.Config(app, http=limited, log_config=None, access_log=False)
    config.load()
    protocol = limited(config, ServerState(), {})
    wire = Wire()
    protocol.connection_made(wire)
    return protocol, wire


async def _talk(app: Any, pieces: tuple[bytes, ...]) -> Wire:
    protocol, wire = _connected(app)
    for piece in pieces:
        if not wire.closed:
            protocol.data_received(piece)
        for _ in range(10):
            await asyncio.sleep(0)
    ended = wire.ended
    protocol.connection_lost(None)
    wire.ended = ended  # by the server, not by its last act
    for _ in range(10):
        await asyncio.sleep(0)
    return wire


def talk(*pieces: bytes, app: Any = answer_ok) -> Wire:
    """What becomes of a connection on which these pieces come, one after another."""
    return asyncio.run(_talk(app, pieces))


def until_ended(*pieces: bytes, app: Any) -> bytes:
    """What is written until the server closes by itself; within 5 s, or TimeoutError."""

    async def wait() -> bytes:
        protocol, wire = _connected(app)
        for piece in pieces:
            protocol.data_received(piece)
        async with asyncio.timeout(5):
            await wire.over.wait()
        protocol.connection_lost(None)
        for task in protocol.tasks:
            task.cancel()
        return wire.written

    return asyncio.run(wait())

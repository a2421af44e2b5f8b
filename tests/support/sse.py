"""Asks for Server-Sent Events, and reads them as a browser does (WHATWG HTML, section 9.2.6)."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.asgi_server import Served


class Event(NamedTuple):
    event: str
    data: str
    id: str


def read_events(stream: bytes) -> list[Event]:
    """Every complete event; one that the stream breaks off in is dropped, as the standard says."""
    events: list[Event] = []
    kind, last_id = "", ""
    data: list[str] = []
    for line in re.split("\r\n|\r|\n", stream.decode()):
        if not line:
            if data:
                events.append(Event(kind or "message", "\n".join(data), last_id))
            kind, data = "", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            kind = value
        elif field == "data":
            data.append(value)
        elif field == "id" and "\0" not in value:
            last_id = value
    return events


class Stream:
    """An open answer: its head, and the events as they come."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        self._reader = reader
        self.head = head
        self.writer = writer
        self._text = b""
        self.is_over = False

    @property
    def status(self) -> int:
        return int(self.head.split(b" ")[1])

    @property
    def events(self) -> list[Event]:
        return read_events(self._text)

    async def until(self, count: int) -> list[Event]:
        """The events, once there are so many."""
        async with asyncio.timeout(10):
            while len(self.events) < count:
                assert not self.is_over, self._text
                await self._piece()
        return self.events

    async def rest(self) -> list[Event]:
        """All events, once the stream is over."""
        async with asyncio.timeout(10):
            while not self.is_over:
                await self._piece()
        return self.events

    async def _piece(self) -> None:
        size = int(await self._reader.readline(), 16)
        self._text += (await self._reader.readexactly(size + 2))[:size]
        self.is_over = size == 0


@asynccontextmanager
async def asking(served: Served, path: str, **headers: str) -> AsyncIterator[Stream]:
    reader, writer = await served.connect()
    lines = [f"GET {path} HTTP/1.1", "Host: x", *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items())]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
    try:
        yield Stream(reader, writer, head)
    finally:
        writer.close()

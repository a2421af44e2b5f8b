"""The application behind the service's own HTTP protocol, in this process and event loop."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.server import ServerState

from api.http_limits import protocol_with
from api.listener import listen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from api.app import Application


@dataclass
class Served:
    """Where it listens; each piece that arrives sets `seen`, each connection that is closed sets `gone`."""

    address: tuple[str, int]
    seen: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self.address)


@asynccontextmanager
async def serving(app: Application) -> AsyncIterator[Served]:
    """Answers on a loopback port as long as this lasts."""
    config = uvicorn.Config(
        app,
        http=protocol_with(app.connections),
        log_config=None,
        access_log=False,
        proxy_headers=False,
        timeout_keep_alive=75,
    )
    requests = ServerState()
    loop = asyncio.get_running_loop()
    listener = listen("127.0.0.1", 0)
    served = Served(listener.getsockname()[:2])

    class Seen(protocol_with(app.connections)):  # type: ignore[misc]
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            served.seen.set()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            served.gone.set()

    async with app.router.lifespan_context(app) as state:
        answering = await loop.create_server(lambda: Seen(config, requests, dict(state or {})), sock=listener)
        async with answering:
            yield served
            for connection in list(requests.connections):
                connection.transport.abort()
            while requests.connections:
                served.gone.clear()
                await served.gone.wait()
            await asyncio.gather(*requests.tasks)

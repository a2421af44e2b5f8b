"""Answers HEAD wherever GET is answered: the same status and headers, no body."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


class HeadAsGet:
    """Passes HEAD on as GET and ends the answer after its headers; `scope["snakeline.method"]` tells."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def headers_only(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        # A range means nothing to HEAD (RFC 9110, section 14.2).
        headers = [pair for pair in scope["headers"] if pair[0] != b"range"]
        as_get = {**scope, "method": "GET", "snakeline.method": "HEAD", "headers": headers}
        await self._app(as_get, receive, headers_only)

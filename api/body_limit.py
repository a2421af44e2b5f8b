"""Refuses a request body that is too large before anything parses it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from api.problems import BODY_TOO_LARGE, Problem, problem_response

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES = 2**20
_DETAIL = f"The body must not be larger than {MAX_BODY_BYTES} bytes."


class BodyLimit:
    """Answers 413 to a larger `Content-Length`, and to a body that turns out larger while it is read.

    A body that nobody reads is not counted: the server buffers no more than a little of it.
    """

    def __init__(self, app: ASGIApp, limit_bytes: int = MAX_BODY_BYTES) -> None:
        self._app = app
        self._limit_bytes = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        for name, value in scope["headers"]:
            if name == b"content-length" and int(value) > self._limit_bytes:
                await problem_response(BODY_TOO_LARGE, _DETAIL)(scope, receive, send)
                return
        received_bytes = 0

        async def counted() -> Message:
            nonlocal received_bytes
            message = await receive()
            if message["type"] == "http.request":
                received_bytes += len(message.get("body", b""))
                if received_bytes > self._limit_bytes:
                    raise Problem(BODY_TOO_LARGE, _DETAIL)
            return message

        await self._app(scope, counted, send)

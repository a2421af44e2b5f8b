"""Refuses a request body that is too large before anything parses it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from api.problems import BODY_TOO_LARGE, Problem
from api.upload_requests import is_upload

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES = 2**20


class BodyLimit:
    """Answers 413 to a larger `Content-Length`, and to a body that turns out larger while it is read.

    A body that nobody reads is not counted: the server buffers no more than a little of it.
    """

    def __init__(
        self, app: ASGIApp, limit_bytes: int = MAX_BODY_BYTES, *, upload_limit_bytes: int = MAX_BODY_BYTES
    ) -> None:
        """`upload_limit_bytes` is for bodies that bring files: see api/upload_requests.py."""
        self._app = app
        self._limit_bytes = limit_bytes
        self._upload_limit_bytes = upload_limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        brings_files = is_upload(scope["method"], scope["path"], scope["headers"])
        limit_bytes = self._upload_limit_bytes if brings_files else self._limit_bytes
        for name, value in scope["headers"]:
            if name == b"content-length" and int(value) > limit_bytes:
                await _too_large(limit_bytes).response()(scope, receive, send)
                return
        received_bytes = 0

        async def counted() -> Message:
            nonlocal received_bytes
            message = await receive()
            if message["type"] == "http.request":
                received_bytes += len(message.get("body", b""))
                if received_bytes > limit_bytes:
                    raise _too_large(limit_bytes)
            return message

        await self._app(scope, counted, send)


def _too_large(limit_bytes: int) -> Problem:
    # The rest is not wanted: the client is told to stop sending it.
    detail = f"The body must not be larger than {limit_bytes} bytes."
    return Problem(BODY_TOO_LARGE, detail, headers={"Connection": "close"})

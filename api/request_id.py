"""Names every request and writes one log line when it has been answered."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING
from uuid import uuid4

import structlog

from api.problems import INTERNAL, problem_of, problem_response, request_id
from api.security_headers import security_headers
from runner.errors import ShuttingDown

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SANE = re.compile(rb"[A-Za-z0-9_.-]{1,128}")
_QUIET = frozenset({"/healthz", "/readyz"})

_log = structlog.get_logger("api.requests")


class RequestId:
    """Stamps `X-Request-ID` (the caller's, if it is a sane one) and the security headers on every answer.

    It stands outside everything else, so that a 500 has them too, and it is where an error that nobody
    expected ends: logged with its traceback, answered without it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        name = _incoming(scope) or uuid4().hex
        request_id.set(name)
        structlog.contextvars.bind_contextvars(request_id=name)
        stamp = (b"x-request-id", name.encode("ascii"))
        status = 0

        async def stamped(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message.get("headers", ())
                is_https = scope["scheme"] == "https"
                message["headers"] = [*headers, stamp, *security_headers(headers, is_https=is_https)]
            await send(message)

        started = time.perf_counter()
        try:
            await self._app(scope, receive, stamped)
        except asyncio.CancelledError:  # the service's time to stop is over
            if status == 0:
                await problem_of(ShuttingDown()).response()(scope, receive, stamped)
            raise
        except Exception:  # noqa: BLE001 - the last stop: nothing else may answer for it
            _log.exception("request_failed", method=scope["method"], route=_route(scope))
            if status == 0:
                await problem_response(INTERNAL, "The service's log says more under this request_id.")(
                    scope, receive, stamped
                )
        route = _route(scope)
        # A request id and a route, never the path or the query: those may hold what is nobody's business.
        (_log.debug if route in _QUIET else _log.info)(
            "request",
            client=scope["client"][0] if scope.get("client") else None,
            method=scope.get("snakeline.method", scope["method"]),
            route=route,
            status=status,
            ms=round((time.perf_counter() - started) * 1000, 2),
        )


def _incoming(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _SANE.fullmatch(value):
            return str(value, "ascii")
    return None


def _route(scope: Scope) -> str | None:
    return getattr(scope.get("route"), "path", None)

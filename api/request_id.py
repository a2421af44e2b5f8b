"""Names every request, and is where an error ends that nobody has expected."""

from __future__ import annotations

import asyncio
import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import uuid4

import structlog

from api.access_log import AccessLog, route_of
from api.problems import INTERNAL, problem_of, problem_response, request_id
from api.security_headers import security_headers
from api.trace_headers import Arrival, arrival, trace_of
from runner.errors import ShuttingDown

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SANE = re.compile(rb"[A-Za-z0-9_.-]{1,128}")

_log = structlog.get_logger("api.requests")


class RequestId:
    """Stamps `X-Request-ID` (the caller's, if it is a sane one) and the security headers on every answer.

    It stands outside everything else, so that a 500 has them too, and it is where an error that nobody
    expected ends: logged with its traceback, answered without it. When the answer is over, `log` is told.
    """

    def __init__(self, app: ASGIApp, log: AccessLog | None = None) -> None:
        self._app = app
        self._log = log or AccessLog()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        name = _incoming(scope) or uuid4().hex
        request_id.set(name)
        trace = trace_of(scope["headers"])
        arrival.set(Arrival(datetime.now(UTC), trace))
        # A pipelined request's task inherits the context of the one before: its job, its trace, its caller.
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=name)
        if trace is not None:
            structlog.contextvars.bind_contextvars(trace_id=trace.trace_id)
        stamp = (b"x-request-id", name.encode("ascii"))
        status = 0
        first_byte_s: float | None = None

        async def stamped(message: Message) -> None:
            nonlocal status, first_byte_s
            if message["type"] == "http.response.start":
                status = message["status"]
                first_byte_s = time.perf_counter() - started
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
            _log.exception("request_failed", method=scope["method"], route=route_of(scope))
            if status == 0:
                await problem_response(INTERNAL, "The service's log says more under this request_id.")(
                    scope, receive, stamped
                )
        self._log.answered(scope, status, first_byte_s=first_byte_s, whole_s=time.perf_counter() - started)


def _incoming(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _SANE.fullmatch(value):
            return str(value, "ascii")
    return None

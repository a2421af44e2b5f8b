"""Counts requests and times their answers, by route."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from runner.histograms import Histograms, Tally

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

OTHER: Final = "other"
"""What is told in place of what callers may make up: paths without a route, methods that a route lacks."""
UNANSWERED: Final = "none"
"""The status of a request whose client had gone before there was an answer."""
STREAMS: Final = "snakeline.stream"
"""Is in the scope of a request that was kept open, for news or for much to be made or read."""
PROBLEM: Final = "snakeline.problem"
"""In the scope of a request that was answered with a problem: its type."""

_NOT_THERE: Final = "405"  # the route has no such method: else a stranger could make a series of each
_METHODS: Final = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})


class RequestCounts:
    """By route (its template, never a path), method and status; durations by route and method.

    A duration is until the first byte of the answer. Requests that are kept open are counted and not timed:
    theirs is what the client chose. `problems` are by their type.
    """

    def __init__(self) -> None:
        self.requests: Tally[tuple[str, str, str]] = Tally()
        self.durations: Histograms[tuple[str, str]] = Histograms()
        self.problems: Tally[str] = Tally()


class CountedRequests:
    """Stands outside of what answers for errors, so that their answers are counted, too."""

    def __init__(self, app: ASGIApp, counts: RequestCounts) -> None:
        self._app = app
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = UNANSWERED
        took_s = 0.0
        begun = time.perf_counter()

        async def watched(message: Message) -> None:
            nonlocal status, took_s
            if message["type"] == "http.response.start":
                status, took_s = str(message["status"]), time.perf_counter() - begun
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            method = scope.get("snakeline.method", scope["method"])
            method = method if method in _METHODS and status != _NOT_THERE else OTHER
            route = route_of(scope)
            self._counts.requests.add((route, method, status))
            if status != UNANSWERED and STREAMS not in scope:
                self._counts.durations.observe((route, method), took_s)
            if status != UNANSWERED and PROBLEM in scope:
                self._counts.problems.add(scope[PROBLEM])


def route_of(scope: Scope) -> str:
    """The template of the route that has taken the request."""
    path = getattr(scope.get("route"), "path", None)
    return OTHER if path is None else str(path)

"""Which pages of other origins may call the API from a browser: none, unless the operator lists them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.middleware.cors import CORSMiddleware

from api.problems import Kind, Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.datastructures import Headers
    from starlette.responses import Response
    from starlette.types import ASGIApp

_DISALLOWED = Kind(403, "cross-origin-disallowed", "Pages of this origin may not call like this")
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "DELETE")
_TAKEN: Final = (
    "Authorization",
    "Idempotency-Key",
    "If-None-Match",
    "If-Range",
    "Last-Event-ID",
    "Range",
    "X-API-Key",
    "X-Request-ID",
    "traceparent",
    "tracestate",
)
_SHOWN: Final = (
    "Content-Disposition",
    "Content-Range",
    "ETag",
    "Idempotent-Replayed",
    "Link",
    "Location",
    "Retry-After",
    "WWW-Authenticate",
    "X-Log-Attempt",
    "X-Log-Next-Offset",
    "X-Log-Offset",
    "X-Log-Size",
    "X-Log-Skipped",
    "X-Request-ID",
)


class ListedOrigins(CORSMiddleware):
    """Starlette's, without cookies, and with refusals in the form of every other error."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        super().__init__(
            app, allow_origins=origins, allow_methods=_METHODS, allow_headers=_TAKEN, expose_headers=_SHOWN
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        answer = super().preflight_response(request_headers)
        if answer.status_code < 400:
            return answer
        reason = bytes(answer.body).decode()
        return Problem(
            _DISALLOWED, f"{reason}: see SNAKELINE_CORS_ORIGINS.", headers={"Vary": "Origin"}
        ).response()

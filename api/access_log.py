"""One line for each answered request; of the many that went well, where that is wanted, only a share."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from starlette.types import Scope

_QUIET: Final = frozenset({"/healthz", "/readyz"})
_CLIENTS_FAULT: Final = 400
_OUR_FAULT: Final = 500

_log = structlog.get_logger("api.requests")


class AccessLog:
    """A request that failed always leaves its line, and one that was slow; of the others a `share` does."""

    def __init__(self, share: float = 1.0, slow_s: float = 1.0) -> None:
        self._share = share
        self._slow_s = slow_s

    def answered(self, scope: Scope, status: int, *, first_byte_s: float | None, whole_s: float) -> None:
        """`status` is 0, and `first_byte_s` None, where nothing was answered."""
        route = route_of(scope)
        is_quiet = route in _QUIET and status < _OUR_FAULT
        is_due = not 0 < status < _CLIENTS_FAULT or (first_byte_s or 0) >= self._slow_s
        more = {}
        if not (is_quiet or is_due) and self._share < 1:
            if random.random() >= self._share:  # noqa: S311 - nobody gains by guessing it
                return
            more["share"] = self._share  # so that they can be counted all the same
        (_log.warning if status >= _OUR_FAULT else _log.debug if is_quiet else _log.info)(
            "request",
            client=scope["client"][0] if scope.get("client") else None,
            method=scope.get("snakeline.method", scope["method"]),
            # A route, never the path or the query: those may hold what is nobody's business.
            route=route,
            status=status,
            ms=round(whole_s * 1000, 2),
            **more,
        )


def route_of(scope: Scope) -> str | None:
    """The path with the names of its parameters; None where no route answers."""
    return getattr(scope.get("route"), "path", None)

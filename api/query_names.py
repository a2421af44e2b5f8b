"""Refuses query parameters that would otherwise be ignored in silence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from api.problems import invalid_query

if TYPE_CHECKING:
    from starlette.requests import Request


def no_query(request: Request) -> None:
    """Raises Problem (422) for any parameter: this route has none."""
    for name in request.query_params:
        raise invalid_query(name, "is no parameter of this address")


def each_once(request: Request, *, but: frozenset[str] = frozenset()) -> None:
    """Raises Problem (422) for a parameter given twice, other than `but`: only one could count."""
    if b"&" not in request.scope["query_string"]:
        return
    seen: set[str] = set()
    for name, _ in request.query_params.multi_items():
        if name in seen and name not in but:
            raise invalid_query(name, "is given more than once")
        seen.add(name)

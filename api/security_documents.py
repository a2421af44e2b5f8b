"""What the OpenAPI document says of who may call: the schemes, and for each operation what it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi.routing import APIRoute

from api.callers import knows_its_visitor, scope_of
from api.documents import problems

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.routing import BaseRoute

# What a call may be answered with before its route has begun.
REFUSALS = (400, 401, 403, 429, 503)


def with_security(
    document: dict[str, Any], routes: Iterable[BaseRoute], *, is_open: bool, issuer: str | None
) -> dict[str, Any]:
    """The document with `securitySchemes`, `security`, and the refusals of every operation that has a scope.

    `is_open`: nobody has to say who they are, so every scheme is optional.
    """
    schemes: dict[str, Any] = {
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "An API key; or, where the service takes them, a token of its issuer.",
        },
        "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key."},
    }
    if issuer is not None:
        schemes["openIdConnect"] = {
            "type": "openIdConnect",
            "openIdConnectUrl": issuer.rstrip("/") + "/.well-known/openid-configuration",
        }
    document["components"]["securitySchemes"] = schemes
    alternatives: list[dict[str, list[str]]] = [{}] if is_open else []
    alternatives += [{name: []} for name in schemes]
    refusals = {str(status): answer for status, answer in problems(*REFUSALS).items()}
    for route in routes:
        if not isinstance(route, APIRoute) or not route.include_in_schema:
            continue
        for method in route.methods or ():
            operation = document["paths"][route.path_format][method.lower()]
            scope = scope_of(route)
            if scope is not None:
                said = f"{operation.get('description', '')}\n\nNeeds the scope `{scope.value}`."
                operation["description"] = said.strip()
                operation["security"] = alternatives
            elif knows_its_visitor(route):
                operation["security"] = [{}, *({name: []} for name in schemes)]
            else:
                operation["security"] = []
                continue
            for status, answer in refusals.items():
                if scope is not None or status != "403":
                    operation["responses"].setdefault(status, dict(answer))
    return document

"""What the OpenAPI document says of answers that are not the success of a route."""

from __future__ import annotations

from typing import Any

from api.problems import MEDIA_TYPE

_DESCRIPTIONS = {
    400: "The request is malformed.",
    404: "There is no such thing.",
    408: "The body did not arrive in time.",
    409: "The job's status does not allow this.",
    413: "The body is larger than 1 MiB.",
    415: "The body is not `application/json`.",
    416: "The log has no byte of that range.",
    422: "Some fields are not valid; `errors` names each.",
    429: "Too many jobs are pending; `Retry-After` says when to try again.",
    500: "Something went wrong in the service; its log has more under the same `request_id`.",
    503: "The service cannot do this now; `Retry-After` says when to try again.",
    507: "There is no room left on the disk; nothing was accepted.",
}
_TEXT_HEADER: dict[str, Any] = {"schema": {"type": "string"}}
_HEADERS: dict[int, dict[str, Any]] = {
    429: {"Retry-After": {"description": "Seconds.", "schema": {"type": "string"}}},
    503: {"Retry-After": {"description": "Seconds.", "schema": {"type": "string"}}},
    416: {"Content-Range": {"description": "`bytes */size`", "schema": {"type": "string"}}},
}
PROBLEM_REF = {"$ref": "#/components/schemas/Problem"}
ETAG: dict[str, Any] = {"ETag": {"description": "The job's version, weak.", "schema": {"type": "string"}}}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of a route that may answer with these problems; 500 is always among them."""
    return {
        status: {
            "description": _DESCRIPTIONS[status],
            "content": {MEDIA_TYPE: {"schema": PROBLEM_REF}},
            **({"headers": _HEADERS[status]} if status in _HEADERS else {}),
        }
        for status in sorted({*statuses, 500})
    }


def header(description: str) -> dict[str, Any]:
    return {"description": description, **_TEXT_HEADER}


def with_problems(document: dict[str, Any]) -> dict[str, Any]:
    """The document without FastAPI's own form of a 422, which no route answers."""
    for path in document["paths"].values():
        for operation in path.values():
            refused = operation["responses"].get("422", {}).get("content", {})
            if MEDIA_TYPE not in refused:
                operation["responses"].pop("422", None)
            refused.pop("application/json", None)
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
    return document

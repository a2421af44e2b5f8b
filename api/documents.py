"""What the OpenAPI document says of answers that are not the success of a route."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from api import client_limits
from api import problems as kinds
from api.examples import JOB_ID
from api.problems import MEDIA_TYPE, Problem, invalid_fields, invalid_query, problem_of
from runner.errors import (
    InvalidTransition,
    JobNotFound,
    QueueFull,
    RunnerError,
    StorageFull,
    StoreUnavailable,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_DESCRIPTIONS = {
    400: "The request is malformed.",
    401: "The request does not say who calls, or what it says is not accepted.",
    403: "The caller is known and may not do this.",
    404: "There is no such thing.",
    408: "The body did not arrive in time.",
    409: "The job's status does not allow this.",
    413: "The body is larger than 1 MiB.",
    415: "The body is not `application/json`.",
    416: "There is no byte in that range.",
    422: "Some fields are not valid; `errors` names each.",
    429: "Too much at once; `Retry-After` says when to try again.",
    500: "Something went wrong in the service; its log has more under the same `request_id`.",
    503: "The service cannot do this now; `Retry-After` says when to try again.",
    507: "There is no room left on the disk; nothing was accepted.",
}
_TEXT_HEADER: dict[str, Any] = {"schema": {"type": "string"}}
_CHALLENGE = {"WWW-Authenticate": {"description": "`Bearer` (RFC 6750).", "schema": {"type": "string"}}}
_HEADERS: dict[int, dict[str, Any]] = {
    401: _CHALLENGE,
    429: {"Retry-After": {"description": "Seconds.", "schema": {"type": "string"}}},
    503: {"Retry-After": {"description": "Seconds.", "schema": {"type": "string"}}},
    416: {"Content-Range": {"description": "`bytes */size`", "schema": {"type": "string"}}},
}
PROBLEM_REF = {"$ref": "#/components/schemas/Problem"}
ETAG: dict[str, Any] = {"ETag": {"description": "The job's version, weak.", "schema": {"type": "string"}}}


_REQUEST_ID = "6f1c2f0c4d8e4b0f9a4f3f1f6f0d9a11"
_REQUEST_ID_HEADER = {
    "description": "The request's id: the caller's, if it sent a sane one.",
    "schema": {"type": "string"},
}


def example(error: RunnerError | Problem) -> dict[str, Any]:
    """The document that this error is answered with."""
    problem = problem_of(error) if isinstance(error, RunnerError) else error
    return problem.document(_REQUEST_ID)


_EXAMPLES = {
    400: example(Problem(kinds.MALFORMED_JSON, "The body is not valid JSON: EOF while parsing a value.")),
    401: example(Problem(kinds.CREDENTIALS_INVALID, "The API key is unknown, revoked, expired or mistyped.")),
    403: example(
        Problem(kinds.SCOPE_MISSING, "This needs the scope submit; yours: read.", members={"scope": "submit"})
    ),
    404: example(JobNotFound(JOB_ID)),
    408: example(Problem(kinds.BODY_TOO_SLOW, "The body must arrive within 30 s.")),
    409: example(InvalidTransition(JOB_ID, "completed", "cancel_requested")),
    413: example(Problem(kinds.BODY_TOO_LARGE, "The body must not be larger than 1048576 bytes.")),
    415: example(
        Problem(kinds.UNSUPPORTED_MEDIA_TYPE, "Send the body as JSON in UTF-8, with its Content-Type.")
    ),
    416: example(Problem(kinds.RANGE_NOT_SATISFIABLE, "The log has 1339 bytes; none lie in this range.")),
    422: example(invalid_fields(({"pointer": "/cores", "detail": "Input should be a valid integer"},))),
    429: example(QueueFull(100_000)),
    500: example(Problem(kinds.INTERNAL, "The service's log says more under this request_id.")),
    503: example(StoreUnavailable("The store cannot be used now: database is locked.")),
    507: example(StorageFull("Nothing is accepted just now: 12 MiB free, 64 MiB needed: make room there.")),
}

TOO_MANY_STREAMS = example(Problem(client_limits.TOO_MANY_STREAMS, "128 are open; close one."))
# Of a route without a body.
BAD_PARAMETER = {422: example(invalid_query("limt", "is unknown"))}


def problems(
    *statuses: int, examples: Mapping[int, dict[str, Any]] | None = None
) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of a route that may answer with these problems; 500 is always among them."""
    shown = {**_EXAMPLES, **(examples or {})}
    return {
        status: {
            "description": _DESCRIPTIONS[status],
            "content": {MEDIA_TYPE: {"schema": PROBLEM_REF, "example": shown[status]}},
            **({"headers": _HEADERS[status]} if status in _HEADERS else {}),
        }
        for status in sorted({*statuses, 500})
    }


def header(description: str) -> dict[str, Any]:
    return {"description": description, **_TEXT_HEADER}


# What is told of a file that may change at any time.
FILE_HEADERS: dict[str, Any] = {
    "ETag": header("Changes with the file; weak while it has changed within the last second."),
    "Last-Modified": header("When its content was last written."),
    "Accept-Ranges": header("`bytes`"),
}


def parts(
    what: str, content: Mapping[str, Any], headers: Mapping[str, Any]
) -> dict[int | str, dict[str, Any]]:
    """The `responses=` for a part of something that is answered with these, and for who has it already."""
    return {
        206: {
            "description": "The bytes of `Range`.",
            "content": content,
            "headers": {**headers, "Content-Range": header("`bytes first-last/size`")},
        },
        304: {
            "description": f"It is still the {what} of `If-None-Match`.",
            "headers": {"ETag": headers["ETag"]},
        },
    }


def with_problems(document: dict[str, Any]) -> dict[str, Any]:
    """The document without FastAPI's own form of a 422, and with the header that every answer has."""
    for path in document["paths"].values():
        for operation in path.values():
            refused = operation["responses"].get("422", {}).get("content", {})
            if MEDIA_TYPE not in refused:
                operation["responses"].pop("422", None)
            refused.pop("application/json", None)
            for response in operation["responses"].values():
                response.setdefault("headers", {})["X-Request-ID"] = _REQUEST_ID_HEADER
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
    return document

"""Every error the API answers, as RFC 9457 `application/problem+json`: one table from meaning to status."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.responses import Response

from api.request_counts import PROBLEM
from runner import errors as runner_errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

MEDIA_TYPE = "application/problem+json"

# Set by api.request_id for the request being answered; every problem names it.
request_id: ContextVar[str] = ContextVar("request_id", default="")


@dataclass(frozen=True, slots=True)
class Kind:
    """A sort of problem: its status, its stable slug (the `type`) and its title."""

    status: int
    slug: str
    title: str


# The one table from what went wrong in the runner to what HTTP says of it.
KINDS: Mapping[type[runner_errors.RunnerError], Kind] = {
    runner_errors.JobNotFound: Kind(404, "job-not-found", "No such job"),
    runner_errors.WorkflowNotFound: Kind(404, "workflow-not-found", "No such workflow"),
    runner_errors.WorkflowUnavailable: Kind(503, "workflow-unavailable", "The workflow cannot be read now"),
    runner_errors.TooManyUploads: Kind(429, "too-many-uploads", "Too many uploads are under way"),
    runner_errors.UploadTooLarge: Kind(413, "upload-too-large", "The files are too large"),
    runner_errors.JobFilesGone: Kind(503, "job-files-gone", "Files of the job are missing"),
    runner_errors.LogNotFound: Kind(404, "log-not-found", "No such log"),
    runner_errors.OutputNotFound: Kind(404, "output-not-found", "No such file"),
    runner_errors.TaskNotFound: Kind(404, "task-not-found", "No such task"),
    runner_errors.ReportNotFound: Kind(404, "report-not-found", "No such report"),
    runner_errors.ReportImpossible: Kind(409, "report-impossible", "No report can be made of this job"),
    runner_errors.JobBusy: Kind(409, "job-busy", "Something else is done with this job"),
    runner_errors.TooManySideRuns: Kind(503, "too-many-side-runs", "Too many plans and reports are wanted"),
    runner_errors.InvalidTransition: Kind(409, "invalid-transition", "The job's status does not allow this"),
    runner_errors.InvalidSpec: Kind(422, "invalid-job", "The job cannot be run as it stands"),
    runner_errors.IdempotencyMismatch: Kind(
        422, "idempotency-mismatch", "The key belongs to another request"
    ),
    runner_errors.QueueFull: Kind(429, "queue-full", "Too many jobs are pending"),
    runner_errors.TenantQueueFull: Kind(429, "tenant-queue-full", "The tenant has too many pending jobs"),
    runner_errors.StorageQuotaExceeded: Kind(507, "quota-exceeded", "The tenant's room is used up"),
    runner_errors.Forbidden: Kind(403, "forbidden", "The key or token does not allow this"),
    runner_errors.InvalidAccess: Kind(422, "invalid-access", "The key or quota cannot be like that"),
    runner_errors.KeyNotFound: Kind(404, "key-not-found", "No such key"),
    runner_errors.KeyNotActive: Kind(409, "key-not-active", "The key is revoked or has expired"),
    runner_errors.StoreUnavailable: Kind(503, "store-unavailable", "The store cannot answer now"),
    runner_errors.StorageFull: Kind(507, "storage-full", "There is no room left"),
    runner_errors.ShuttingDown: Kind(503, "shutting-down", "The service is stopping"),
    runner_errors.BackendUnavailable: Kind(503, "backend-unavailable", "Jobs cannot be started now"),
    runner_errors.EngineUnavailable: Kind(503, "engine-unavailable", "The engine cannot be started"),
    runner_errors.IsolationUnavailable: Kind(
        503, "isolation-unavailable", "Jobs cannot be kept apart as required"
    ),
    runner_errors.DataDirUnusable: Kind(503, "data-dir-unusable", "The data directory cannot be used"),
    runner_errors.TracesUnavailable: Kind(503, "traces-unavailable", "Traces cannot be told"),
}

INVALID_REQUEST = Kind(422, "invalid-request", "The request is not valid")
MALFORMED_JSON = Kind(400, "malformed-json", "The body is not JSON")
MALFORMED_MULTIPART = Kind(400, "malformed-multipart", "The body is not multipart/form-data")
INVALID_CURSOR = Kind(400, "invalid-cursor", "The cursor cannot be used")
UNSUPPORTED_MEDIA_TYPE = Kind(415, "unsupported-media-type", "The body has the wrong content type")
BODY_INCOMPLETE = Kind(400, "body-incomplete", "The body did not arrive in full")
BODY_TOO_LARGE = Kind(413, "body-too-large", "The body is too large")
BODY_TOO_SLOW = Kind(408, "body-too-slow", "The body did not arrive in time")
RANGE_NOT_SATISFIABLE = Kind(416, "range-not-satisfiable", "There are no such bytes")
NOT_READY = Kind(503, "not-ready", "The service is not ready")
CREDENTIALS_MISSING = Kind(401, "credentials-missing", "Say who you are")
CREDENTIALS_INVALID = Kind(401, "credentials-invalid", "The key or token is not accepted")
CREDENTIALS_UNCLEAR = Kind(400, "credentials-unclear", "The request says twice who you are")
KEY_IN_URL = Kind(400, "key-in-url", "A key must not stand in the address")
KEYS_NOT_USED = Kind(403, "keys-not-used", "Keys are not made by calls that need none")
FOREIGN_NAME = Kind(403, "foreign-name", "The service is not known by this name")
FOREIGN_PAGE = Kind(403, "foreign-page", "Pages of other sites change nothing here")
SCOPE_MISSING = Kind(403, "scope-missing", "The key or token does not allow this")
TOO_MANY_FAILURES = Kind(429, "too-many-failures", "Too many keys or tokens were refused")
ISSUER_UNAVAILABLE = Kind(503, "issuer-unavailable", "Tokens cannot be checked now")
INTERNAL = Kind(500, "internal-error", "Something went wrong in the service")

_RETRY_AFTER_S = 5


class Problem(Exception):
    """An error of the HTTP layer itself, raised in routes and answered as it stands."""

    def __init__(
        self,
        kind: Kind,
        detail: str,
        errors: tuple[Mapping[str, str], ...] = (),
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.errors = errors
        self.headers = headers
        self.members = members

    def document(self, name: str) -> dict[str, Any]:
        """What is answered to the request called `name`; `members` are further fields."""
        document: dict[str, Any] = {
            "type": self.kind.slug,
            "title": self.kind.title,
            "status": self.kind.status,
            "detail": self.detail,
            "request_id": name,
            **(self.members or {}),
        }
        if self.errors:
            document["errors"] = list(self.errors)
        return document

    def response(self) -> Response:
        document = to_json(self.document(request_id.get()))
        return _Answer(self.kind, document, dict(self.headers or {}))


class _Answer(Response):
    """Notes in the request's scope what it tells: whoever answers, it is counted in one place."""

    def __init__(self, kind: Kind, document: bytes, headers: dict[str, str]) -> None:
        super().__init__(document, kind.status, headers, MEDIA_TYPE)
        self._slug = kind.slug

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[PROBLEM] = self._slug
        await super().__call__(scope, receive, send)


def problem_response(kind: Kind, detail: str) -> Response:
    return Problem(kind, detail).response()


def problem_of(error: runner_errors.RunnerError) -> Problem:
    """What HTTP says of an error of the runner. Every 503 and 429 has a `Retry-After`."""
    kind = KINDS[type(error)]
    members: dict[str, Any] = {}
    fields: tuple[Mapping[str, str], ...] = ()
    if isinstance(error, runner_errors.InvalidTransition):
        members["job_status"] = error.status
    if isinstance(error, runner_errors.InvalidSpec | runner_errors.InvalidAccess):
        fields = tuple({"pointer": item.pointer, "detail": item.detail} for item in error.errors)
    headers = {}
    if kind.status in (429, 503):
        headers["Retry-After"] = str(getattr(error, "retry_after_s", _RETRY_AFTER_S))
    return Problem(kind, str(error) or kind.title, fields, headers, members)


async def on_runner_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, runner_errors.RunnerError)
    problem = problem_of(error)
    problem.detail = request.app.private_paths.hidden(problem.detail)
    return problem.response()


async def on_problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return error.response()


async def on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    kind = Kind(status.value, status.phrase.lower().replace(" ", "-"), status.phrase)
    headers = dict(error.headers or {})
    detail = _DETAILS.get(status.value, status.description)
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        # The framework names the methods of the first route at this path alone.
        headers["Allow"] = ", ".join(request.app.allowed_methods(request.scope["path"]))
        detail = f"This address answers {headers['Allow']}."
    return Problem(kind, detail, headers=headers).response()


_DETAILS = {404: "There is nothing at this address: /docs lists what there is."}


async def on_invalid_request(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return invalid_fields(tuple(_request_error(item) for item in error.errors())).response()


async def on_unexpected(_request: Request, _error: Exception) -> Response:
    """A 500 that tells nothing of our insides; the log has the traceback under the same request id."""
    return problem_response(INTERNAL, "The service's log says more under this request_id.")


def invalid_fields(found: tuple[Mapping[str, str], ...]) -> Problem:
    return Problem(INVALID_REQUEST, "Some fields are not valid: `errors` names each.", found)


def invalid_query(parameter: str, detail: str) -> Problem:
    return Problem(INVALID_REQUEST, f"{parameter}: {detail}", ({"parameter": parameter, "detail": detail},))


def invalid_header(header: str, detail: str) -> Problem:
    return Problem(INVALID_REQUEST, f"{header}: {detail}", ({"header": header, "detail": detail},))


def json_pointer(location: Iterable[str | int]) -> str:
    """RFC 6901. `[key]`, by which pydantic marks the key of a mapping, is left out."""
    steps = [str(step).replace("~", "~0").replace("/", "~1") for step in location if step != "[key]"]
    return "".join(f"/{step}" for step in steps)


def message(item: Mapping[str, Any]) -> str:
    """What pydantic says of one error, without its own prefix and in words of JSON."""
    return _MESSAGES.get(item["type"]) or str(item["msg"]).removeprefix("Value error, ")


_MESSAGES = {
    "extra_forbidden": "is unknown",
    "model_type": "must be a JSON object",
    "dict_type": "must be a JSON object",
    "list_type": "must be a JSON array",
}


def _request_error(item: Mapping[str, Any]) -> dict[str, str]:
    """Only queries, headers and paths come here: bodies are read by api.request_body."""
    where, *rest = item["loc"]
    return {"header" if where == "header" else "parameter": str(rest[0]), "detail": message(item)}

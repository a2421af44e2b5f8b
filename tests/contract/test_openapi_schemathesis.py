"""Requests made up from the OpenAPI document, valid and not, against the real service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import schemathesis
from hypothesis import HealthCheck, assume, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks as openapi_checks

from tests.contract.test_openapi import OPERATIONS
from tests.support.server import running_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.server import LiveServer

CHECKS = [
    schemathesis.checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_headers_conformance,
    openapi_checks.response_schema_conformance,
    openapi_checks.negative_data_rejection,
    openapi_checks.unsupported_method,
    openapi_checks.allow_header_conformance,
]
# The same requests every time: derandomize takes the place of a seed.
BOUNDED = settings(
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
)
FUZZED = {
    "MAX_CORES": "1000000",
    "MOCK_MAX_S": "0",
    "STOP_GRACE_S": "1",
    "DATABASE_URL": "memory://",
    "LOG_LEVEL": "warning",
}


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A service of its own: what is made up here is nobody else's business."""
    with running_server(tmp_path_factory.mktemp("fuzzed"), **FUZZED) as own:
        yield own


@pytest.fixture(scope="module")
def api_schema(fuzzed: LiveServer) -> Any:
    return schemathesis.openapi.from_url(f"{fuzzed.url}/openapi.json")


@pytest.fixture(scope="module")
def ended_job(fuzzed: LiveServer) -> str:
    job_id: str = fuzzed.client.run()["id"]
    return job_id


MANY = pytest.param(60, marks=pytest.mark.soak)
"""What a few requests find is found each time; the rest is for the long run."""


def check(schema: Any, method: str, path: str, mode: GenerationMode, *, examples: int, **fixed: str) -> None:
    """Send requests to one operation; `fixed` are path parameters that are not made up."""

    @settings(BOUNDED, max_examples=examples)
    @given(schema[path][method].as_strategy(generation_mode=mode))
    def every_answer(case: Any) -> None:
        case.path_parameters.update(fixed)
        if isinstance(wait := case.query.get("wait"), (int, float)):
            case.query["wait"] = min(wait, 0.01)  # valid as it was, but not that long
        if isinstance(cursor := case.query.get("cursor"), str):
            assume(len(quote(cursor)) < 60_000)  # a longer address never gets to the route: 431
        case.call_and_validate(checks=CHECKS, timeout=20)

    every_answer()


# A stream of all jobs has no end to wait for: see tests/integration/test_api_events.py.
ANSWERED = {key: name for key, name in OPERATIONS.items() if name != "follow_events"}


@pytest.mark.parametrize("examples", [6, MANY])
@pytest.mark.parametrize(("method", "path"), ANSWERED, ids=ANSWERED.values())
def test_every_answer_to_a_valid_request_is_as_the_document_says(
    api_schema: Any, method: str, path: str, examples: int
) -> None:
    check(api_schema, method, path, GenerationMode.POSITIVE, examples=examples)


# The other operations take nothing but an id, which can be unknown but not invalid.
@pytest.mark.parametrize("examples", [6, MANY])
@pytest.mark.parametrize(
    "operation",
    [
        *("submit_job", "list_jobs", "get_job", "get_job_log", "list_job_outputs"),
        *("list_job_tasks", "get_job_task_log", "get_job_graph", "get_job_usage", "follow_events"),
        *("create_key", "rotate_key", "set_quota", "list_audit"),
    ],
)
def test_every_invalid_request_is_refused_as_the_document_says(
    api_schema: Any, operation: str, examples: int
) -> None:
    method, path = next(key for key, name in OPERATIONS.items() if name == operation)
    check(api_schema, method, path, GenerationMode.NEGATIVE, examples=examples)


@pytest.mark.parametrize("path", ["", "/logs", "/tasks", "/graph", "/usage", "/events", "/outputs"])
def test_every_answer_about_a_job_that_exists_is_as_the_document_says(
    api_schema: Any, ended_job: str, path: str
) -> None:
    where = f"/jobs/{{job_id}}{path}"
    check(api_schema, "get", where, GenerationMode.POSITIVE, examples=6, job_id=ended_job)

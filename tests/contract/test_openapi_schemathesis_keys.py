"""Requests made up from the OpenAPI document, to a service that wants keys: with one, and without."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from hypothesis import given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks as openapi_checks

from tests.contract.test_openapi import OPERATIONS
from tests.contract.test_openapi_schemathesis import ANSWERED, BOUNDED, CHECKS, FUZZED
from tests.support.keys import KeyedServer, keyed_server

if TYPE_CHECKING:
    from collections.abc import Iterator

OPEN = {"get_health", "get_readiness", "get_sign_in"}
FEW = settings(BOUNDED, max_examples=3)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeyedServer]:
    with keyed_server(tmp_path_factory.mktemp("fuzzed"), **FUZZED) as own:
        yield own


@pytest.fixture(scope="module")
def api_schema(fuzzed: KeyedServer) -> Any:
    return schemathesis.openapi.from_url(f"{fuzzed.server.url}/openapi.json")


def without_credentials(case: Any) -> None:
    for name in [name for name in case.headers or {} if name.lower() in ("authorization", "x-api-key")]:
        del case.headers[name]


@pytest.mark.parametrize(("method", "path"), OPERATIONS, ids=OPERATIONS.values())
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["valid", "invalid"])
def test_nothing_made_up_gets_in_without_a_key(
    api_schema: Any, mode: GenerationMode, method: str, path: str
) -> None:
    if OPERATIONS[method, path] in OPEN:
        return

    @FEW
    @given(api_schema[path][method].as_strategy(generation_mode=mode))
    def every_answer(case: Any) -> None:
        without_credentials(case)
        answer = case.call(timeout=20)
        # Not an address of ours any more, or refused before anybody asks who it is.
        assert answer.status_code in (401, 404, 405, 413)
        assert answer.status_code == 401 or mode is GenerationMode.NEGATIVE

    every_answer()


@pytest.mark.parametrize(("method", "path"), ANSWERED, ids=ANSWERED.values())
def test_every_answer_to_a_caller_with_a_key_is_as_the_document_says(
    fuzzed: KeyedServer, api_schema: Any, method: str, path: str
) -> None:
    key = {"Authorization": f"Bearer {fuzzed.first_key}"}

    @FEW
    @given(api_schema[path][method].as_strategy(generation_mode=GenerationMode.POSITIVE))
    def every_answer(case: Any) -> None:
        without_credentials(case)
        if isinstance(wait := case.query.get("wait"), (int, float)):
            case.query["wait"] = min(wait, 0.01)  # valid as it was, but not that long
        answer = case.call_and_validate(checks=CHECKS, headers=key, timeout=20)
        assert answer.status_code not in (401, 403)

    every_answer()


def test_the_document_s_own_check_finds_no_operation_that_ignores_the_key(
    fuzzed: KeyedServer, api_schema: Any
) -> None:
    @FEW
    @given(api_schema["/jobs"]["get"].as_strategy(generation_mode=GenerationMode.POSITIVE))
    def every_answer(case: Any) -> None:
        without_credentials(case)
        key = {"Authorization": f"Bearer {fuzzed.first_key}"}
        case.call_and_validate(checks=[openapi_checks.ignored_auth], headers=key, timeout=20)

    every_answer()

"""Every route says who may call it, and holds to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fastapi.routing import APIRoute

from api.app import create_app
from api.callers import scope_of
from api.settings import load_settings
from runner.bootstrap import build_runner
from runner.key_texts import new_key_text
from tests.support.keys import KeyedServer, keyed_server
from tests.support.server import running_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from starlette.routing import BaseRoute

    from tests.support.client import ContractClient

# What is open to everybody: nothing of a job is among it.
OPEN = {
    "GET /healthz",
    "GET /readyz",
    "GET /sign-in",
    "GET /docs",
    "GET /docs/{asset}",
    "GET /openapi.json",
    "GET /",
    "GET /page/{digest}/{name}",
}
SCOPES = {
    "POST /jobs": "submit",
    "GET /jobs": "read",
    "GET /jobs/{job_id}": "read",
    "DELETE /jobs/{job_id}": "submit",
    "POST /jobs/{job_id}/cancel": "submit",
    "POST /jobs/{job_id}/retry": "submit",
    "GET /jobs/{job_id}/logs": "read",
    "GET /jobs/{job_id}/tasks": "read",
    "GET /jobs/{job_id}/tasks/{number}": "read",
    "GET /jobs/{job_id}/tasks/{number}/logs": "read",
    "GET /jobs/{job_id}/graph": "read",
    "GET /jobs/{job_id}/usage": "read",
    "GET /jobs/{job_id}/events": "read",
    "GET /events": "read",
    "GET /jobs/{job_id}/outputs": "read",
    "GET /jobs/{job_id}/outputs/{path}": "read",
    "GET /jobs/{job_id}/ro-crate": "read",
    "POST /jobs/{job_id}/report": "submit",
    "GET /jobs/{job_id}/report": "read",
    "POST /workflows/{name}/plan": "submit",
    "GET /workflows": "read",
    "GET /workflows/{name}": "read",
    "GET /metrics": "read",
    "GET /keys": "admin",
    "POST /keys": "admin",
    "POST /keys/{prefix}/rotate": "admin",
    "DELETE /keys/{prefix}": "admin",
    "GET /tenants": "admin",
    "PUT /tenants/{name}": "admin",
    "GET /audit": "admin",
}


@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[BaseRoute]]:
    """Of the application itself: what a document leaves out is among them."""
    directory = tmp_path_factory.mktemp("routes")
    settings = load_settings({"SNAKELINE_DATA_DIR": str(directory), "SNAKELINE_DATABASE_URL": "memory://"})
    runner = build_runner(settings.runner())
    yield list(create_app(runner, settings).routes)
    runner.close()


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeyedServer]:
    with keyed_server(tmp_path_factory.mktemp("keyed"), DATABASE_URL="memory://") as running:
        yield running


def test_every_route_is_reached_by_its_scope_or_is_open_on_purpose(routes: list[BaseRoute]) -> None:
    found = {}
    for route in routes:
        assert isinstance(route, APIRoute), route  # anything else would have no dependencies to look at
        for method in route.methods or ():
            scope = scope_of(route)
            found[f"{method} {route.path_format}"] = None if scope is None else scope.value
    assert {name for name, scope in found.items() if scope is None} == OPEN
    assert {name: scope for name, scope in found.items() if scope is not None} == SCOPES


def test_the_document_says_so_too(keyed: KeyedServer) -> None:
    document = keyed.admin.document
    assert set(document["components"]["securitySchemes"]) == {"bearer", "apiKey"}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            name = f"{method.upper()} {path}"
            if name == "GET /readyz":
                assert operation["security"] == [{}, {"bearer": []}, {"apiKey": []}]
                assert {"400", "401", "429"} <= set(operation["responses"])
                continue
            if name in OPEN:
                assert operation["security"] == []
                assert "401" not in operation["responses"]
                continue
            assert operation["security"] == [{"bearer": []}, {"apiKey": []}], name
            assert f"`{SCOPES[name]}`" in operation["description"]
            assert {"400", "401", "403", "429", "503"} <= set(operation["responses"]), name


def test_where_nobody_has_to_log_in_the_document_says_that(client: ContractClient) -> None:
    assert client.document["paths"]["/jobs"]["get"]["security"] == [{}, {"bearer": []}, {"apiKey": []}]


def address(name: str) -> tuple[str, str]:
    method, path = name.split(" ")
    for part, value in {
        "{job_id}": "019ab5f0-1c2d-7e3f-8a4b-5c6d7e8f9a0b",
        "{number}": "1",
        "{path}": "results/a.txt",
        "{prefix}": "snk_abcdefghij",
        "{name}": "demo",
    }.items():
        path = path.replace(part, value)
    return method, path


@pytest.mark.parametrize("name", SCOPES)
def test_nobody_gets_in_without_a_key(keyed: KeyedServer, name: str) -> None:
    method, path = address(name)
    for sent in (method, "HEAD") if method == "GET" else (method,):
        answer = keyed.client(None).request(sent, path)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == 'Bearer realm="snakeline"'
    answer = keyed.client(None).request(method, path + "?unknown=1", content=b"{", headers={"Range": "x"})
    assert (answer.status_code, answer.json()["type"]) == (401, "credentials-missing")


@pytest.fixture(scope="module")
def lesser(keyed: KeyedServer) -> dict[str, ContractClient]:
    """For each scope a client whose key has every other."""
    others = {"read": ("submit", "admin"), "submit": ("read", "admin"), "admin": ("read", "submit")}
    return {scope: keyed.client(keyed.key(*scopes, tenant="*")) for scope, scopes in others.items()}


@pytest.mark.parametrize("name", SCOPES)
def test_nobody_gets_in_without_its_scope(
    keyed: KeyedServer, lesser: dict[str, ContractClient], name: str
) -> None:
    method, path = address(name)
    answer = lesser[SCOPES[name]].request(method, path + "?unknown=1", content=b"{")
    document = answer.json()
    assert (answer.status_code, document["type"], document["scope"]) == (403, "scope-missing", SCOPES[name])
    assert f'error="insufficient_scope", scope="{SCOPES[name]}"' in answer.headers["www-authenticate"]
    # With it the answer is another: what is there to say of the request itself.
    assert keyed.admin.request(method, path + "?unknown=1", content=b"{").status_code not in (401, 403)


def test_what_is_open_answers_without_a_key(keyed: KeyedServer) -> None:
    nobody = keyed.client(None)
    assert nobody.get("/healthz").status_code == 200
    assert nobody.get("/docs").status_code == 200
    assert nobody.get("/openapi.json").status_code == 200
    assert nobody.get("/readyz").json() == {"status": "ready"}


def test_readiness_tells_its_details_to_those_who_say_who_they_are(keyed: KeyedServer) -> None:
    assert {"checks", "engine", "isolation"} <= set(keyed.admin.get("/readyz").json())
    assert keyed.client(keyed.key("read")).get("/readyz").json()["checks"]
    assert keyed.client(new_key_text().text).get("/readyz").status_code == 401


def test_figures_of_all_tenants_are_for_operators(keyed: KeyedServer) -> None:
    assert "snakeline_jobs" in keyed.admin.get("/metrics").text
    answer = keyed.client(keyed.key()).get("/metrics")
    assert (answer.status_code, answer.json()["type"]) == (403, "forbidden")
    assert "snakeline_jobs" not in answer.text


def test_figures_may_be_opened_to_everybody(tmp_path: Path) -> None:
    with keyed_server(tmp_path, DATABASE_URL="memory://", METRICS_PUBLIC="true") as own:
        assert "snakeline_jobs" in own.client(None).get("/metrics").text
        assert own.client(None).get("/jobs").status_code == 401


def test_where_nobody_has_to_log_in_nobody_makes_a_key_for_later(client: ContractClient) -> None:
    for path in ("/keys", "/keys/snk_abcdefghij/rotate"):
        answer = client.post(path, json={"name": "later", "scopes": ["admin"], "tenant": "*"})
        assert (answer.status_code, answer.json()["type"]) == (403, "keys-not-used")
    assert client.get("/keys").json()["items"] == []


def test_a_page_elsewhere_cannot_call_through_its_reader_s_browser(client: ContractClient) -> None:
    rebound = {"Host": "evil.example:8000", "Origin": "http://evil.example:8000"}
    for method, path in (("GET", "/jobs"), ("POST", "/jobs")):
        answer = client.request(method, path, headers=rebound, json={} if method == "POST" else None)
        assert (answer.status_code, answer.json()["type"]) == (403, "foreign-name")
    readiness = client.get("/readyz", headers=rebound)
    assert (readiness.status_code, readiness.json()) == (200, {"status": "ready"})
    assert "checks" in client.get("/readyz").json()


def test_a_form_on_another_site_changes_nothing(tmp_path: Path) -> None:
    """A browser sends it without asking first, and there is no key that it would lack."""
    page = "https://dashboard.example"
    form = {"Content-Type": "text/plain", "Sec-Fetch-Site": "cross-site"}
    with running_server(tmp_path, AUTH="none", DATABASE_URL="memory://", CORS_ORIGINS=page) as own:
        job_id = own.client.submit(parameters={"mock": {"seconds": 600}})["id"]
        for origin in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {}):
            for method, path in (("POST", "/cancel"), ("POST", "/retry"), ("DELETE", "")):
                answer = own.client.request(method, f"/jobs/{job_id}{path}", headers=form | origin)
                assert (answer.status_code, answer.json()["type"]) == (403, "foreign-page")
        assert own.client.get(f"/jobs/{job_id}", headers=form).json()["cancel_requested_at"] is None
        ours = form | {"Origin": page}
        assert own.client.post(f"/jobs/{job_id}/cancel", headers=ours).status_code == 202


def test_opened_knowingly_it_is_called_by_any_name(tmp_path: Path) -> None:
    with running_server(tmp_path, AUTH="none", DATABASE_URL="memory://") as own:
        assert own.client.get("/jobs", headers={"Host": "jobs.example.org"}).status_code == 200


def test_an_unknown_address_is_one_for_everybody(keyed: KeyedServer) -> None:
    nobody = keyed.client(None)
    assert nobody.get("/nothing").status_code == 404
    assert nobody.put("/jobs").status_code == 405

"""A service that takes the tokens of an issuer, and keys as well."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from snakeline.client import Client, Problem
from tests.support.client import ContractClient
from tests.support.issuer import AUDIENCE, Issuer, running_issuer
from tests.support.server import running_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.server import LiveServer


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with running_issuer() as running:
        yield running


@pytest.fixture(scope="module")
def server(issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    settings = {
        "AUTH": "oidc",
        "OIDC_ISSUER": issuer.url,
        "OIDC_AUDIENCE": AUDIENCE,
        "OIDC_TENANT_CLAIM": "tenant",
        "OIDC_SCOPES": "read=r submit=s admin=a operator=platform",
        "DATABASE_URL": "memory://",
    }
    with running_server(tmp_path_factory.mktemp("oidc"), **settings) as running:
        running.client.headers["Authorization"] = f"Bearer {issuer.token(scope='platform', sub='root')}"
        yield running


@pytest.fixture
def client(server: LiveServer) -> Iterator[ContractClient]:
    with ContractClient(server.url) as nobody:
        yield nobody


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_a_token_does_what_its_claims_allow(issuer: Issuer, client: ContractClient) -> None:
    client.headers.update(bearer(issuer.token("ec", scope="r s", tenant="atlas", sub="Ann@example.org")))
    job = client.submit()
    assert (job["owner"], job["tenant"]) == ("oidc:Ann@example.org", "atlas")
    client.wait_for(job["id"])
    assert client.get("/keys").json()["scope"] == "admin"
    other = bearer(issuer.token(scope="r s", tenant="boreas"))
    assert client.get(f"/jobs/{job['id']}", headers=other).status_code == 404


def test_an_operator_sees_every_tenant(server: LiveServer, client: ContractClient, issuer: Issuer) -> None:
    job = client.post("/jobs", json={}, headers=bearer(issuer.token(scope="s", tenant="atlas"))).json()
    assert server.client.get(f"/jobs/{job['id']}").status_code == 200
    assert server.client.get("/metrics").status_code == 200
    actors = {each["actor"] for each in server.client.get("/audit").json()["items"]}
    assert "oidc:ann" in actors


def test_a_token_that_does_not_hold_is_refused_with_the_reason(
    issuer: Issuer, client: ContractClient
) -> None:
    answer = client.get("/jobs", headers=bearer(issuer.token(tenant="atlas", exp=1)))
    assert (answer.status_code, answer.json()["type"]) == (401, "credentials-invalid")
    assert answer.json()["detail"] == "The token is not accepted. It has expired."
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]
    assert client.get("/jobs", headers=bearer(issuer.token(tenant="*", scope="r"))).status_code == 401


def test_keys_are_taken_as_well(server: LiveServer, client: ContractClient) -> None:
    made = server.client.post("/keys", json={"name": "robot", "scopes": ["read"]}).json()
    assert made["created_by"] == "oidc:root"
    assert client.get("/jobs", headers=bearer(made["key"])).status_code == 200
    assert client.get("/jobs", headers={"X-API-Key": made["key"]}).status_code == 200


def test_the_document_names_the_issuer(issuer: Issuer, client: ContractClient) -> None:
    scheme = client.document["components"]["securitySchemes"]["openIdConnect"]
    assert scheme["openIdConnectUrl"] == f"{issuer.url}/.well-known/openid-configuration"


def test_an_issuer_that_is_away_stops_nobody_whose_key_it_gave_before(
    issuer: Issuer, client: ContractClient
) -> None:
    token = issuer.token(scope="r", tenant="atlas")
    assert client.get("/jobs", headers=bearer(token)).status_code == 200
    issuer.status = 503
    try:
        assert client.get("/jobs", headers=bearer(token)).status_code == 200
    finally:
        issuer.status = 200


def test_the_python_client_sends_a_token_as_it_sends_a_key(issuer: Issuer, server: LiveServer) -> None:
    with Client(server.url, api_key=issuer.token(scope="r s", tenant="atlas")) as client:
        assert client.wait(client.submit("demo").id, timeout_s=20).status == "completed"
    with Client(server.url) as nobody, pytest.raises(Problem) as caught:
        nobody.get("019ab5f0-1c2d-7e3f-8a4b-5c6d7e8f9a0b")
    assert (caught.value.status, caught.value.type) == (401, "credentials-missing")

"""What browsers are told: the security headers, who may call from other pages, and what https is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx2
import pytest

from tests.integration.test_api_errors import UNKNOWN_ID, exchange
from tests.support.server import running_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.client import ContractClient
    from tests.support.server import LiveServer

FIXED = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
LIMS = "https://lims.example.org"


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A service that takes this machine for its proxy, and calls from one other origin."""
    with running_server(
        tmp_path_factory.mktemp("proxied"),
        DATABASE_URL="memory://",
        TRUSTED_PROXIES="127.0.0.1",
        CORS_ORIGINS=LIMS,
        MAX_CONNECTIONS_PER_CLIENT="4",
        AUTH="none",
    ) as server:
        yield server


class TestSecurityHeaders:
    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [
            ("GET", "/healthz", 200),
            ("HEAD", "/healthz", 200),
            ("GET", "/jobs", 200),
            ("GET", "/metrics", 200),
            ("GET", "/openapi.json", 200),
            ("GET", f"/jobs/{UNKNOWN_ID}", 404),
            ("PUT", "/jobs", 405),
            ("GET", "/jobs?limit=x", 422),
        ],
    )
    def test_every_answer_allows_nothing_and_is_stored_nowhere(
        self, client: ContractClient, method: str, path: str, status: int
    ) -> None:
        answer = client.request(method, path)
        assert answer.status_code == status
        assert FIXED.items() <= dict(answer.headers).items()
        assert answer.headers["content-security-policy"] == NOTHING
        assert answer.headers["cache-control"] == "no-store"
        assert not {"server", "strict-transport-security"} & set(answer.headers)

    def test_what_has_an_etag_is_asked_for_again_each_time(self, client: ContractClient) -> None:
        job = client.run()
        answer = client.get(f"/jobs/{job['id']}")
        again = client.get(f"/jobs/{job['id']}", headers={"If-None-Match": answer.headers["etag"]})
        log = client.get(f"/jobs/{job['id']}/logs")
        assert again.status_code == 304
        assert {each.headers["cache-control"] for each in (answer, again, log)} == {"private, no-cache"}

    def test_the_documentation_may_run_its_own_scripts_and_no_others(self, client: ContractClient) -> None:
        [policy] = client.get("/docs").headers.get_list("content-security-policy")
        assert "script-src 'self';" in policy
        assert "default-src 'none'" in policy
        assert client.get("/docs/start.js").headers["content-security-policy"] == NOTHING

    @pytest.mark.parametrize(
        "request_", [b"NOPE\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 70_000 + b"\r\n\r\n"]
    )
    def test_so_do_refusals_of_what_is_not_http(self, server: LiveServer, request_: bytes) -> None:
        head = exchange(server.url, request_).partition(b"\r\n\r\n")[0].decode().lower()
        for name, value in {**FIXED, "content-security-policy": NOTHING, "cache-control": "no-store"}.items():
            assert f"{name}: {value}".lower() in head
        assert "\r\nserver:" not in head


class TestHttps:
    def test_is_what_the_trusted_proxy_says(self, proxied: LiveServer) -> None:
        answer = proxied.client.get("/healthz", headers={"X-Forwarded-Proto": "https"})
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        assert "strict-transport-security" not in proxied.client.get("/healthz").headers

    def test_is_not_what_anybody_says(self, client: ContractClient) -> None:
        answer = client.get("/healthz", headers={"X-Forwarded-Proto": "https"})
        assert "strict-transport-security" not in answer.headers

    def test_no_address_in_an_answer_repeats_the_host(self, proxied: LiveServer) -> None:
        forged = {"Host": "evil.example", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"}
        submitted = proxied.client.post("/jobs", json={}, headers=forged)
        proxied.client.post("/jobs", json={})
        page = proxied.client.get("/jobs?limit=1", headers=forged)
        assert page.headers["link"]
        for answer in (submitted, page, proxied.client.get("/docs", headers=forged)):
            assert "evil" not in answer.text + str(answer.headers)


class TestOtherOrigins:
    def test_are_told_nothing_unless_they_are_listed(self, client: ContractClient) -> None:
        preflight = {"Origin": LIMS, "Access-Control-Request-Method": "GET"}
        for answer in (
            client.get("/jobs", headers={"Origin": LIMS}),
            client.request("OPTIONS", "/jobs", headers=preflight),
        ):
            assert not [name for name in answer.headers if name.startswith("access-control-")]

    def test_that_are_listed_may_read(self, proxied: LiveServer) -> None:
        answer = proxied.client.get("/jobs", headers={"Origin": LIMS})
        assert answer.headers["access-control-allow-origin"] == LIMS
        assert "Origin" in answer.headers["vary"]
        assert "Retry-After" in answer.headers["access-control-expose-headers"]
        assert "access-control-allow-credentials" not in answer.headers

    @pytest.mark.parametrize(
        "origin", ["https://evil.example", "null", f"{LIMS}.evil.example", "http://lims.example.org"]
    )
    def test_that_are_not_listed_may_not(self, proxied: LiveServer, origin: str) -> None:
        answer = proxied.client.get("/jobs", headers={"Origin": origin})
        assert "access-control-allow-origin" not in answer.headers

    def test_a_preflight_is_answered_with_what_is_allowed(self, proxied: LiveServer) -> None:
        answer = httpx2.request(
            "OPTIONS",
            f"{proxied.url}/jobs/{UNKNOWN_ID}",
            headers={
                "Origin": LIMS,
                "Access-Control-Request-Method": "DELETE",
                "Access-Control-Request-Headers": "authorization,content-type,idempotency-key",
            },
            trust_env=False,
        )
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == LIMS
        assert "DELETE" in answer.headers["access-control-allow-methods"]
        assert answer.headers["x-request-id"]

    @pytest.mark.parametrize(
        "asked",
        [
            {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"},
            {"Origin": LIMS, "Access-Control-Request-Method": "PATCH"},
            {
                "Origin": LIMS,
                "Access-Control-Request-Method": "GET",
                "Access-Control-Request-Headers": "x-evil",
            },
        ],
    )
    def test_a_preflight_for_more_is_refused_as_a_problem(
        self, proxied: LiveServer, asked: dict[str, str]
    ) -> None:
        answer = httpx2.request("OPTIONS", f"{proxied.url}/jobs", headers=asked, trust_env=False)
        assert (answer.status_code, answer.json()["type"]) == (403, "cross-origin-disallowed")
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
        assert "SNAKELINE_CORS_ORIGINS" in answer.json()["detail"]


def test_a_client_behind_a_proxy_may_have_so_many_requests_open(proxied: LiveServer) -> None:
    job = proxied.client.submit(parameters={"mock": {"seconds": 60}})
    one, other = ({"X-Forwarded-For": address} for address in ("203.0.113.1", "203.0.113.2"))
    clients = [httpx2.Client(base_url=proxied.url, trust_env=False, verify=False) for _ in range(4)]
    waiting = [client.stream("GET", f"/jobs/{job['id']}/logs?follow=true", headers=one) for client in clients]
    for each in waiting:
        assert each.__enter__().status_code == 200
    refused = httpx2.get(f"{proxied.url}/healthz", headers=one, trust_env=False)
    assert (refused.status_code, refused.json()["type"]) == (429, "too-many-connections")
    assert refused.headers["retry-after"] == "5"
    assert '"client": "203.0.113.1"' in proxied.log
    assert httpx2.get(f"{proxied.url}/healthz", headers=other, trust_env=False).status_code == 200
    for each, client in zip(waiting, clients, strict=True):
        each.__exit__(None, None, None)
        client.close()

"""What the page is told about signing in at the issuer, and whom it may talk to for it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from api.auth_issuer import IssuerKeys
from api.auth_rules import IssuerUnavailable
from api.sign_in import SignIn, SignInRules
from tests.support.client import ContractClient
from tests.support.issuer import AUDIENCE
from tests.support.server import running_server
from tests.support.sign_in_issuer import CLIENT, SignInIssuer, running_sign_in_issuer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.server import LiveServer

DISCOVERY = "/.well-known/openid-configuration"


@pytest.fixture(scope="module")
def issuer() -> Iterator[SignInIssuer]:
    with running_sign_in_issuer() as running:
        yield running


@pytest.fixture(scope="module")
def led(issuer: SignInIssuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    settings = {
        "AUTH": "oidc",
        "OIDC_ISSUER": issuer.url,
        "OIDC_AUDIENCE": AUDIENCE,
        "OIDC_CLIENT_ID": CLIENT,
        "OIDC_SIGN_IN_PARAMETERS": "audience=snakeline",
        "DATABASE_URL": "memory://",
    }
    with running_server(tmp_path_factory.mktemp("sign-in"), **settings) as running:
        every = "snakeline:read snakeline:submit snakeline:admin"
        running.client.headers["Authorization"] = f"Bearer {issuer.token(scope=every)}"
        yield running


@pytest.fixture
def nobody(led: LiveServer) -> Iterator[ContractClient]:
    with ContractClient(led.url) as client:
        yield client


@pytest.fixture
def browser(led: LiveServer) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=led.url, trust_env=False, verify=False) as client:
        yield client


def sources(answer: httpx2.Response) -> str:
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    return policy["connect-src"]


def test_who_says_nothing_of_themselves_is_told_where_to_sign_in(
    issuer: SignInIssuer, nobody: ContractClient
) -> None:
    answer = nobody.get("/sign-in")
    assert answer.json() == {
        "mode": "oidc",
        "redirect": {
            "issuer": issuer.url,
            "client_id": CLIENT,
            "authorization_endpoint": f"{issuer.url}/authorize",
            "token_endpoint": f"{issuer.url}/token",
            "end_session_endpoint": f"{issuer.url}/end",
            "scope": "openid",
            "response_mode": "fragment",
            "token": "access_token",
            "parameters": {"audience": "snakeline"},
        },
    }
    assert answer.headers["cache-control"] == "no-store"
    assert nobody.get("/sign-in?issuer=https://evil.example").status_code == 422


def test_where_no_issuer_is_set_nobody_is_led_anywhere(client: ContractClient) -> None:
    assert client.get("/sign-in").json() == {"mode": "none", "redirect": None}


def test_the_page_may_talk_to_the_token_endpoint_and_to_nobody_else(
    issuer: SignInIssuer, browser: httpx2.Client, client: ContractClient
) -> None:
    assert browser.get("/sign-in").status_code == 200
    page = browser.get("/")
    assert sources(page) == f"'self' {issuer.url}/token"
    # Where it may talk to nobody the same page has another tag: a browser would keep its old policy.
    with httpx2.Client(base_url=client.base_url, trust_env=False, verify=False) as elsewhere:
        closed = elsewhere.get("/")
    assert sources(closed) == "'self'"
    assert closed.content == page.content
    assert browser.get("/", headers={"If-None-Match": closed.headers["etag"]}).status_code == 200
    assert browser.get("/", headers={"If-None-Match": page.headers["etag"]}).status_code == 304


def test_a_code_in_the_address_is_kept_by_no_cache_and_by_no_log(
    led: LiveServer, browser: httpx2.Client
) -> None:
    answer = browser.get("/?code=CODEWORD&state=STATEWORD")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert browser.get("/").headers["cache-control"] == "no-cache"
    assert '"/"' in led.log
    assert "CODEWORD" not in led.log
    assert "STATEWORD" not in led.log


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def told(issuer: SignInIssuer, /, **change: Any) -> tuple[dict[str, Any], str]:
    """What the page is told and may talk to, with this in the issuer's document."""
    issuer.answers[DISCOVERY] = json.dumps({**issuer.discovery(), **change}).encode()

    async def ask() -> tuple[dict[str, Any], str]:
        keys = IssuerKeys(issuer.url, ["RS256"])
        try:
            offer = SignIn(SignInRules(CLIENT), keys)
            return await offer.redirect(), await offer.source()
        finally:
            await keys.close()

    try:
        return asyncio.run(ask())
    finally:
        del issuer.answers[DISCOVERY]


@pytest.mark.parametrize(
    "change",
    [
        {"authorization_endpoint": None},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": "http://login.example.org/authorize"},
        {"token_endpoint": None},
        {"token_endpoint": ["https://login.example.org/token"]},
        {"token_endpoint": "http://login.example.org/token"},
        {"token_endpoint": "https://user:word@login.example.org/token"},
        {"token_endpoint": "https://login.example.org/token; script-src *"},
        {"token_endpoint": "https://login.example.org/token, script-src *"},
        {"token_endpoint": "https://login.example.org *"},
        {"token_endpoint": "https://*.example.org/token"},
        {"token_endpoint": "https://login.example.org/" + "t" * 1000},
        {"issuer": "https://other.example"},
    ],
)
def test_an_address_that_cannot_be_trusted_leads_nobody_anywhere(
    issuer: SignInIssuer, change: dict[str, Any]
) -> None:
    with pytest.raises(IssuerUnavailable):
        told(issuer, **change)


def test_what_the_issuer_may_leave_out_is_left_out(issuer: SignInIssuer) -> None:
    redirect, source = told(
        issuer,
        response_modes_supported=None,
        end_session_endpoint="http://login.example.org/end",
        token_endpoint="https://login.example.org:8443/t/token?policy=sign-in",
    )
    assert (redirect["response_mode"], redirect["end_session_endpoint"]) == ("query", None)
    assert redirect["token_endpoint"] == "https://login.example.org:8443/t/token?policy=sign-in"
    assert source == "https://login.example.org:8443/t/token"


def test_an_issuer_that_is_away_is_asked_again_and_once_known_it_stays_known(issuer: SignInIssuer) -> None:
    clock = Clock()

    async def steps() -> None:
        keys = IssuerKeys(issuer.url, ["RS256"], clock=clock)
        offer = SignIn(SignInRules(CLIENT), keys)
        asked = issuer.asked[DISCOVERY]
        issuer.status = 503
        for _ in range(3):
            with pytest.raises(IssuerUnavailable):
                await offer.redirect()
        assert issuer.asked[DISCOVERY] == asked + 1
        issuer.status = 200
        clock.now += 5
        assert (await offer.redirect())["client_id"] == CLIENT
        issuer.status = 503
        clock.now += 100_000
        assert (await offer.redirect())["client_id"] == CLIENT
        await keys.close()

    try:
        asyncio.run(steps())
    finally:
        issuer.status = 200


def test_while_the_issuer_does_not_answer_the_page_is_there_and_says_so(tmp_path: Path) -> None:
    with running_sign_in_issuer() as silent:
        silent.held.clear()
        settings = {"AUTH": "oidc", "OIDC_ISSUER": silent.url, "OIDC_AUDIENCE": AUDIENCE}
        with running_server(tmp_path, **settings, OIDC_CLIENT_ID=CLIENT, DATABASE_URL="memory://") as server:

            def is_answered_meanwhile() -> bool:
                before = server.log.count("issuer.unavailable")
                assert sources(httpx2.get(server.url, trust_env=False)) == "'self'"
                return server.log.count("issuer.unavailable") == before

            # Once it may be that the service gives up just then; after that it has only begun to ask again.
            assert is_answered_meanwhile() or is_answered_meanwhile()
            with ContractClient(server.url) as nobody:
                answer = nobody.get("/sign-in")
            assert (answer.status_code, answer.json()["type"]) == (503, "issuer-unavailable")
            assert "API keys are not affected" in answer.json()["detail"]
            assert answer.headers["retry-after"] == "5"
            server.process.terminate()
            server.process.wait(20)

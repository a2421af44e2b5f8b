"""Signing in at an issuer by redirect, as a person does it; and what others may try with it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.support.browser import barriers
from tests.support.issuer import AUDIENCE
from tests.support.page_views import sign_in
from tests.support.server import LiveServer, running_server
from tests.support.sign_in_issuer import CLIENT, SignInIssuer, running_sign_in_issuer
from tests.support.sign_in_steps import (
    EVERY_SCOPE,
    go,
    history_of,
    known_to,
    over,
    serving,
    signed_in,
    stored,
)
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.browser import Visit


@pytest.fixture(scope="module")
def running_issuer() -> Iterator[SignInIssuer]:
    with running_sign_in_issuer() as running:
        yield running


@pytest.fixture
def issuer(running_issuer: SignInIssuer) -> Iterator[SignInIssuer]:
    """As it was before each test, but for the codes and tokens it has given."""
    before = dict(vars(running_issuer))
    running_issuer.exchanged = []
    yield running_issuer
    names = (
        "modes",
        "token_lasts_s",
        "gives_refresh_tokens",
        "access_tokens_are_opaque",
        "is_away",
        "away_with",
        "origin",
    )
    vars(running_issuer).update({name: before[name] for name in names})
    running_issuer.held.set()
    running_issuer.lies, running_issuer.spoilt, running_issuer.calls_itself = {}, [], ""


@pytest.fixture(scope="module")
def server(running_issuer: SignInIssuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with serving(tmp_path_factory.mktemp("sign-in"), running_issuer) as live:
        yield known_to(running_issuer, live)


@pytest.mark.soak
def test_one_signs_in_at_the_issuer_and_is_back_where_one_was(
    server: LiveServer, issuer: SignInIssuer, visit: Callable[..., Visit]
) -> None:
    one = visit()
    page = one.open(server, "/new?workflow=demo")
    expect(page.get_by_role("button", name="Sign in with 127.0.0.1")).to_be_focused()
    go(page)
    signed_in(page)
    assert page.url == f"{server.url}/#/new?workflow=demo"
    asked = issuer.said
    assert (asked["response_type"], asked["client_id"], asked["scope"]) == ("code", CLIENT, "openid")
    (exchange,) = issuer.exchanged
    # Neither what came back nor what it was exchanged for is in any address; the code was behind a #.
    tokens = stored(page)
    secrets = [exchange["code"], exchange["code_verifier"], tokens["snakeline.key"]]
    secrets.append(json.loads(tokens["snakeline.session"])["refresh"])
    assert [secret for secret in secrets if secret in " ".join(one.addresses) + history_of(page)] == []
    assert not [secret for secret in secrets if secret in server.log]
    assert set(tokens) == {"snakeline.key", "snakeline.session"}
    assert page.evaluate("localStorage.length + document.cookie.length") <= 1  # the colours alone
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("link", name="End your session at 127.0.0.1")).to_be_visible()
    assert stored(page) == {}


@pytest.mark.soak
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_whom_the_issuer_does_not_let_in_is_told_why(
    server: LiveServer, issuer: SignInIssuer, visit: Callable[..., Visit], scheme: str
) -> None:
    page = visit(color_scheme=scheme, viewport={"width": 390, "height": 780}).open(server, "/new")
    go(page, "I am nobody")
    expect(page.get_by_role("alert")).to_contain_text("The issuer says no")
    expect(page.get_by_text("In its own words: Nobody <b>may not</b> come in.")).to_be_visible()
    assert page.url == f"{server.url}/#/new"
    expect(page.get_by_role("button", name="Sign in with 127.0.0.1")).to_be_focused()
    assert barriers(page) == []
    assert (stored(page), issuer.exchanged) == ({}, [])
    go(page)
    signed_in(page)


@pytest.mark.soak
@pytest.mark.parametrize("place", ["?code=evil&state={}", "#code=evil&state={}", "?error=evil&state={}"])
def test_an_answer_that_this_tab_did_not_ask_for_does_nothing(
    server: LiveServer, issuer: SignInIssuer, visit: Callable[..., Visit], place: str
) -> None:
    page = visit().page
    page.goto(f"{server.url}/{place.format('guess')}")
    expect(page.get_by_role("alert")).to_contain_text("was not begun in this tab")
    assert page.url == f"{server.url}/"
    # While one is at the issuer: what was begun is over, also for the right answer.
    page.get_by_role("button", name="Sign in with 127.0.0.1").click()
    expect(page.get_by_role("button", name="I am Ann")).to_be_visible()
    answer = issuer.answer_to("ann")
    page.goto(f"{server.url}/{place.format('guess')}")
    expect(page.get_by_role("alert")).to_contain_text("was not begun in this tab")
    page.goto("about:blank")
    page.goto(answer)
    expect(page.get_by_role("alert")).to_contain_text("was not begun in this tab")
    assert (stored(page), issuer.exchanged) == ({}, [])
    # And whoever is signed in stays so.
    page.goto(f"{server.url}/#/new")
    go(page)
    signed_in(page)
    before = stored(page)
    page.goto("about:blank")
    page.goto(f"{server.url}/{place.format('guess')}")
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    assert page.url == f"{server.url}/"
    assert stored(page) == before
    assert len(issuer.exchanged) == 1


@pytest.mark.soak
def test_an_answer_counts_once(server: LiveServer, issuer: SignInIssuer, visit: Callable[..., Visit]) -> None:
    page = visit().open(server, "/new")
    page.get_by_role("button", name="Sign in with 127.0.0.1").click()
    expect(page.get_by_role("button", name="I am Ann")).to_be_visible()
    answer = issuer.answer_to("ann")
    page.goto(answer)
    signed_in(page)
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("API key or token")).to_be_visible()
    page.goto("about:blank")
    page.goto(answer)
    expect(page.get_by_role("alert")).to_contain_text("was not begun in this tab")
    assert (stored(page), len(issuer.exchanged)) == ({}, 1)


@pytest.mark.soak
@pytest.mark.parametrize(
    "lie", [{"nonce": "another"}, {"aud": "another"}, {"iss": "https://another.example"}]
)
def test_tokens_of_another_sign_in_are_not_taken(
    server: LiveServer, issuer: SignInIssuer, visit: Callable[..., Visit], lie: dict[str, str]
) -> None:
    issuer.lies = lie
    page = visit().open(server, "/new")
    go(page)
    expect(page.get_by_role("alert")).to_have_text("The issuer's tokens are not for what this tab has asked.")
    assert stored(page) == {}


@pytest.mark.soak
def test_a_token_that_the_service_does_not_take_is_told_with_the_reason(
    server: LiveServer, issuer: SignInIssuer, visit: Callable[..., Visit]
) -> None:
    issuer.spoilt = [{"aud": "another"}] * 2  # once more when it is renewed
    page = visit().open(server, "/new")
    go(page)
    expect(page.get_by_role("alert")).to_contain_text("It is meant for another audience.")
    assert stored(page) == {}
    issuer.spoilt = [{"scope": "nothing"}]
    go(page)
    expect(page.get_by_text("This needs the scope read; yours: none.").first).to_be_visible()
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()


@pytest.mark.soak
def test_a_code_of_another_issuer_is_sent_to_nobody(
    server: LiveServer, issuer: SignInIssuer, visit: Callable[..., Visit]
) -> None:
    issuer.calls_itself = "https://another.example"
    page = visit().open(server, "/new")
    go(page)
    expect(page.get_by_role("alert")).to_have_text("What came back is not of this service's issuer.")
    assert (stored(page), issuer.exchanged) == ({}, [])


@pytest.mark.soak
@pytest.mark.parametrize("change", [{"issuer": "https://another.example"}, {"client": "another"}])
def test_a_code_is_sent_to_nobody_who_was_set_since_it_was_asked_for(
    server: LiveServer, issuer: SignInIssuer, visit: Callable[..., Visit], change: dict[str, str]
) -> None:
    page = visit().open(server, "/new")
    page.get_by_role("button", name="Sign in with 127.0.0.1").click()
    expect(page.get_by_role("button", name="I am Ann")).to_be_visible()
    page.goto(f"{server.url}/healthz")
    page.evaluate(
        """(change) => {
          const begun = JSON.parse(sessionStorage["snakeline.sign-in"]);
          sessionStorage["snakeline.sign-in"] = JSON.stringify({...begun, ...change});
        }""",
        change,
    )
    page.goto(issuer.answer_to("ann"))
    expect(page.get_by_role("alert")).to_have_text("What came back is not of this service's issuer.")
    assert (stored(page), issuer.exchanged) == ({}, [])


@pytest.mark.soak
def test_an_issuer_that_never_answers_is_waited_for_only_so_long(
    server: LiveServer, issuer: SignInIssuer, visit: Callable[..., Visit]
) -> None:
    one = visit()
    one.page.add_init_script(
        "const own = AbortSignal.timeout; AbortSignal.timeout = (ms) => own.call(AbortSignal, ms / 50)"
    )
    page = one.open(server, "/new")
    issuer.held.clear()
    go(page)
    expect(page.get_by_role("alert")).to_contain_text("127.0.0.1")
    expect(page.get_by_role("alert")).to_contain_text("could not be reached")
    assert (stored(page), len(issuer.exchanged)) == ({}, 1)


@pytest.mark.soak
def test_what_one_person_has_asked_for_is_not_sent_as_the_next(
    server: LiveServer, issuer: SignInIssuer, visit: Callable[..., Visit]
) -> None:
    one = visit()
    page = one.open(server, "/new")
    go(page)
    signed_in(page)
    issuer.held.clear()
    over(page, issuer, {})
    page.evaluate(
        """async () => {
          const api = await import(document.querySelector("script").src.replace("app.js", "api.js"));
          window.outcome = api.get("jobs?name=hers").then(() => "sent", (error) => error.name);
          window.becomes = api.setKey;
        }"""
    )
    wait_until(lambda: len(issuer.exchanged) == 2, what="her token to be renewed")
    page.evaluate("window.becomes('another')")
    issuer.held.set()
    assert page.evaluate("window.outcome") == "AbortError"
    assert stored(page) == {"snakeline.key": "another"}
    assert not [address for address in one.addresses if "hers" in address]


@pytest.mark.soak
def test_an_issuer_that_does_not_know_the_pages_origin_is_named(
    server: LiveServer, issuer: SignInIssuer, visit: Callable[..., Visit]
) -> None:
    issuer.origin = "https://another.example"
    page = visit().open(server, "/new")
    go(page)
    expect(page.get_by_role("alert")).to_contain_text(f"it has to know {server.url} as an origin")
    assert stored(page) == {}


@pytest.mark.soak
def test_a_token_is_renewed_once_however_much_is_asked_for_at_a_time(
    server: LiveServer, issuer: SignInIssuer, visit: Callable[..., Visit]
) -> None:
    page = visit().open(server, "/new")
    go(page)
    signed_in(page)
    first = stored(page)
    page.evaluate(
        """() => {
          const session = JSON.parse(sessionStorage["snakeline.session"]);
          sessionStorage["snakeline.session"] = JSON.stringify({...session, renewAt: Date.now() - 1});
        }"""
    )
    page.reload()
    signed_in(page)
    session = "snakeline.session"
    wait_until(lambda: stored(page)[session] != first[session], what="another refresh token to be kept")
    page.get_by_role("link", name="Jobs").click()
    expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    assert [asked["grant_type"] for asked in issuer.exchanged] == ["authorization_code", "refresh_token"]


@pytest.mark.soak
def test_a_token_that_is_refused_before_its_time_is_renewed_and_the_request_sent_again(
    server: LiveServer, issuer: SignInIssuer, visit: Callable[..., Visit]
) -> None:
    issuer.spoilt = [{"exp": 1}]
    page = visit().open(server, "/new")
    go(page)
    signed_in(page)
    expect(page.get_by_label("Workflow")).to_be_visible()
    assert [asked["grant_type"] for asked in issuer.exchanged] == ["authorization_code", "refresh_token"]


@pytest.mark.soak
@pytest.mark.parametrize(
    "away_with",
    [(503, b""), (429, b'{"error": "too_many_requests"}'), (400, b'{"error": "temporarily_unavailable"}')],
)
def test_while_the_issuer_cannot_renew_the_connection_is_lost_and_then_all_goes_on(
    server: LiveServer, issuer: SignInIssuer, visit: Callable[..., Visit], away_with: tuple[int, bytes]
) -> None:
    page = visit().open(server)
    go(page)
    expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    issuer.is_away, issuer.away_with = True, away_with
    over(page, issuer, {})
    page.reload()
    expect(page.get_by_text("The connection to the service is lost")).to_be_visible()
    assert page.get_by_label("API key or token").count() == 0
    issuer.is_away = False
    expect(page.get_by_text("Connected again")).to_be_visible()
    name = f"after all {away_with[0]}"
    server.client.submit(name=name)
    expect(page.get_by_role("link", name=name)).to_be_visible()


@pytest.mark.soak
@pytest.mark.parametrize("change", [None, {"refresh": "withdrawn"}, {"issuer": "https://another.example"}])
def test_where_a_token_cannot_be_renewed_one_signs_in_again_and_goes_on_where_one_was(
    server: LiveServer, issuer: SignInIssuer, visit: Callable[..., Visit], change: dict[str, str] | None
) -> None:
    issuer.gives_refresh_tokens = change is not None
    page = visit().open(server, "/new?workflow=demo")
    go(page)
    signed_in(page)
    over(page, issuer, change or {})
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("for as long as the issuer allows")
    assert stored(page) == {}
    # A refresh token is for whom it is of.
    asked = [each["refresh_token"] for each in issuer.exchanged if each["grant_type"] == "refresh_token"]
    assert set(asked) == ({"withdrawn"} if change and "refresh" in change else set())
    go(page)
    signed_in(page)
    assert page.url == f"{server.url}/#/new?workflow=demo"


@pytest.mark.soak
def test_where_nobody_is_led_to_the_issuer_any_more_one_is_asked_for_a_key(
    server: LiveServer, issuer: SignInIssuer, visit: Callable[..., Visit]
) -> None:
    page = visit().open(server, "/new")
    go(page)
    signed_in(page)
    over(page, issuer, {})
    page.route("**/sign-in", lambda route: route.fulfill(json={"mode": "oidc", "redirect": None}))
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("for as long as the issuer allows")
    expect(page.get_by_label("API key or token")).to_be_visible()
    assert stored(page) == {}


@pytest.mark.soak
def test_an_issuer_without_fragments_and_with_opaque_access_tokens_will_do(
    issuer: SignInIssuer, visit: Callable[..., Visit], tmp_path: Path
) -> None:
    issuer.modes, issuer.access_tokens_are_opaque = ["query"], True
    more = {"OIDC_AUDIENCE": CLIENT, "OIDC_SIGN_IN_TOKEN": "id_token"}
    with serving(tmp_path, issuer, **more) as live:
        issuer.origin = live.url.rstrip("/")
        every = issuer.token(scope=EVERY_SCOPE, aud=CLIENT)
        live.client.headers["Authorization"] = f"Bearer {every}"
        page = visit().open(live, "/new")
        go(page)
        signed_in(page)
        assert page.url == f"{live.url}/#/new"
        assert "response_mode" not in issuer.said
        code = issuer.exchanged[0]["code"]
        assert code not in history_of(page)
        assert code not in live.log
        assert page.evaluate("JSON.parse(atob(sessionStorage['snakeline.key'].split('.')[1])).aud") == CLIENT


@pytest.mark.soak
def test_who_could_not_be_told_where_to_sign_in_can_ask_again(
    server: LiveServer, visit: Callable[..., Visit]
) -> None:
    one = visit()
    one.page.route("**/sign-in", lambda route: route.abort())
    page = one.open(server, "/new")
    expect(page.get_by_text("The service could not be reached.")).to_be_visible()
    page.unroute("**/sign-in")
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("button", name="Sign in with 127.0.0.1")).to_be_focused()


@pytest.mark.soak
def test_a_key_is_taken_beside_the_issuer_and_where_that_is_away(
    server: LiveServer, visit: Callable[..., Visit], tmp_path: Path
) -> None:
    made = server.client.post("/keys", json={"name": "robot", "scopes": ["read"]}).json()
    page = visit().open(server, "/new")
    expect(page.get_by_role("button", name="Sign in with 127.0.0.1")).to_be_visible()
    sign_in(page, made["key"])
    signed_in(page)
    settings = {"AUTH": "oidc", "OIDC_ISSUER": "http://127.0.0.1:1", "OIDC_AUDIENCE": AUDIENCE}
    with running_server(tmp_path, **settings, OIDC_CLIENT_ID=CLIENT) as live:
        away = visit().open(live, "/new")
        expect(away.get_by_text("Nobody can be led to the issuer now")).to_be_visible()
        expect(away.get_by_role("button", name="Try again")).to_be_visible()
        assert barriers(away) == []
        live.process.terminate()
        live.process.wait(20)

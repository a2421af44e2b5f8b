"""A service that leads to an issuer, and what a person does and a tab keeps on the way there and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from playwright.sync_api import expect

from tests.support.issuer import AUDIENCE
from tests.support.server import LiveServer, running_server
from tests.support.sign_in_issuer import CLIENT, SignInIssuer

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Page

EVERY_SCOPE = "snakeline:read snakeline:submit snakeline:admin"


def serving(folder: Path, issuer: SignInIssuer, **more: str) -> Any:
    settings = {
        "AUTH": "oidc",
        "OIDC_ISSUER": issuer.url,
        "OIDC_AUDIENCE": AUDIENCE,
        "OIDC_CLIENT_ID": CLIENT,
    }
    return running_server(folder, **{**settings, "DATABASE_URL": "memory://", **more})


def known_to(issuer: SignInIssuer, server: LiveServer) -> LiveServer:
    issuer.origin = server.url.rstrip("/")
    server.client.headers["Authorization"] = f"Bearer {issuer.token(scope=EVERY_SCOPE)}"
    return server


def go(page: Page, who: str = "I am Ann") -> None:
    """To the issuer and, once one has said there who one is, back."""
    page.get_by_role("button", name="Sign in with 127.0.0.1").click()
    page.get_by_role("button", name=who).click()


def signed_in(page: Page) -> None:
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    expect(page.get_by_role("heading", name="New job")).to_be_visible()


def history_of(page: Page) -> str:
    """Every address one could come back to."""
    session = page.context.new_cdp_session(page)
    entries = session.send("Page.getNavigationHistory")["entries"]
    session.detach()
    return " ".join(entry["url"] for entry in entries)


def stored(page: Page) -> dict[str, str]:
    found: dict[str, str] = page.evaluate("({...sessionStorage})")
    return found


def over(page: Page, issuer: SignInIssuer, change: dict[str, str]) -> None:
    """As if the token had been there for longer than it lasts, and this had changed meanwhile."""
    page.evaluate(
        """([token, change]) => {
          sessionStorage["snakeline.key"] = token;
          const session = JSON.parse(sessionStorage["snakeline.session"]);
          session.until = session.renewAt = Date.now() - 1000;
          sessionStorage["snakeline.session"] = JSON.stringify({...session, ...change});
        }""",
        [issuer.token(exp=1), change],
    )

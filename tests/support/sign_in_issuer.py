"""An issuer at which people sign in: an authorization code with PKCE for one public client, in a browser."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode, urlsplit

from tests.support.issuer import Issuer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from http.server import BaseHTTPRequestHandler

CLIENT = "snakeline-page"
_FORM = """<!doctype html><html lang="en"><title>The lab's sign-in</title><h1>The lab's sign-in</h1>
<form method="post"><button name="as" value="ann">I am Ann</button>
<button name="as" value="">I am nobody</button></form>"""


class SignInIssuer(Issuer):
    """Holds to the standards where a careless client would not notice: each code counts once, for the client,
    address and verifier it was asked with; a refresh token counts once; pages of `origin` alone may ask.
    """

    def __init__(self) -> None:
        super().__init__()
        self.origin = ""  # the service's, as its client is set up here
        self.modes = ["query", "fragment"]
        self.token_lasts_s = 600
        self.gives_refresh_tokens = True
        self.access_tokens_are_opaque = False
        self.lies: dict[str, Any] = {}  # claims of the next ID tokens
        self.said: dict[str, str] = {}  # at the authorization endpoint, last
        self.exchanged: list[dict[str, str]] = []  # what the token endpoint was asked
        self.spoilt: list[dict[str, Any]] = []  # claims of the next access tokens, one each
        self.calls_itself = ""  # in what it answers to the page, if that is something else
        self.is_away = False  # the token endpoint alone, which then answers as follows
        self.away_with = (503, b"")
        self._codes: dict[str, dict[str, str]] = {}
        self._refresh_tokens: set[str] = set()

    def discovery(self) -> dict[str, Any]:
        return {
            **super().discovery(),
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "end_session_endpoint": f"{self.url}/end",
            "response_modes_supported": self.modes,
        }

    def answer_to(self, who: str) -> str:
        """Where the browser is sent once the person has said who they are."""
        asked = self.said
        told = {"state": asked["state"], "iss": self.calls_itself or self.url}
        if who:
            code = secrets.token_urlsafe(16)
            self._codes[code] = {**asked, "who": who}
            told["code"] = code
        else:
            told |= {"error": "access_denied", "error_description": "Nobody <b>may not</b> come in."}
        mark = "#" if asked.get("response_mode") == "fragment" else "?"
        return f"{asked['redirect_uri']}{mark}{urlencode(told)}"

    def tokens(self, asked: dict[str, str]) -> dict[str, Any]:
        """The token endpoint's answer; KeyError where the standard says that it must not give any."""
        if asked["client_id"] != CLIENT:
            raise KeyError(CLIENT)
        if asked["grant_type"] == "refresh_token":
            self._refresh_tokens.remove(asked["refresh_token"])
            who, nonce = "ann", None
        else:
            begun = self._codes.pop(asked["code"])
            digest = hashlib.sha256(asked["code_verifier"].encode()).digest()
            challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
            if not begun["redirect_uri"] == asked["redirect_uri"] == f"{self.origin}/":
                raise KeyError("redirect_uri")
            if (begun["code_challenge_method"], begun["code_challenge"]) != ("S256", challenge):
                raise KeyError("code_verifier")
            who, nonce = begun["who"], begun["nonce"]
        usual = self.claims(sub=who)
        lasting = {"exp": usual["iat"] + self.token_lasts_s}
        of_client = {"aud": CLIENT, "nonce": nonce, **lasting, **self.lies}
        spoilt = self.spoilt.pop(0) if self.spoilt else {}
        access = self.token(**{"sub": who, **lasting, **spoilt})
        if self.access_tokens_are_opaque:
            access = secrets.token_urlsafe(24)
        given: dict[str, Any] = {
            "token_type": "Bearer",
            "access_token": access,
            "expires_in": self.token_lasts_s,
        }
        given["id_token"] = self.token(sub=who, **of_client)
        if self.gives_refresh_tokens:
            given["refresh_token"] = secrets.token_urlsafe(24)
            self._refresh_tokens.add(given["refresh_token"])
        return given

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        issuer = self

        class Handler(super()._handler()):  # type: ignore[misc]
            def do_GET(self) -> None:  # noqa: N802
                address = urlsplit(self.path)
                if address.path != "/authorize":
                    super().do_GET()
                    return
                issuer.said = {name: values[-1] for name, values in parse_qs(address.query).items()}
                self._send(200, _FORM.encode(), {"Content-Type": "text/html; charset=utf-8"})

            def do_POST(self) -> None:  # noqa: N802
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                asked = {name: values[-1] for name, values in parse_qs(body, keep_blank_values=True).items()}
                if urlsplit(self.path).path == "/authorize":
                    self._send(303, b"", {"Location": issuer.answer_to(asked["as"])})
                    return
                issuer.exchanged.append(asked)
                issuer.held.wait(30)
                cors = {"Content-Type": "application/json"}
                if self.headers.get("Origin") == issuer.origin:
                    cors["Access-Control-Allow-Origin"] = issuer.origin
                if issuer.is_away:
                    self._send(*issuer.away_with, cors)
                    return
                try:
                    self._send(200, json.dumps(issuer.tokens(asked)).encode(), cors)
                except KeyError:
                    self._send(400, b'{"error": "invalid_grant"}', cors)

            def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                with suppress(OSError):  # it did not wait for the answer
                    self.end_headers()
                    self.wfile.write(body)

        return Handler


@contextmanager
def running_sign_in_issuer() -> Iterator[SignInIssuer]:
    issuer = SignInIssuer()
    try:
        yield issuer
    finally:
        issuer.close()

"""An OpenID Connect issuer of one's own: a real HTTP server on this machine, and the tokens it signs."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from joserfc import jwt
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator

SigningKey = RSAKey | ECKey | OKPKey
AUDIENCE = "snakeline"
_DISCOVERY = "/.well-known/openid-configuration"


class _Quiet(JWSRegistry):
    """Signs with what it is told to, without warnings."""

    def get_alg(self, name: str) -> Any:
        return self.algorithms[name]


class Issuer:
    """Serves a discovery document and a key set, each of which a test may change, spoil or hold back."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.answers: dict[str, bytes] = {}  # by path, in place of what would be answered
        self.status = 200
        self.drips_every_s = 0.0  # a byte at a time, if it is more
        self.stopped = threading.Event()
        self.held = threading.Event()
        self.held.set()
        self.keys: dict[str, SigningKey] = {
            "rsa": RSAKey.generate_key(2048, auto_kid=False),
            "ec": ECKey.generate_key("P-256", auto_kid=False),
            "ed": OKPKey.generate_key("Ed25519", auto_kid=False),
        }
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self.held.set()
        self.stopped.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def discovery(self) -> dict[str, Any]:
        return {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}

    def key_set(self) -> dict[str, Any]:
        return {"keys": [{**key.as_dict(private=False), "kid": kid} for kid, key in self.keys.items()]}

    def token(self, kid: str = "rsa", *, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """A token signed with the key of this id; `claims` replace the usual ones, None takes one away."""
        return sign(self.keys[kid], {"kid": kid, **(header or {})}, self.claims(**claims))

    def claims(self, **claims: Any) -> dict[str, Any]:
        now = int(time.time())
        usual = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "ann",
            "iat": now,
            "exp": now + 600,
            "scope": "snakeline:read snakeline:submit",
        }
        return {name: value for name, value in {**usual, **claims}.items() if value is not None}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked[self.path] += 1
                issuer.held.wait(30)
                documents = {
                    _DISCOVERY: issuer.discovery(),
                    "/keys": issuer.key_set(),
                }
                usual = json.dumps(documents.get(self.path, {})).encode()
                body = issuer.answers.get(self.path, usual)
                try:
                    self.send_response(issuer.status)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    for piece in [body] if not issuer.drips_every_s else (bytes([byte]) for byte in body):
                        self.wfile.write(piece)
                        issuer.stopped.wait(issuer.drips_every_s)
                except OSError:  # it did not wait for the answer
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def sign(key: Any, header: dict[str, Any], claims: dict[str, Any]) -> str:
    """A token, with the algorithm that fits the key unless the header names one."""
    fitting = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA", "oct": "HS256"}[key.key_type]
    registry = _Quiet(strict_check_header=False)
    return jwt.encode({"alg": fitting, **header}, claims, key, registry=registry)


@contextmanager
def running_issuer() -> Iterator[Issuer]:
    issuer = Issuer()
    try:
        yield issuer
    finally:
        issuer.close()

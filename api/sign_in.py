"""Signing in at the issuer by redirect: what the page has to know for it, and whom it may talk to."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from api.auth_rules import IssuerUnavailable, is_safe_address

if TYPE_CHECKING:
    from collections.abc import Mapping

    from api.auth_issuer import IssuerKeys

SignInToken = Literal["access_token", "id_token"]

_MOST_CHARS = 1000  # it goes into a header of every page
# A source in a content security policy: what could end it or its directive is not among these characters.
_SOURCE: Final = re.compile(r"https?://[A-Za-z0-9._\-:\[\]]+(/[A-Za-z0-9._~%!$&()+=:@/-]*)?")


@dataclass(frozen=True, slots=True)
class SignInRules:
    """What is set: who the page is at the issuer, what it asks for, and which token it then sends."""

    client_id: str
    scopes: str = "openid"
    token: SignInToken = "access_token"  # noqa: S105 - which of the tokens, not one
    parameters: Mapping[str, str] = field(default_factory=dict)


class SignIn:
    """What the page is told, from the settings and the issuer's discovery document and nothing else.

    Its methods raise IssuerUnavailable: the document is not there, or names no addresses that can be used.
    """

    def __init__(self, rules: SignInRules, issuer: IssuerKeys) -> None:
        self._rules = rules
        self._issuer = issuer

    async def redirect(self) -> dict[str, Any]:
        """What `GET /sign-in` tells of it."""
        discovery = await self._issuer.discovery()
        modes = discovery.get("response_modes_supported")
        return {
            "issuer": self._issuer.issuer,
            "client_id": self._rules.client_id,
            "authorization_endpoint": self._address(discovery, "authorization_endpoint"),
            "token_endpoint": self._token_endpoint(discovery),
            "end_session_endpoint": self._usable(discovery.get("end_session_endpoint")),
            "scope": self._rules.scopes,
            # Behind a # the code reaches no server and no log.
            "response_mode": "fragment" if isinstance(modes, list) and "fragment" in modes else "query",
            "token": self._rules.token,
            "parameters": dict(self._rules.parameters),
        }

    async def source(self) -> str:
        """The one address besides the service's own that the page may send to, for its policy."""
        return self._token_endpoint(await self._issuer.discovery()).partition("?")[0]

    def _token_endpoint(self, discovery: Mapping[str, Any]) -> str:
        address = self._address(discovery, "token_endpoint")
        if not _SOURCE.fullmatch(address.partition("?")[0]):
            raise IssuerUnavailable("It names no token_endpoint that can be used.")
        return address

    def _address(self, discovery: Mapping[str, Any], name: str) -> str:
        address = self._usable(discovery.get(name))
        if address is None:
            raise IssuerUnavailable(f"It names no {name} that can be used.")
        return address

    def _usable(self, address: object) -> str | None:
        if not isinstance(address, str) or len(address) > _MOST_CHARS:
            return None
        return address if is_safe_address(address, like=self._issuer.issuer) else None

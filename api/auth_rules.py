"""The rules for an issuer's tokens: what must hold, and what their claims mean here."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from runner.access import Scope

if TYPE_CHECKING:
    from collections.abc import Mapping

ALGORITHMS: Final = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519",
)  # fmt: skip
OPERATOR_GRANT: Final = "operator"
GRANTS: Final = (*(scope.value for scope in Scope), OPERATOR_GRANT)


class IssuerUnavailable(Exception):
    """There are no keys to check a token with: the issuer gives none just now."""

    retry_after_s = 5


class InvalidToken(Exception):
    """The token is not accepted; the text, without anything of the token's own, says why."""


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What must hold for a token, and what its claims mean here.

    `grants` maps what stands in `scope_claim` to scopes, and to `operator`: all scopes, every tenant.
    Claims are named by their name, or by a path with dots through objects.
    """

    issuer: str
    audiences: tuple[str, ...]
    algorithms: tuple[str, ...] = ("RS256", "ES256", "EdDSA")
    name_claim: str = "sub"
    tenant_claim: str | None = None
    scope_claim: str = "scope"
    grants: Mapping[str, frozenset[str]] = field(default_factory=dict)


def parse_grants(text: str) -> dict[str, frozenset[str]]:
    """`read=a submit=b submit=c` as what each of a, b and c grants. Raises ValueError."""
    found: dict[str, set[str]] = {}
    for pair in text.replace(",", " ").split():
        grant, equals, value = pair.partition("=")
        if grant not in GRANTS or not equals or not value:
            raise ValueError(f"{pair!r} is not of the form SCOPE=VALUE, SCOPE one of {', '.join(GRANTS)}")
        found.setdefault(value, set()).add(grant)
    return {value: frozenset(grants) for value, grants in found.items()}


def is_loopback(address: str) -> bool:
    host = urlsplit(address).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_safe_address(address: str, *, like: str | None = None) -> bool:
    """Whether it is https; or http on this machine, where `like` is that, too."""
    try:
        parts = urlsplit(address)
        parts.port  # noqa: B018 - raises where it is no number
    except ValueError:
        return False
    if not parts.hostname or parts.username is not None or parts.fragment:
        return False
    if parts.scheme == "https":
        return True
    return parts.scheme == "http" and is_loopback(address) and (like is None or is_loopback(like))

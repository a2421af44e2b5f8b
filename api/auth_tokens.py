"""Bearer tokens of an OpenID Connect issuer: JSON Web Tokens, checked here, without asking it each time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from joserfc import jwt
from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.jws import JWSRegistry, extract_compact

from api.auth_rules import OPERATOR_GRANT, InvalidToken
from runner.access import ALL_SCOPES, DEFAULT_TENANT, Caller, Scope, is_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from api.auth_issuer import IssuerKeys
    from api.auth_rules import TokenRules

LEEWAY_S: Final = 30
_MOST_NAME: Final = 200


class _PinnedRegistry(JWSRegistry):
    """The allowed algorithms and no other, headers of a size that issuers use."""

    max_header_length = 4096

    def get_alg(self, name: str) -> Any:
        if not self.allowed or name not in self.allowed:
            raise UnsupportedAlgorithmError
        return self.algorithms[name]


class Tokens:
    """Checks tokens of one issuer. Raises nothing but InvalidToken and IssuerUnavailable."""

    def __init__(
        self, rules: TokenRules, keys: IssuerKeys, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._rules = rules
        self._keys = keys
        self._registry = _PinnedRegistry(algorithms=rules.algorithms, strict_check_header=False)
        self._claims = jwt.JWTClaimsRegistry(
            now=lambda: int(clock()),
            leeway=LEEWAY_S,
            iss={"essential": True, "value": rules.issuer},
            aud={"essential": True, "values": list(rules.audiences)},
            exp={"essential": True},
        )

    async def caller(self, token: str) -> Caller:
        """Who sent this token. Raises InvalidToken, IssuerUnavailable."""
        kid, algorithm = self._header(token)
        key = await self._keys.key(kid, algorithm)
        if key is None:
            raise InvalidToken("The issuer has no such key.")
        try:
            claims = jwt.decode(token, key, registry=self._registry).claims
        except (JoseError, ValueError, TypeError, RecursionError):
            raise InvalidToken("Its signature does not hold.") from None
        try:
            self._claims.validate(claims)
        except JoseError as error:
            raise InvalidToken(_what_is_wrong(error, claims)) from None
        except (ValueError, TypeError, OverflowError):
            raise InvalidToken("A claim has a value that cannot be.") from None
        return self._as_caller(claims)

    def _header(self, token: str) -> tuple[str | None, str]:
        """The key id and the algorithm the token names; nothing of it is believed yet."""
        try:
            header = extract_compact(token.encode("ascii"), registry=self._registry).headers()
        except (JoseError, ValueError, TypeError, RecursionError):
            raise InvalidToken("It is no JSON Web Token.") from None
        kid, algorithm = header.get("kid"), header.get("alg")
        if algorithm not in self._rules.algorithms or "crit" in header or "b64" in header:
            raise InvalidToken("It is signed in a way that is not allowed here.")
        if not (kid is None or isinstance(kid, str)):
            raise InvalidToken("Its key id is no text.")
        return kid, str(algorithm)

    def _as_caller(self, claims: Mapping[str, Any]) -> Caller:
        rules = self._rules
        name = _claim(claims, rules.name_claim)
        if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= _MOST_NAME:
            raise InvalidToken(f"Its claim {rules.name_claim} is no name.")
        grants = frozenset(
            grant
            for value in _values(_claim(claims, rules.scope_claim))
            for grant in rules.grants.get(value, ())
        )
        is_operator = OPERATOR_GRANT in grants
        tenant = None if rules.tenant_claim is None else _claim(claims, rules.tenant_claim)
        if tenant is None and (rules.tenant_claim is None or is_operator):
            tenant = DEFAULT_TENANT
        if not isinstance(tenant, str) or not is_name(tenant):
            raise InvalidToken(f"Its claim {rules.tenant_claim} is no tenant's name.")
        scopes = ALL_SCOPES if is_operator else frozenset(map(Scope, grants))
        # Marked, so that nobody can get a name from the issuer that is a key's or the operator's.
        return Caller(f"oidc:{name}", tenant, scopes, all_tenants=is_operator)


def _claim(claims: Mapping[str, Any], path: str) -> Any:
    """The claim of that very name, or else at that path."""
    if path in claims:
        return claims[path]
    value: Any = claims
    for step in path.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    return value


def _values(value: Any) -> list[str]:
    """Scopes as one text with spaces (RFC 8693), or roles as a list."""
    if isinstance(value, str):
        return value.split()
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _what_is_wrong(error: JoseError, claims: Mapping[str, Any]) -> str:
    name = str(getattr(error, "claim", "") or "")
    if error.error == "expired_token":
        return "It has expired."
    if error.error == "missing_claim":
        return "It lacks a claim: iss, aud and exp are needed."
    known = {
        "iss": "It is of another issuer.",
        "aud": "It is meant for another audience.",
        "nbf": "It is not valid yet.",
        "iat": "It is of the future.",
    }
    return known.get(name if name in claims else "", "A claim has a value that cannot be.")

"""What the settings say about who may call: one mode, and the rules for tokens where it takes them."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from api.auth_rules import ALGORITHMS, TokenRules, is_safe_address, parse_grants

if TYPE_CHECKING:
    from api.settings import ServiceSettings

AuthMode = Literal["none", "keys", "oidc"]
AuthSetting = Literal["auto", "none", "keys", "oidc"]

DEFAULT_ALGORITHMS = "RS256,ES256,EdDSA"
DEFAULT_GRANTS = "read=snakeline:read submit=snakeline:submit admin=snakeline:admin"

Issuer = Annotated[
    str | None,
    Field(description="The OpenID Connect issuer whose tokens are taken: an https address."),
]
Audience = Annotated[
    str | None, Field(description="What a token's `aud` must name: one of these, with commas between.")
]
Algorithms = Annotated[str, Field(description="The algorithms a token may be signed with.")]
NameClaim = Annotated[
    str, Field(min_length=1, description="The claim that names the caller, in jobs and in the audit.")
]
TenantClaim = Annotated[
    str | None,
    Field(description="The claim that names the caller's tenant; without it all are `default`."),
]
ScopeClaim = Annotated[str, Field(min_length=1, description="The claim with the caller's scopes or roles.")]
Scopes = Annotated[
    str, Field(description="What stands in that claim for `read`, `submit`, `admin` and `operator`.")
]


def auth_mode(settings: ServiceSettings) -> AuthMode:
    """How callers are told: `auto` lets everybody in where nobody but this machine can call."""
    if settings.auth != "auto":
        return settings.auth
    return "none" if is_loopback_host(settings.host) else "keys"


def who_may_call(settings: ServiceSettings) -> str:
    """The mode in words for a person, and what to do about it."""
    match auth_mode(settings):
        case "none" if is_loopback_host(settings.host):
            return f"everybody on this machine ({settings.host})"
        case "none":
            return f"everybody who can reach {settings.host}:{settings.port} (SNAKELINE_AUTH=none)"
        case "keys":
            return "who has an API key: snakeline keys create, snakeline keys list"
        case "oidc":
            led = (
                "" if settings.oidc_client_id is None else f"; the page signs in as {settings.oidc_client_id}"
            )
            return f"who has a token of {settings.oidc_issuer}, or an API key{led}"


def token_rules(settings: ServiceSettings) -> TokenRules | None:
    """The rules for tokens, or None where none are taken.

    Raises ValueError with one line: something is missing, cannot be used, or would be ignored.
    """
    if auth_mode(settings) != "oidc":
        if settings.oidc_issuer is not None:
            raise ValueError("SNAKELINE_OIDC_ISSUER is only used with SNAKELINE_AUTH=oidc: set that, too")
        return None
    if settings.oidc_issuer is None or settings.oidc_audience is None:
        raise ValueError("SNAKELINE_AUTH=oidc needs SNAKELINE_OIDC_ISSUER and SNAKELINE_OIDC_AUDIENCE")
    if not is_safe_address(settings.oidc_issuer):
        raise ValueError("SNAKELINE_OIDC_ISSUER must be an https address without user and password")
    try:
        grants = parse_grants(settings.oidc_scopes)
    except ValueError as error:
        raise ValueError(f"SNAKELINE_OIDC_SCOPES: {error}") from None
    algorithms = _listed(settings.oidc_algorithms)
    if not algorithms or not set(algorithms) <= set(ALGORITHMS):
        raise ValueError(f"SNAKELINE_OIDC_ALGORITHMS: must be some of {', '.join(ALGORITHMS)}")
    audiences = _listed(settings.oidc_audience)
    if not audiences:
        raise ValueError("SNAKELINE_OIDC_AUDIENCE: must name one at least")
    return TokenRules(
        issuer=settings.oidc_issuer,
        audiences=audiences,
        algorithms=algorithms,
        name_claim=settings.oidc_name_claim,
        tenant_claim=settings.oidc_tenant_claim,
        scope_claim=settings.oidc_scope_claim,
        grants=grants,
    )


def is_loopback_host(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _listed(text: str) -> tuple[str, ...]:
    return tuple(each for each in (part.strip() for part in text.split(",")) if each)

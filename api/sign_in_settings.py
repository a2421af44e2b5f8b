"""The settings that say how people sign in on the page at the issuer, and what may not be among them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Final, Literal
from urllib.parse import parse_qsl

from pydantic import AfterValidator, Field

from api.sign_in import SignInRules, SignInToken

if TYPE_CHECKING:
    from api.auth_rules import TokenRules
    from api.settings import ServiceSettings

DEFAULT_SCOPES: Final = "openid"
DEFAULT_TOKEN: Final[SignInToken] = "access_token"  # noqa: S105 - which of the tokens, not one
_CLIENT_ID: Final = re.compile(r"[\x21-\x7e]{1,256}")  # RFC 6749, appendix A.1, without spaces
_SCOPES: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+( [\x21\x23-\x5b\x5d-\x7e]+)*")
_MOST_PARAMETERS: Final = 10
# What the page itself says to the issuer, or must not: another answer than a code would bring tokens into
# addresses.
_OWN: Final = frozenset(
    {
        *("client_id", "client_secret", "code_challenge", "code_challenge_method", "nonce", "redirect_uri"),
        *("request", "request_uri", "response_mode", "response_type", "scope", "state"),
    }
)


def parameters(value: str | None) -> dict[str, str]:
    """`audience=https://a&prompt=login` as a mapping. Raises ValueError."""
    if value is None:
        return {}
    pairs = parse_qsl(value, keep_blank_values=True, strict_parsing=True, max_num_fields=_MOST_PARAMETERS)
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is there twice")
    for name in found:
        if name in _OWN:
            raise ValueError(f"{name} is for the page to say")
    return found


def sign_in_rules(settings: ServiceSettings, tokens: TokenRules | None) -> SignInRules | None:
    """How people sign in at the issuer, or None where the page leads nobody there.

    Raises ValueError with one line: a setting would be ignored, or no sign-in could succeed.
    """
    if settings.oidc_client_id is None:
        is_usual = (settings.oidc_sign_in_scopes, settings.oidc_sign_in_token) == (
            DEFAULT_SCOPES,
            DEFAULT_TOKEN,
        )
        if not is_usual or settings.oidc_sign_in_parameters is not None:
            raise ValueError(
                "SNAKELINE_OIDC_SIGN_IN_… is only used with SNAKELINE_OIDC_CLIENT_ID: set that, too"
            )
        return None
    if tokens is None:
        raise ValueError("SNAKELINE_OIDC_CLIENT_ID is only used with SNAKELINE_AUTH=oidc: set that, too")
    if settings.oidc_sign_in_token != DEFAULT_TOKEN and settings.oidc_client_id not in tokens.audiences:
        raise ValueError(
            "SNAKELINE_OIDC_SIGN_IN_TOKEN=id_token needs the client's id in SNAKELINE_OIDC_AUDIENCE: "
            "an ID token is for the client alone"
        )
    return SignInRules(
        client_id=settings.oidc_client_id,
        scopes=settings.oidc_sign_in_scopes,
        token=settings.oidc_sign_in_token,
        parameters=parameters(settings.oidc_sign_in_parameters),
    )


def _is_client_id(value: str) -> str:
    if not _CLIENT_ID.fullmatch(value):
        raise ValueError("must be 1 to 256 characters of ASCII without spaces")
    return value


def _are_scopes(value: str) -> str:
    if not _SCOPES.fullmatch(value):
        raise ValueError("must be scopes with a space between")
    if "openid" not in value.split():
        raise ValueError("openid must be among them")
    return value


def _are_parameters(value: str) -> str:
    parameters(value)
    return value


ClientId = Annotated[
    Annotated[str, AfterValidator(_is_client_id)] | None,
    Field(
        description="The page's client id at the issuer: with it people sign in there by redirect; without "
        "it they paste a token."
    ),
]
Scopes = Annotated[
    str,
    AfterValidator(_are_scopes),
    Field(description="The scopes that the page asks the issuer for, with spaces between."),
]
TokenName = Annotated[
    Literal["access_token", "id_token"],
    Field(
        description="Which token of the issuer's the page sends: `access_token`, or `id_token` where access "
        "tokens are no JSON Web Tokens."
    ),
]
Parameters = Annotated[
    Annotated[str, AfterValidator(_are_parameters)] | None,
    Field(description="What the page says to the issuer besides, as `name=value&name=value`."),
]

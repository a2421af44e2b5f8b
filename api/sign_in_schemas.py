"""What goes over the wire about signing in."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

_REDIRECT: dict[str, Any] = {
    "issuer": "https://login.example.org/realms/lab",
    "client_id": "snakeline-page",
    "authorization_endpoint": "https://login.example.org/realms/lab/protocol/openid-connect/auth",
    "token_endpoint": "https://login.example.org/realms/lab/protocol/openid-connect/token",
    "end_session_endpoint": "https://login.example.org/realms/lab/protocol/openid-connect/logout",
    "scope": "openid",
    "response_mode": "fragment",
    "token": "access_token",
    "parameters": {},
}


class SignInRedirect(BaseModel):
    """How a page signs people in at the issuer: by an authorization code with PKCE, as a public client."""

    model_config = ConfigDict(json_schema_extra={"examples": [_REDIRECT]})

    issuer: str
    client_id: str = Field(description="Who the page is at the issuer; no secret.")
    authorization_endpoint: str = Field(description="Where people are led to.")
    token_endpoint: str = Field(description="Where the page exchanges the code, from the browser.")
    end_session_endpoint: str | None = Field(
        description="Where a session at the issuer is ended, if it has that."
    )
    scope: str
    response_mode: Literal["fragment", "query"] = Field(
        description="Where the code comes back in the address."
    )
    token: Literal["access_token", "id_token"] = Field(
        description="Which of the issuer's tokens the service takes."
    )
    parameters: dict[str, str] = Field(description="What else is said to the issuer.")


class SignIn(BaseModel):
    """Who may call, and how people say who they are."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"mode": "oidc", "redirect": _REDIRECT}, {"mode": "keys", "redirect": None}]
        }
    )

    mode: Literal["none", "keys", "oidc"] = Field(
        description="`none`: nobody has to say; `keys`: by an API key; `oidc`: by a token of the issuer or a "
        "key."
    )
    redirect: SignInRedirect | None = Field(description="Null where people are led to no issuer.")


SHOWN: tuple[type[BaseModel], ...] = (SignIn, SignInRedirect)
"""Every model of an answer that stands by itself."""

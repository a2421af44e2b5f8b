"""What the settings say about signing in at the issuer by redirect."""

from __future__ import annotations

import pytest

from api.auth_settings import token_rules, who_may_call
from api.settings import PREFIX, ServiceSettings, SettingsError, load_settings
from api.sign_in import SignInRules
from api.sign_in_settings import sign_in_rules

OIDC = {"AUTH": "oidc", "OIDC_ISSUER": "https://login.example.org/realms/a", "OIDC_AUDIENCE": "snakeline"}
PAGE = OIDC | {"OIDC_CLIENT_ID": "snakeline-page"}


def settings(**given: str) -> ServiceSettings:
    return load_settings({PREFIX + name: value for name, value in given.items()})


def rules(**given: str) -> SignInRules | None:
    made = settings(**given)
    return sign_in_rules(made, token_rules(made))


def test_without_a_client_id_nobody_is_led_anywhere() -> None:
    assert rules() is None
    assert rules(**OIDC) is None
    assert "page" not in who_may_call(settings(**OIDC))


def test_a_client_id_is_enough() -> None:
    assert rules(**PAGE) == SignInRules("snakeline-page", "openid", "access_token", {})
    assert "the page signs in as snakeline-page" in who_may_call(settings(**PAGE))


def test_scopes_the_token_and_what_else_is_said_are_taken_as_they_are_set() -> None:
    more = {
        "OIDC_AUDIENCE": "snakeline-page",
        "OIDC_SIGN_IN_SCOPES": "openid offline_access api://snakeline/jobs",
        "OIDC_SIGN_IN_TOKEN": "ID_token",
        "OIDC_SIGN_IN_PARAMETERS": "audience=https%3A%2F%2Fa.example%2F%3Fb&prompt=select_account&empty=",
    }
    assert rules(**PAGE | more) == SignInRules(
        client_id="snakeline-page",
        scopes="openid offline_access api://snakeline/jobs",
        token="id_token",
        parameters={"audience": "https://a.example/?b", "prompt": "select_account", "empty": ""},
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"OIDC_CLIENT_ID": "page"}, "SNAKELINE_OIDC_CLIENT_ID is only used with SNAKELINE_AUTH=oidc"),
        ({"OIDC_CLIENT_ID": "page", "AUTH": "keys"}, "SNAKELINE_AUTH=oidc"),
        (OIDC | {"OIDC_SIGN_IN_SCOPES": "openid profile"}, "only used with SNAKELINE_OIDC_CLIENT_ID"),
        (OIDC | {"OIDC_SIGN_IN_TOKEN": "id_token"}, "only used with SNAKELINE_OIDC_CLIENT_ID"),
        (OIDC | {"OIDC_SIGN_IN_PARAMETERS": "a=b"}, "only used with SNAKELINE_OIDC_CLIENT_ID"),
        (PAGE | {"OIDC_CLIENT_ID": "two words"}, "SNAKELINE_OIDC_CLIENT_ID"),
        (PAGE | {"OIDC_CLIENT_ID": "a" * 257}, "SNAKELINE_OIDC_CLIENT_ID"),
        (PAGE | {"OIDC_SIGN_IN_SCOPES": "profile"}, "openid must be among them"),
        (PAGE | {"OIDC_SIGN_IN_SCOPES": "openid,profile"}, "openid must be among them"),
        (PAGE | {"OIDC_SIGN_IN_SCOPES": "openid  profile"}, "SNAKELINE_OIDC_SIGN_IN_SCOPES"),
        (PAGE | {"OIDC_SIGN_IN_SCOPES": 'openid "x"'}, "SNAKELINE_OIDC_SIGN_IN_SCOPES"),
        (PAGE | {"OIDC_SIGN_IN_TOKEN": "refresh_token"}, "SNAKELINE_OIDC_SIGN_IN_TOKEN"),
        (PAGE | {"OIDC_SIGN_IN_TOKEN": "id_token"}, "the client's id in SNAKELINE_OIDC_AUDIENCE"),
        (PAGE | {"OIDC_SIGN_IN_PARAMETERS": "audience"}, "SNAKELINE_OIDC_SIGN_IN_PARAMETERS"),
        (PAGE | {"OIDC_SIGN_IN_PARAMETERS": "a=b&a=c"}, "twice"),
        (PAGE | {"OIDC_SIGN_IN_PARAMETERS": "&".join(f"p{n}=x" for n in range(11))}, "PARAMETERS"),
        *(
            (PAGE | {"OIDC_SIGN_IN_PARAMETERS": f"{name}=x"}, f"{name} is for the page to say")
            for name in ("response_type", "response_mode", "redirect_uri", "state", "nonce", "request")
        ),
    ],
)
def test_what_would_be_ignored_or_lets_nobody_in_stops_the_start(given: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings(**given)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)

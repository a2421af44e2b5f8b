"""What the settings say about who may call."""

from __future__ import annotations

import pytest

from api.auth_rules import is_safe_address, parse_grants
from api.auth_settings import auth_mode, token_rules, who_may_call
from api.settings import PREFIX, ServiceSettings, SettingsError, load_settings

OIDC = {"AUTH": "oidc", "OIDC_ISSUER": "https://login.example.org/realms/a", "OIDC_AUDIENCE": "snakeline"}


def settings(**given: str) -> ServiceSettings:
    return load_settings({PREFIX + name: value for name, value in given.items()})


def refused(**given: str) -> str:
    with pytest.raises(SettingsError) as caught:
        settings(**given)
    line = str(caught.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost"])
def test_on_this_machine_alone_nobody_has_to_log_in(host: str) -> None:
    assert auth_mode(settings(HOST=host)) == "none"
    assert auth_mode(settings(HOST=host, AUTH="keys")) == "keys"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "127.0.0.1.example.org"])
def test_anywhere_else_keys_are_needed_unless_it_is_opened_knowingly(host: str) -> None:
    assert auth_mode(settings(HOST=host)) == "keys"
    assert auth_mode(settings(HOST=host, AUTH="None")) == "none"


def test_tokens_are_taken_by_what_is_set() -> None:
    rules = token_rules(
        settings(
            **OIDC
            | {
                "OIDC_AUDIENCE": "snakeline, api://snakeline",
                "OIDC_ALGORITHMS": "ES256",
                "OIDC_NAME_CLAIM": "email",
                "OIDC_TENANT_CLAIM": "groups.tenant",
                "OIDC_SCOPE_CLAIM": "roles",
                "OIDC_SCOPES": "read=viewer read=analyst, submit=analyst operator=platform",
            }
        )
    )
    assert rules is not None
    assert (rules.issuer, rules.audiences) == (OIDC["OIDC_ISSUER"], ("snakeline", "api://snakeline"))
    assert (rules.algorithms, rules.name_claim) == (("ES256",), "email")
    assert (rules.tenant_claim, rules.scope_claim) == ("groups.tenant", "roles")
    assert rules.grants == {
        "viewer": {"read"},
        "analyst": {"read", "submit"},
        "platform": {"operator"},
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"OIDC_ISSUER": ""}, "SNAKELINE_OIDC_ISSUER"),
        ({"OIDC_AUDIENCE": ""}, "SNAKELINE_OIDC_AUDIENCE"),
        ({"OIDC_AUDIENCE": ","}, "SNAKELINE_OIDC_AUDIENCE"),
        ({"OIDC_ISSUER": "http://login.example.org"}, "https"),
        ({"OIDC_ISSUER": "https://"}, "https"),
        ({"OIDC_ISSUER": "login.example.org"}, "https"),
        ({"OIDC_ISSUER": "https://user:pw@login.example.org"}, "https"),
        ({"OIDC_ISSUER": "https://login.example.org:port"}, "https"),
        ({"OIDC_ALGORITHMS": "none"}, "SNAKELINE_OIDC_ALGORITHMS"),
        ({"OIDC_ALGORITHMS": "RS256,HS256"}, "SNAKELINE_OIDC_ALGORITHMS"),
        ({"OIDC_ALGORITHMS": "RS256 ES256"}, "SNAKELINE_OIDC_ALGORITHMS"),
        ({"OIDC_SCOPES": "root=a"}, "SNAKELINE_OIDC_SCOPES"),
        ({"OIDC_SCOPES": "read"}, "SNAKELINE_OIDC_SCOPES"),
        ({"OIDC_SCOPES": "read="}, "SNAKELINE_OIDC_SCOPES"),
        ({"AUTH": "keys"}, "SNAKELINE_AUTH=oidc"),
        ({"AUTH": "auto"}, "SNAKELINE_AUTH=oidc"),
    ],
)
def test_rules_that_cannot_hold_or_would_be_ignored_stop_the_start(change: dict[str, str], said: str) -> None:
    assert said in refused(**OIDC | change)


@pytest.mark.parametrize("issuer", ["http://127.0.0.1:8080/x", "http://localhost:1", "http://[::1]:1"])
def test_an_issuer_on_this_machine_may_be_without_https(issuer: str) -> None:
    rules = token_rules(settings(**OIDC | {"OIDC_ISSUER": issuer}))
    assert rules is not None
    assert rules.issuer == issuer


def test_what_a_client_is_told_is_no_setting_of_the_service() -> None:
    assert settings(URL="http://x", API_KEY="snk_x").port == 8000


def test_a_value_may_contain_what_separates_pairs_of_others() -> None:
    assert parse_grants("read=urn:x:y=z") == {"urn:x:y=z": {"read"}}


@pytest.mark.parametrize(
    ("address", "like", "is_safe"),
    [
        ("https://login.example.org/keys", None, True),
        ("https://www.googleapis.com/keys", "https://accounts.google.com", True),
        ("http://127.0.0.1:1/keys", "http://localhost:2", True),
        ("http://127.0.0.1:1/keys", "https://login.example.org", False),
        ("http://login.example.org/keys", None, False),
        ("http://127.0.0.1.example.org/keys", None, False),
        ("https://user@login.example.org/keys", None, False),
        ("https://login.example.org/keys#x", None, False),
        ("file:///etc/passwd", None, False),
        ("//login.example.org/keys", None, False),
        ("https://[::1", None, False),
        ("", None, False),
    ],
)
def test_an_issuer_and_its_keys_are_asked_over_https_or_on_this_machine(
    address: str, like: str | None, *, is_safe: bool
) -> None:
    assert is_safe_address(address, like=like) is is_safe


def test_who_may_call_is_told_in_words() -> None:
    assert who_may_call(settings()) == "everybody on this machine (127.0.0.1)"
    assert who_may_call(settings(AUTH="none", HOST="0.0.0.0")).startswith(
        "everybody who can reach 0.0.0.0:8000"
    )
    assert "snakeline keys create" in who_may_call(settings(HOST="0.0.0.0"))
    assert OIDC["OIDC_ISSUER"] in who_may_call(settings(**OIDC))

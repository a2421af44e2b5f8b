"""Who the client is, by the word of proxies that are trusted and of everybody else."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.origins import parse_origins
from api.proxies import BehindProxies, TrustedProxies, parse_networks

if TYPE_CHECKING:
    from collections.abc import MutableMapping

PROXIES = TrustedProxies(parse_networks("10.0.0.0/8, 192.0.2.7, 2001:db8::/32"))


def seen(peer: str, *headers: tuple[str, str]) -> tuple[str, str]:
    """The client and the scheme that the application is told."""
    scope: MutableMapping[str, Any] = {
        "type": "http",
        "client": (peer, 4711),
        "scheme": "http",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
    }
    told = []

    async def app(scope: MutableMapping[str, Any], _receive: object, _send: object) -> None:
        told.append((scope["client"][0], scope["scheme"]))

    asyncio.run(BehindProxies(app, PROXIES)(scope, None, None))  # type: ignore[arg-type]
    return told[0]


@pytest.mark.parametrize(
    ("forwarded_for", "client"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("198.51.100.1, 203.0.113.9", "203.0.113.9"),
        ("203.0.113.9, 10.1.2.3, 192.0.2.7", "203.0.113.9"),
        ("evil, 203.0.113.9", "203.0.113.9"),
        ("203.0.113.9:5678", "203.0.113.9"),
        ("[2001:db9::1]:443", "2001:db9::1"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("10.3.3.3", "10.3.3.3"),
        ("203.0.113.9, unknown", "10.0.0.1"),
        ("203.0.113.9, unknown, 10.1.1.1", "10.1.1.1"),
        ("203.0.113.9,", "10.0.0.1"),
        ("", "10.0.0.1"),
        ("1" * 10_000, "10.0.0.1"),
        ("203.0.113.9, " + ", ".join(["10.1.1.1"] * 5000), "10.1.1.1"),
    ],
)
def test_the_client_is_the_last_one_that_is_no_trusted_proxy(forwarded_for: str, client: str) -> None:
    assert seen("10.0.0.1", ("X-Forwarded-For", forwarded_for))[0] == client


def test_several_headers_are_one_list() -> None:
    headers = [("X-Forwarded-For", "198.51.100.1"), ("X-Forwarded-For", "203.0.113.9, 10.1.1.1")]
    assert seen("10.0.0.1", *headers)[0] == "203.0.113.9"


@pytest.mark.parametrize("peer", ["203.0.113.1", "192.0.2.8", "::1", "not an address"])
def test_nobody_else_is_believed(peer: str) -> None:
    headers = [("X-Forwarded-For", "198.51.100.1"), ("X-Forwarded-Proto", "https")]
    assert seen(peer, *headers) == (peer, "http")


def test_a_proxy_is_known_by_its_ipv6_form_too() -> None:
    assert seen("::ffff:10.0.0.1", ("X-Forwarded-For", "203.0.113.9"))[0] == "203.0.113.9"


@pytest.mark.parametrize(
    ("value", "scheme"),
    [
        ("https", "https"),
        ("HTTPS", "https"),
        ("https, http", "http"),
        ("http,https", "https"),
        ("wss", "http"),
    ],
)
def test_the_scheme_is_the_word_of_the_nearest_proxy(value: str, scheme: str) -> None:
    assert seen("192.0.2.7", ("X-Forwarded-Proto", value))[1] == scheme


def test_other_headers_mean_nothing() -> None:
    headers = [("Forwarded", "for=203.0.113.9;proto=https"), ("X-Real-IP", "203.0.113.9")]
    assert seen("10.0.0.1", *headers) == ("10.0.0.1", "http")


@given(st.text(st.characters(max_codepoint=255)))
def test_whatever_a_client_writes_the_address_is_one(text: str) -> None:
    client = PROXIES.client_behind("10.0.0.1", f"{text}, 203.0.113.9")
    assert client == "203.0.113.9"
    assert len(PROXIES.client_behind("10.0.0.1", text)) <= 64


@pytest.mark.parametrize("text", ["10.0.0.1/8", "proxy.example", "*", "10.0.0.0/33", "10.0.0.0-10.0.0.9"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"10\.0\.0|proxy|\*"):
        parse_networks(f"192.0.2.1, {text}")


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("https://lims.example.org", ("https://lims.example.org",)),
        (
            "HTTPS://Lims.Example.org:443,http://localhost:5173",
            ("https://lims.example.org", "http://localhost:5173"),
        ),
        ("http://[::1]:80", ("http://[::1]",)),
        ("", ()),
    ],
)
def test_origins_are_read_as_browsers_write_them(text: str, origins: tuple[str, ...]) -> None:
    assert parse_origins(text) == origins


@pytest.mark.parametrize(
    "text",
    [
        "*",
        "null",
        "lims.example.org",
        "https://lims.example.org/",
        "https://*.example.org",
        "https://a@b",
        "file:///x",
        "https://a:x",
    ],
)
def test_what_is_no_origin_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_origins(text)

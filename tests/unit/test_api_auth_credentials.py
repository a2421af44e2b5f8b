"""Where a request may say who calls, and where it must not."""

from __future__ import annotations

from typing import Any

import pytest

from api.auth_credentials import (
    NoCredentials,
    UnusableCredentials,
    credentials,
    refuse_foreign_name,
    refuse_key_in_url,
)
from api.problems import Problem

KEY = f"snk_abcdefghij.{'s' * 43}"


def scope(*headers: tuple[str, str | bytes], query: bytes = b"", path: str = "/jobs") -> dict[str, Any]:
    values = [(n.encode(), v if isinstance(v, bytes) else v.encode("latin-1")) for n, v in headers]
    return {"type": "http", "headers": values, "query_string": query, "path": path}


@pytest.mark.parametrize(
    "header",
    [
        ("authorization", f"Bearer {KEY}"),
        ("authorization", f"bearer   {KEY}"),
        ("authorization", f"BEARER {KEY}"),
        ("x-api-key", KEY),
    ],
)
def test_a_key_is_taken_from_either_header(header: tuple[str, str]) -> None:
    assert credentials(scope(("host", "x"), header)) == KEY


def test_without_either_there_are_none() -> None:
    with pytest.raises(NoCredentials):
        credentials(scope(("cookie", f"key={KEY}"), ("proxy-authorization", f"Bearer {KEY}")))


@pytest.mark.parametrize(
    "header",
    [
        ("authorization", KEY),
        ("authorization", ""),
        ("authorization", "Bearer"),
        ("authorization", "Bearer "),
        ("authorization", f"Basic {KEY}"),
        ("authorization", f"Bearer {KEY} {KEY}"),
        ("authorization", f"Bearer {KEY}, Bearer {KEY}"),
        ("authorization", f"Bearer\t{KEY}"),
        ("authorization", b"Bearer \xff\xfe"),
        ("x-api-key", b"\xff"),
        ("x-api-key", "k" * 20_000),
    ],
)
def test_what_cannot_be_right_is_refused_without_being_repeated(header: tuple[str, str | bytes]) -> None:
    with pytest.raises(UnusableCredentials) as caught:
        credentials(scope(header))
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    "headers",
    [
        [("authorization", f"Bearer {KEY}"), ("x-api-key", KEY)],
        [("authorization", f"Bearer {KEY}"), ("authorization", f"Bearer {KEY}")],
        [("x-api-key", KEY), ("x-api-key", "other")],
    ],
)
def test_two_are_not_chosen_between(headers: list[tuple[str, str]]) -> None:
    with pytest.raises(Problem) as caught:
        credentials(scope(*headers))
    assert caught.value.kind.slug == "credentials-unclear"


@pytest.mark.parametrize(
    "query",
    [
        "access_token=x",
        "limit=5&api_key=x",
        "apikey=x",
        "API-KEY=x",
        "X-Api-Key=x",
        "token=x",
        f"q={KEY}",
        f"q={KEY.replace('.', '%2E')}",
        f"q=%73nk_abcdefghij.{'s' * 43}",
        f"{KEY}=1",
    ],
)
def test_a_key_in_the_address_is_refused(query: str) -> None:
    with pytest.raises(Problem) as caught:
        refuse_key_in_url(scope(query=query.encode()))
    assert caught.value.kind.slug == "key-in-url"
    assert "s" * 43 not in str(caught.value.document(""))


@pytest.mark.parametrize(
    "host",
    [
        "",
        "localhost",
        "localhost:8000",
        "LOCALHOST.:80",
        "127.0.0.1:8000",
        "[::1]:8000",
        "10.0.0.7",
        "lab",
        "a.localhost",
    ],
)
def test_this_machine_is_called_by_a_name_of_its_own(host: str) -> None:
    refuse_foreign_name(scope(("host", host)))


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.io."]
)
def test_a_public_name_that_leads_here_is_refused(host: str) -> None:
    with pytest.raises(Problem) as caught:
        refuse_foreign_name(scope(("host", host)))
    assert caught.value.kind.slug == "foreign-name"


def test_a_whole_key_where_its_prefix_belongs_is_refused_too() -> None:
    with pytest.raises(Problem):
        refuse_key_in_url(scope(path=f"/keys/{KEY}"))
    refuse_key_in_url(scope(path="/jobs/x/outputs/snk_genotypes1.txt"))


@pytest.mark.parametrize(
    "query",
    [
        "",
        "q=token",
        "label=token:x",
        "label=api_key%3Ax",
        "q=a%26token=3",
        "mytoken=3",
        "q=snk_abc",
        "q=snk_genotypes1.txt",
        "q=%ff%00",
    ],
)
def test_what_only_looks_a_little_like_one_is_no_matter(query: str) -> None:
    refuse_key_in_url(scope(query=query.encode()))

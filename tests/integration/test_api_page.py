"""How the page's files are served: under a strict policy, packed, and kept for as long as is right."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import httpx2
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.server import LiveServer


@pytest.fixture
def plain(server: LiveServer) -> Iterator[httpx2.Client]:
    """Not the client that knows the HTTP interface alone: the page is no part of that."""
    with httpx2.Client(
        base_url=server.url, trust_env=False, verify=False, headers={"Accept-Encoding": "identity"}
    ) as client:
        yield client


def script(client: httpx2.Client) -> str:
    found = re.search(r'src="(page/[0-9a-f]+/app\.js)"', client.get("/").text)
    assert found
    return f"/{found[1]}"


def test_the_page_runs_scripts_and_styles_of_its_own_files_alone(plain: httpx2.Client) -> None:
    answer = plain.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert policy["frame-ancestors"] == "'none'"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_page_is_asked_for_again_and_its_files_are_kept_for_ever(plain: httpx2.Client) -> None:
    first = plain.get("/")
    assert first.headers["cache-control"] == "no-cache"
    again = plain.get("/", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    file = plain.get(script(plain))
    assert file.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert file.headers["content-type"] == "text/javascript; charset=utf-8"
    assert plain.get(script(plain), headers={"If-None-Match": file.headers["etag"]}).status_code == 304


def test_a_page_of_an_earlier_release_gets_the_files_of_this_one_and_keeps_none(plain: httpx2.Client) -> None:
    file = plain.get("/page/0000000000000000/app.js")
    assert file.status_code == 200
    assert file.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(
    ("accepted", "is_packed"),
    [
        ("gzip, deflate, br", True),
        ("GZIP;q=0.5", True),
        ("gzip;q=0", False),
        ("identity", False),
        ("br", False),
    ],
)
def test_files_are_packed_for_those_who_take_that(
    plain: httpx2.Client, accepted: str, *, is_packed: bool
) -> None:
    file = plain.get(script(plain), headers={"Accept-Encoding": accepted})
    assert (file.headers.get("content-encoding") == "gzip") == is_packed
    assert file.headers["vary"] == "Accept-Encoding"
    assert file.text == plain.get(script(plain)).text


@pytest.mark.parametrize("path", ["/page/x/nothing.js", "/page/x/..%2fapp.py", "/page/x/index.html", "/page"])
def test_nothing_else_is_served(plain: httpx2.Client, path: str) -> None:
    answer = plain.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_head_answers_as_get_does(plain: httpx2.Client) -> None:
    assert plain.head("/").headers["content-length"] == plain.get("/").headers["content-length"]

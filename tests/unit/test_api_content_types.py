"""What a file is called: never anything that a browser runs, and never a header of its own making."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.content_types import attachment, content_type


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"plot.png", "image/png"),
        (b"a/b/PLOT.PNG", "image/png"),
        (b"log.txt", "text/plain; charset=utf-8"),
        (b"table.tsv", "text/tab-separated-values; charset=utf-8"),
        (b"data.json", "text/plain; charset=utf-8"),
        (b"paper.pdf", "application/pdf"),
        *[
            (name, "application/octet-stream")
            for name in (
                b"page.html", b"page.htm", b"page.xhtml", b"image.svg", b"doc.xml", b"style.css", b"run.js",
                b"png", b".png", b"a.png/x", b"a.png\n", b"a.txt.html", b"\xff.\xff", b"", b"a.", b"a.swf",
            )
        ],
    ],
)  # fmt: skip
def test_only_harmless_types_are_named(path: bytes, expected: str) -> None:
    assert content_type(path) == expected


def saved_as(path: bytes) -> str:
    """The name a client takes from the header: the extended one where there is one (RFC 6266)."""
    plain, _, extended = attachment(path).partition("; filename*=UTF-8''")
    return unquote(extended) if extended else plain.removeprefix('attachment; filename="').removesuffix('"')


@pytest.mark.parametrize(
    "name", ["report.txt", "a b.txt", "größe.csv", "漢字.png", "100%.txt", "'quoted'.txt"]
)
def test_a_file_is_saved_under_its_own_name(name: str) -> None:
    assert saved_as(f"folder/{name}".encode()) == name


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"a\r\nSet-Cookie: x", "a__Set-Cookie: x"),
        (b"a\0b", "a_b"),
        ("gpj.\u202eexe".encode(), "gpj._exe"),
        ("a\u2028b\u00a0c\x85".encode(), "a_b_c_"),
        (b"\xff.txt", "\ufffd.txt"),
    ],
)
def test_a_name_that_plays_tricks_is_saved_without_them(path: bytes, expected: str) -> None:
    assert saved_as(path) == expected


@given(st.binary(max_size=60))
def test_no_name_breaks_out_of_the_header(path: bytes) -> None:
    header = attachment(path)
    assert header.isascii()
    assert header.isprintable()
    plain, quoted, rest = header.removeprefix('attachment; filename="').partition('"')
    assert quoted
    assert "\\" not in plain
    assert rest == "" or unquote(rest.removeprefix("; filename*=UTF-8''")).isprintable()

"""The beginnings of files, as a page shows them: little is read and nothing is believed."""

from __future__ import annotations

import gzip
import os
from typing import TYPE_CHECKING, Any

import pytest

from api.previews import ImagePreview, preview
from api.problems import Problem
from runner.job_files import OpenedFile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Preview = Callable[[str, bytes], Any]


@pytest.fixture
def preview_of(tmp_path: Path) -> Preview:
    def preview_of(name: str, content: bytes) -> Any:
        path = tmp_path / name
        path.write_bytes(content)
        with OpenedFile.of(os.open(path, os.O_RDONLY)) as file:
            return preview(file, name.encode())

    return preview_of


@pytest.mark.parametrize(
    ("name", "content", "delimiter", "rows"),
    [
        ("a.csv", b"a,b\n1,2\n3,4\n", ",", [["1", "2"], ["3", "4"]]),
        ("a.csv", b"\xef\xbb\xbfa;b\n1,5;2\n", ";", [["1,5", "2"]]),
        ("a.CSV", b'a,b\r\n"x\r\ny","q ""z"""\r\n', ",", [["x\r\ny", 'q "z"']]),
        ("a.tsv", b"a\tb\n1,2\t\n", "\t", [["1,2", ""]]),
        ("a.csv", "a,b\nö,1\n".encode("latin-1"), ",", [["ö", "1"]]),
        ("a.csv", "a,b\n1,2\n".encode("utf-16"), ",", [["1", "2"]]),
        ("a.csv", b"a,b\n1\n1,2,3\n", ",", [["1"], ["1", "2", "3"]]),
    ],
)
def test_a_table_is_shown_as_rows(
    preview_of: Preview, name: str, content: bytes, delimiter: str, rows: list[list[str]]
) -> None:
    shown = preview_of(name, content)
    assert (shown["kind"], shown["delimiter"], shown["rows"], shown["is_whole"]) == (
        "table", delimiter, rows, True,
    )  # fmt: skip
    assert shown["header"] == ["a", "b"]


def test_of_a_large_table_the_beginning_is_shown(preview_of: Preview) -> None:
    wide = ",".join(["x" * 500] * 300)
    shown = preview_of("a.csv", "\n".join([wide] * 3).encode())
    assert (shown["columns"], len(shown["header"]), len(shown["header"][0])) == (300, 100, 200)
    assert shown["is_whole"] is False
    long = preview_of("a.tsv", b"".join(b"%d\t1\n" % n for n in range(50_000)))
    assert (len(long["rows"]), long["rows"][-1], long["is_whole"]) == (100, ["100", "1"], False)


def test_what_makes_no_table_is_shown_as_text(preview_of: Preview) -> None:
    assert preview_of("a.csv", b'"' + b"x" * 200_000)["kind"] == "text"
    assert preview_of("a.csv", b"")["kind"] == "text"


def test_what_is_packed_is_shown_as_what_is_in_it(preview_of: Preview) -> None:
    table = b"a\tb\n1\t2\n"
    # As bgzip packs: many members, and an empty one at the end.
    packed = gzip.compress(table[:5]) + gzip.compress(table[5:]) + gzip.compress(b"")
    shown = preview_of("a.tsv.gz", packed)
    assert (shown["kind"], shown["rows"], shown["is_whole"]) == ("table", [["1", "2"]], True)
    assert shown["size"] == len(packed)
    text = preview_of("reads.fastq.gz", gzip.compress(b"@read\nACGT\n+\nFFFF\n" * 100_000))
    assert (text["first"][:2], len(text["first"]), text["is_whole"]) == (["@read", "ACGT"], 200, False)
    for broken in (gzip.compress(b"whole\n" * 9)[:-9], gzip.compress(b"whole\n" * 9) + b"something else"):
        cut = preview_of("a.txt.gz", broken)
        assert (cut["first"][0], cut["is_whole"]) == ("whole", False)
    # Of what unpacks to nothing for ever, and to very much, only so much is looked at.
    bomb = gzip.compress(b"x" * 10_000_000)
    assert len(preview_of("a.gz", bomb)["first"][0]) == 2000
    for nothing in (
        gzip.compress(b"") * 200_000,
        gzip.compress(b"BAM\1"),
        gzip.compress(b"\x89PNG\r\n\x1a\n"),
    ):
        with pytest.raises(Problem) as caught:
            preview_of("a.png.gz", nothing)
        assert caught.value.kind.slug == "no-preview"


def test_a_text_is_shown_by_its_first_and_last_lines(preview_of: Preview) -> None:
    assert preview_of("a.txt", b"one\r\ntwo \x1b[1m<b>\n") == {
        "kind": "text", "size": 17, "encoding": "utf-8",
        "first": ["one", "two \x1b[1m<b>"], "last": [], "is_whole": True,
    }  # fmt: skip
    shown = preview_of("a.log", b"".join(b"line %d\n" % n for n in range(240)))
    assert (len(shown["first"]), shown["last"][0], shown["is_whole"]) == (200, "line 200", True)
    shown = preview_of("a.log", b"".join(b"line %d\n" % n for n in range(100_000)))
    assert shown["first"][-1] == "line 199"
    assert shown["last"] == [f"line {n}" for n in range(99_950, 100_000)]
    assert shown["is_whole"] is False


@pytest.mark.parametrize(
    "content", ["ä".encode() * 40_000, b"x" * 200_000, "ä\n".encode("latin-1") * 70_000, b"\n" * 200_000]
)
def test_little_is_shown_of_whatever_text(preview_of: Preview, content: bytes) -> None:
    shown = preview_of("a", content)
    assert shown["is_whole"] is False
    assert len(shown["first"]) <= 200
    assert len(shown["last"]) <= 50
    assert all(len(line) <= 2000 and "\ufffd" not in line for line in shown["first"])


@pytest.mark.parametrize(
    ("name", "content", "media_type"),
    [
        ("a", b"\x89PNG\r\n\x1a\n", "image/png"),
        ("a.html", b"\xff\xd8\xff\xe0", "image/jpeg"),
        ("a.gif", b"GIF89a", "image/gif"),
        ("a.webp", b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"),
        ("a.svg", b"<?xml version='1.0'?><svg onload='x()'/>", "image/svg+xml"),
    ],
)
def test_an_image_is_told_by_what_it_is(
    preview_of: Preview, name: str, content: bytes, media_type: str
) -> None:
    assert preview_of(name, content) == ImagePreview(media_type)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.png", b"\0\1\2"), ("a.svg", b"\0"), ("a.bam", b"BAM\1"), ("a.gz", b"\x1f\x8b\x08")],
)
def test_of_anything_else_there_is_none(preview_of: Preview, name: str, content: bytes) -> None:
    with pytest.raises(Problem) as caught:
        preview_of(name, content)
    assert caught.value.kind.slug == "no-preview"


@pytest.mark.parametrize(
    ("name", "content"), [("a.svg", b"plain"), ("a.html", b"<script>"), ("a.png", b"hi")]
)
def test_markup_is_shown_as_its_text(preview_of: Preview, name: str, content: bytes) -> None:
    assert preview_of(name, content)["first"] == [content.decode()]

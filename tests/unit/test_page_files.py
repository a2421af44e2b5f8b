"""The page's own promises about its files: small, whole, from here alone, and never markup from outside."""

from __future__ import annotations

import gzip
import re
from typing import TYPE_CHECKING

import pytest

from api.page_files import page_folder, read_page

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = page_folder()
SCRIPTS = sorted(FOLDER.glob("*.js"))
# Every way by which a browser makes markup, a script or a style sheet of a text.
MARKUP = re.compile(
    r"\b(innerHTML|outerHTML|insertAdjacentHTML|setHTML\w*|createContextualFragment|DOMParser|parseFromString"
    r"|document\.write\w*|eval|new Function|cssText|javascript:|responseXML)\b"
)
MOST_BYTES = 100_000


def test_all_of_it_together_is_small() -> None:
    page = read_page(FOLDER)
    assert sum(len(file.packed) for file in [page.index, *page.files.values()]) < MOST_BYTES
    assert all(gzip.decompress(file.packed) == file.content for file in page.files.values())


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_no_script_makes_markup_of_a_text(script: Path) -> None:
    assert MARKUP.findall(script.read_text()) == []


@pytest.mark.parametrize(
    "line",
    [
        "node.innerHTML = name",
        "x.insertAdjacentHTML('a', b)",
        "new DOMParser()",
        "eval(text)",
        "a.style.cssText = b",
    ],
)
def test_what_makes_markup_of_a_text_would_be_found(line: str) -> None:
    assert MARKUP.findall(line)


@pytest.mark.parametrize("path", sorted(FOLDER.iterdir()), ids=lambda path: path.name)
def test_nothing_comes_from_anywhere_else(path: Path) -> None:
    addresses = re.findall(r"https?://[^\s\"'`)]+|(?<!c)url\((?!#)[^)]*\)|@import", path.read_text())
    assert set(addresses) <= {"http://www.w3.org/2000/svg"}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_import_names_a_file_and_what_it_exports(script: Path) -> None:
    text = script.read_text()
    for names, source in re.findall(r"^import \{([^}]*)\} from \"\./([\w.]+)\";", text, re.MULTILINE):
        exports = set(
            re.findall(
                r"^export (?:async )?(?:function|const|class|let) (\w+)",
                (FOLDER / source).read_text(),
                re.MULTILINE,
            )
        )
        wanted = {name.split(" as ")[0].strip() for name in names.split(",")}
        assert wanted <= exports, f"{script.name} imports {wanted - exports} from {source}"
        body = re.sub(r"^import .*$", "", text, flags=re.MULTILINE)
        called = {name.split(" as ")[-1].strip() for name in names.split(",")}
        assert {name for name in called if not re.search(rf"\b{name}\b", body)} == set(), (
            "imported for nothing"
        )
    for source in re.findall(r"import\(\"\./([\w.]+)\"\)", text):
        assert (FOLDER / source).is_file()


def test_the_first_page_holds_no_script_and_no_style_of_its_own() -> None:
    text = (FOLDER / "index.html").read_text()
    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", text) == []


def test_the_digest_is_another_one_when_any_file_is(tmp_path: Path) -> None:
    for path in FOLDER.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    before = read_page(tmp_path)
    with (tmp_path / "style.css").open("ab") as style:
        style.write(b"\n")
    after = read_page(tmp_path)
    assert before.digest != after.digest
    assert f"page/{after.digest}/app.js".encode() in after.index.content

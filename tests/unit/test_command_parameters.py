"""Parameters as they are typed: what is a number, and what stays the text that it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakeline.commands.parameters import NotUnderstood, from_files, pairs, texts, value_of

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("-3", -3),
        ("0", 0),
        ("0.25", 0.25),
        ("true", True),
        ("null", None),
        ("007", "007"),
        ("1e3", "1e3"),
        ("1.50", "1.50"),
        ("+5", "+5"),
        ("-0", "-0"),
        (".5", ".5"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("٣", "٣"),
        ("NaN", "NaN"),
        ("no", "no"),
        ("True", "True"),
        ("2026-01-31", "2026-01-31"),
        ("", ""),
        (" 7", " 7"),
        ('"7"', "7"),
        ('["a", 1e3]', ["a", 1000.0]),
        ('{"a": {"b": false}}', {"a": {"b": False}}),
    ],
)
def test_only_what_would_be_written_just_so_again_is_a_number(text: str, value: Any) -> None:
    found = value_of(text)
    assert found == value
    assert type(found) is type(value)


@given(
    st.text(st.characters(codec="utf-8"), max_size=8)
    | st.from_regex(r"-?[0-9]{1,6}(\.[0-9]{0,4})?", fullmatch=True)
)
def test_no_text_loses_a_character(text: str) -> None:
    if text[:1] in ("{", "[", '"'):
        return
    found = value_of(text)
    assert (
        {True: "true", False: "false", None: "null"}.get(found, str(found)) == text
        if isinstance(found, bool | None)
        else str(found) == text
    )


def test_a_pair_is_split_at_its_first_equals_sign_and_takes_json_behind_a_colon() -> None:
    assert pairs(["a=b=c", "n:=1e3", 't:="7"', "e="], what="-p") == {
        "a": "b=c",
        "n": 1000.0,
        "t": "7",
        "e": "",
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["alone"], "'alone' is neither key=value nor key:=JSON"),
        (["=1"], "neither"),
        (["a=1", "a=2"], "'a' is given twice"),
        (["a:=007"], "a: '007' is no JSON"),
        (["a={"], "a: '{' is no JSON"),
        (["a=[NaN]"], "NaN is no number of JSON"),
    ],
)
def test_what_cannot_be_meant_is_said(arguments: list[str], said: str) -> None:
    with pytest.raises(NotUnderstood, match=r"^-p: ") as refused:
        pairs(arguments, what="-p")
    assert said in str(refused.value)


def test_a_label_is_text_whatever_it_looks_like() -> None:
    assert texts(["run=007", "n=1"], what="-l") == {"run": "007", "n": "1"}
    with pytest.raises(NotUnderstood, match="is not key=value"):
        texts(["run"], what="-l")


def test_files_are_read_as_snakemake_reads_its_own_and_add_up(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.json"
    first.write_text("samples: {a: 1, b: 2}\nid: 007x\nratio: 1e3\nflag: yes\n")
    second.write_text('{"samples": {"b": 3}, "id": "x"}')
    found = from_files([str(first), str(second)])
    # YAML 1.1, as everywhere around Snakemake: 1e3 is a text in it, and yes is true.
    assert found == {"samples": {"a": 1, "b": 3}, "id": "x", "ratio": "1e3", "flag": True}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.yaml", "- 1\n", "holds no keys with values"),
        ("a.yaml", "a: [\n", "node content"),
        ("a.yaml", "day: 2026-01-31\n", "dates need quotes"),
        ("a.yaml", "a: .nan\n", "no form in JSON"),
        ("a.yaml", "a: !!python/object/apply:os.getcwd []\n", "could not determine a constructor"),
        ("a.json", "{", "is no JSON"),
        ("a.json", "a: 1", "is no JSON"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(NotUnderstood, match=name) as refused:
        from_files([str(tmp_path / name)])
    assert said in str(refused.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotUnderstood, match=r"missing\.yaml: No such file"):
        from_files([str(tmp_path / "missing.yaml")])

"""A submission's JSON: what is taken, and what is refused with a pointer to it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.problems import Problem
from api.request_body import MAX_DEPTH, parse_model
from api.schemas import SubmitJob
from runner.jobs import CORES_NOT_NAMED, JobSpec


def pointers(body: bytes) -> list[str]:
    with pytest.raises(Problem) as caught:
        parse_model(body, SubmitJob)
    assert caught.value.kind.status == 422
    return [error["pointer"] for error in caught.value.errors]


def test_an_empty_object_is_the_demo_with_every_default() -> None:
    assert parse_model(b"{}", SubmitJob).spec() == JobSpec(cores=CORES_NOT_NAMED)


def test_every_field_reaches_the_spec() -> None:
    body = {
        "workflow": "w",
        "parameters": {"a": [1, 2.5, None, True, {"b": "ü\U0001f40d"}]},
        "targets": ["x/y.txt"],
        "options": {"keep_going": True},
        "cores": 3,
        "name": "n",
        "labels": {"k": "v"},
        "priority": -5,
        "timeout_s": 9,
        "max_retries": 2,
    }
    spec = parse_model(json.dumps(body).encode(), SubmitJob).spec()
    assert spec == JobSpec(**{**body, "targets": ("x/y.txt",)})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("workflow", ""),
        ("workflow", None),
        ("parameters", []),
        ("parameters", None),
        ("targets", "all"),
        ("targets", ["x"] * 1001),
        ("options", 1),
        ("cores", 0),
        ("cores", "1"),
        ("cores", True),
        ("cores", 1.5),
        ("cores", 10**30),
        ("name", ""),
        ("name", "x" * 201),
        ("name", "two\nlines"),
        ("name", "\x1b[31mred"),
        ("name", 7),
        ("labels", {f"k{i}": "v" for i in range(65)}),
        ("priority", 1001),
        ("priority", 0.5),
        ("timeout_s", 0),
        ("timeout_s", -1),
        ("timeout_s", "60"),
        ("timeout_s", 1e18),
        ("max_retries", 101),
        ("max_retries", -1),
        ("nmae", "x"),
        ("id", "x"),
    ],
)
def test_a_wrong_field_is_named(field: str, value: Any) -> None:
    assert pointers(json.dumps({field: value}).encode()) == [f"/{field}"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"targets": ["ok", ""]}, "/targets/1"),
        ({"targets": ["ok", 1]}, "/targets/1"),
        ({"labels": {"k": 1}}, "/labels/k"),
        ({"labels": {"k": "x" * 257}}, "/labels/k"),
        ({"labels": {"a:b": "x"}}, "/labels/a:b"),
        ({"labels": {"-a/b": "x"}}, "/labels/-a~1b"),
        ({"labels": {"x" * 64: "x"}}, "/labels/" + "x" * 64),
        ({"parameters": {"a": ["b", "c\0d"]}}, "/parameters/a/1"),
        ({"parameters": {"a": {"b\0": 1}}}, "/parameters/a"),
        ({"parameters": {"a": 10**400}}, "/parameters/a"),
        ([], ""),
        ("x", ""),
        (None, ""),
    ],
)
def test_the_pointer_leads_to_the_place(body: Any, pointer: str) -> None:
    assert pointers(json.dumps(body).encode()) == [pointer]


def test_several_mistakes_are_all_named() -> None:
    assert set(pointers(b'{"cores": 0, "priority": "x", "nope": 1}')) == {"/cores", "/priority", "/nope"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{}x",
        b"{} {}",
        b"{'a': 1}",
        b'{"a": 01}',
        b'{"parameters": {"a": NaN}}',
        b'{"parameters": {"a": Infinity}}',
        b'{"parameters": {"a": "\\ud800"}}',
        b'{"name": "\xff"}',
        b"\xef\xbb\xbf{}",
        b'{"parameters": {"a":' + b"[" * 100_000,
        b'{"parameters": {"a":' + b"9" * 10_000 + b"}}",
    ],
)
def test_what_is_not_strict_json_is_400(body: bytes) -> None:
    with pytest.raises(Problem) as caught:
        parse_model(body, SubmitJob)
    assert caught.value.kind.status == 400


@pytest.mark.parametrize("value", [b"1e999", b"-1e999"])
def test_a_number_beyond_a_double_is_refused(value: bytes) -> None:
    assert pointers(b'{"parameters": {"a": %b}}' % value) == ["/parameters/a"]


def test_nesting_is_bounded() -> None:
    def nested(levels: int) -> bytes:
        return b'{"parameters": {"a": %b%b}}' % (b"[" * levels, b"]" * levels)

    parse_model(nested(MAX_DEPTH - 2), SubmitJob)
    assert len(pointers(nested(MAX_DEPTH))) == 1


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=64) | st.text(max_size=64).map(str.encode))
def test_no_body_does_anything_but_parse_or_be_refused(body: bytes) -> None:
    try:
        parse_model(body, SubmitJob)
    except Problem as problem:
        assert problem.kind.status in (400, 422)  # noqa: PT017


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(SubmitJob.model_fields)), _JSON, max_size=4))
def test_no_value_of_a_field_does_anything_but_parse_or_be_refused(body: dict[str, Any]) -> None:
    try:
        parse_model(json.dumps(body).encode("utf-8", "surrogatepass"), SubmitJob)
    except Problem as problem:
        assert problem.kind.status in (400, 422)  # noqa: PT017

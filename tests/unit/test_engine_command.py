"""What may get onto the engine's command line and into its environment."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.engines import command
from runner.engines.offer import Offer
from runner.jobs import JobSpec

OFFER = Offer()


@pytest.mark.parametrize("target", ["a", "results/a_b.txt", "x-1.2/~y=+@:z", "_", "9", "a" * 1024])
def test_plain_targets_are_allowed(target: str) -> None:
    assert command.validate(JobSpec(targets=(target,)), OFFER) == []


@pytest.mark.parametrize(
    "target",
    [
        *(
            "",
            "-n",
            "--snakefile=x",
            "/etc/passwd",
            ".hidden",
            "a/../b",
            "..",
            "a/..",
            "a b",
            "a;b",
            "a$(b)",
            "a`b`",
        ),
        *("a\n", "a\nb", "a\0", "a'b", 'a"b', "a*b", "a|b", "a&b", "a>b", "a,b", "ä", "a\\b", "a" * 1025),
    ],
)
def test_anything_that_a_shell_or_an_option_parser_could_take_up_is_refused(target: str) -> None:
    (error,) = command.validate(JobSpec(targets=("ok", target)), OFFER)
    assert error.pointer == "/targets/1"


@given(st.text(max_size=8))
def test_no_allowed_target_holds_a_character_with_a_meaning_to_a_shell(target: str) -> None:
    if not command.validate(JobSpec(targets=(target,)), OFFER):
        assert not set(target) & set(" \t\n\r;&|<>()$`\\\"'*?[]#!{},\0")
        assert not target.startswith("-")


@pytest.mark.parametrize("key", ["-x", "--snakefile", "", "a\nb", "a\0", "\ud800", "a=b", "k" * 129])
def test_a_key_that_is_no_name_is_refused(key: str) -> None:
    (error,) = command.validate(JobSpec(parameters={key: 1}), OFFER)
    assert error.pointer.startswith("/parameters/")
    error.pointer.encode()


def test_values_that_no_file_or_program_could_take_are_refused() -> None:
    parameters: dict[str, Any] = {"a": ["x", "\0"], "b": {"c": "\ud800"}, "d": float("inf")}
    assert [error.pointer for error in command.validate(JobSpec(parameters=parameters), OFFER)] == [
        *("/parameters/a/1", "/parameters/b/c", "/parameters/d"),
    ]


def test_deep_nesting_is_refused_without_going_down_all_the_way() -> None:
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    (error,) = command.validate(JobSpec(parameters={"a": deep}), OFFER)
    assert "levels deep" in error.detail


def test_the_number_of_errors_is_bounded() -> None:
    assert len(command.validate(JobSpec(targets=("-",) * 1000), OFFER)) == 20


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(max_size=5), json_values, max_size=4))
def test_every_allowed_parameter_reaches_the_configuration_as_it_was(parameters: dict[str, Any]) -> None:
    spec = JobSpec(parameters=parameters)
    if not command.validate(spec, OFFER):
        assert json.loads(command.config(spec)) == parameters

"""The one table from meaning to status."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

import pytest

import api
import runner
from api.problems import KINDS, json_pointer, problem_of
from runner.errors import EngineUnavailable, QueueFull, RunnerError

if TYPE_CHECKING:
    from collections.abc import Iterator


def below(kind: type[RunnerError]) -> Iterator[type[RunnerError]]:
    for child in kind.__subclasses__():
        yield child
        yield from below(child)


def test_every_error_of_the_runner_has_a_row_of_its_own() -> None:
    for module in pkgutil.walk_packages(runner.__path__, "runner."):
        # Not those that are programs, or run once by a tool.
        if not module.name.startswith("runner.stores.sql.migrations"):
            importlib.import_module(module.name)
    assert {kind for kind in below(RunnerError) if kind.__module__.startswith("runner.")} == set(KINDS)


def test_no_error_is_made_once_and_raised_again_and_again() -> None:
    """Each time it would hold on to one more request: tracebacks grow with every raise."""
    shared = []
    for module in pkgutil.walk_packages(api.__path__, "api."):
        values = vars(importlib.import_module(module.name))
        shared += [f"{module.name}.{name}" for name, value in values.items() if isinstance(value, Exception)]
    assert shared == []


def test_every_overload_says_when_to_try_again() -> None:
    assert problem_of(QueueFull(7)).headers == {"Retry-After": "5"}
    assert problem_of(EngineUnavailable("no engine")).headers == {"Retry-After": "5"}


def test_every_slug_is_stable_text_and_used_once() -> None:
    slugs = [kind.slug for kind in KINDS.values()]
    assert len(set(slugs)) == len(slugs)
    assert all(slug.replace("-", "").isalpha() and slug.islower() for slug in slugs)


def test_every_status_is_an_error() -> None:
    assert all(400 <= kind.status < 600 for kind in KINDS.values())


@pytest.mark.parametrize(
    ("location", "pointer"),
    [((), ""), (("a", 0), "/a/0"), (("a/b", "~"), "/a~1b/~0"), (("labels", "k", "[key]"), "/labels/k")],
)
def test_a_location_becomes_a_json_pointer(location: tuple[str | int, ...], pointer: str) -> None:
    assert json_pointer(location) == pointer

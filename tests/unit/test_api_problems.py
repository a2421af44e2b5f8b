"""The one table from meaning to status."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from api.problems import KINDS, json_pointer
from runner.errors import RunnerError

if TYPE_CHECKING:
    from collections.abc import Iterator


def below(kind: type[RunnerError]) -> Iterator[type[RunnerError]]:
    for child in kind.__subclasses__():
        yield child
        yield from below(child)


def test_every_error_of_the_runner_has_a_row_of_its_own() -> None:
    assert set(below(RunnerError)) == set(KINDS)


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

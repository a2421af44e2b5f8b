"""The list of guards, `guards.toml`: what holds each promise up, and the tests that miss it."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIST = Path(__file__).with_name("guards.toml")
_LIMIT_S = 90.0


@dataclass(frozen=True)
class Edit:
    """One change of a source file: the text `find`, which stands there exactly once, becomes `put`."""

    file: str
    find: str
    put: str


@dataclass(frozen=True)
class Guard:
    """`edits` remove it; `tests` are run then, in this order, for at most `limit_s` seconds in all."""

    id: str
    promise: str
    what: str
    why: str
    edits: tuple[Edit, ...]
    tests: tuple[str, ...]
    limit_s: float


@dataclass(frozen=True)
class Exemption:
    """A line that looks like a guard and is none, with the reason."""

    file: str
    text: str
    why: str


class StaleGuard(Exception):
    """The source has moved on: the text of a guard is not there exactly once."""


def guards() -> tuple[Guard, ...]:
    return tuple(_guard(raw) for raw in tomllib.loads(LIST.read_text())["guard"])


def exemptions() -> tuple[Exemption, ...]:
    return tuple(Exemption(**raw) for raw in tomllib.loads(LIST.read_text()).get("exempt", []))


def _guard(raw: dict[str, object]) -> Guard:
    edits = raw.pop("edits", None)
    if edits is None:
        edits = [{"find": raw.pop("find"), "put": raw.pop("put")}]
    file = raw.pop("file")
    assert isinstance(edits, list)
    fields: dict[str, object] = {"limit_s": _LIMIT_S, **raw}
    return Guard(
        edits=tuple(Edit(**{"file": file, **edit}) for edit in edits),
        tests=tuple(fields.pop("tests")),  # type: ignore[arg-type]
        **fields,  # type: ignore[arg-type]
    )


def mutated(guard: Guard, root: Path) -> dict[str, str]:
    """The files of `root` without the guard: their new texts by name. Raises StaleGuard."""
    texts: dict[str, str] = {}
    for edit in guard.edits:
        text = texts.get(edit.file) or (root / edit.file).read_text()
        if (times := text.count(edit.find)) != 1:
            raise StaleGuard(f"{guard.id}: {edit.file} holds its text {times} times:\n{edit.find}")
        texts[edit.file] = text.replace(edit.find, edit.put)
    return texts


def span(edit: Edit, root: Path) -> range:
    """The lines, counted from 1, that the edit's text takes up; none where it is not there."""
    before, found, _ = (root / edit.file).read_text().partition(edit.find)
    if not found:
        return range(0)
    first = before.count("\n") + 1
    return range(first, first + edit.find.rstrip("\n").count("\n") + 1)

"""An entity of an RO-Crate, and how entities name each other: flattened JSON-LD."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

Entity = dict[str, Any]


def entity(id_: str, type_: str | list[str], **properties: Any) -> Entity:
    """Without what is None or empty."""
    given = {name: value for name, value in properties.items() if value is not None and value != []}
    return {"@id": id_, "@type": type_, **given}


def ref(id_: str) -> Entity:
    return {"@id": id_}


def refs(ids: Iterable[str]) -> list[Entity] | Entity:
    """One alone is no list: so RO-Crate has it."""
    named = [ref(each) for each in ids]
    return named[0] if len(named) == 1 else named

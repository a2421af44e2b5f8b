"""The ids of events in streams: the store's numbers, told so that nobody learns how much others do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel

from api.problems import Problem

if TYPE_CHECKING:
    from api.paging import Cursors

_MOST_DIGITS = 18


class _Stream(BaseModel):
    """What keeps these ids apart from cursors of lists, which are made in the same way."""

    stream: Literal["events"] = "events"


_STREAM = _Stream()


class EventIds:
    """For who sees every tenant the numbers as they are; for others opaque, in the manner of list cursors."""

    def __init__(self, cursors: Cursors, visible_tenant: str | None) -> None:
        self._cursors = cursors
        self._is_plain = visible_tenant is None

    def told(self, seq: int) -> str:
        return str(seq) if self._is_plain else self._cursors.encode(seq, _STREAM)

    def seq(self, text: str) -> int:
        """Raises ValueError for what cannot be an id of this caller's streams."""
        if self._is_plain:
            if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS):
                raise ValueError
            return int(text)
        try:
            return self._cursors.decode(text, _STREAM)
        except Problem:
            raise ValueError from None

"""Reads Server-Sent Events as a browser does (WHATWG HTML, section 9.2.6)."""

from __future__ import annotations

import re
from typing import NamedTuple


class Event(NamedTuple):
    event: str
    data: str
    id: str


def read_events(stream: bytes) -> list[Event]:
    """Every complete event; one that the stream breaks off in is dropped, as the standard says."""
    events: list[Event] = []
    kind, last_id = "", ""
    data: list[str] = []
    for line in re.split("\r\n|\r|\n", stream.decode()):
        if not line:
            if data:
                events.append(Event(kind or "message", "\n".join(data), last_id))
            kind, data = "", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            kind = value
        elif field == "data":
            data.append(value)
        elif field == "id" and "\0" not in value:
            last_id = value
    return events

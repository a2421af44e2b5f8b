"""Which bytes of a log a request is about: ranges (RFC 9110, section 14) over a stream with a gap."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runner.log_store import Gap

_SINGLE = re.compile(r"bytes=[ \t]*(\d{0,19})-(\d{0,19})[ \t]*", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes `[start, end)` of the stream."""

    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start


class Unsatisfiable(Exception):
    """The log holds no byte of the range."""


def parse_range(header: str | None, size: int, gap: Gap | None) -> Span | None:
    """The kept bytes a `Range` header asks for; None when it is to be ignored.

    Ignored, as the RFC allows: several ranges, other units, anything malformed. A range that begins in the
    gap begins behind it, one that runs into it ends before it. Raises Unsatisfiable.
    """
    match = _SINGLE.fullmatch(header) if header else None
    if match is None:
        return None
    first, last = match.groups()
    if first:
        start, end = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < start:
            return None
    elif last:
        start, end = max(0, size - int(last)), size
    else:
        return None
    span = kept(Span(start, end), gap)
    if len(span) <= 0:
        raise Unsatisfiable
    return span


def kept(span: Span, gap: Gap | None) -> Span:
    """The first part of `span` that the log still holds in one piece; empty when there is none."""
    if gap is None:
        return Span(span.start, max(span.start, span.end))
    start, end = span.start, span.end
    if gap.start <= start < gap.end:
        start = gap.end
    elif start < gap.start:
        end = min(end, gap.start)
    return Span(start, max(start, end))

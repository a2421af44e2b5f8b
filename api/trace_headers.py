"""When the request being answered came, and where in its caller's trace it was made (W3C Trace Context)."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.trace_context import TraceContext

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class Arrival:
    at: datetime | None = None
    trace: TraceContext | None = None


_NEVER = Arrival()

# Set by api.request_id for the request being answered.
arrival: ContextVar[Arrival] = ContextVar("arrival", default=_NEVER)


def trace_of(headers: Sequence[tuple[bytes, bytes]]) -> TraceContext | None:
    """What `traceparent` and `tracestate` say; None for a request without, or with what cannot be used."""
    parents = [value for name, value in headers if name == b"traceparent"]
    if len(parents) != 1:
        return None
    states = [value.decode("latin-1") for name, value in headers if name == b"tracestate"]
    return TraceContext.parse(parents[0].decode("latin-1").strip(" \t"), ",".join(states))

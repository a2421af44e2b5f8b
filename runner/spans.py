"""Spans, the pieces of a trace: values, and the interface to where they are sent."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from runner.trace_context import TraceContext


@dataclass(frozen=True, slots=True)
class Span:
    """One thing that took its time. `error` says that it failed, and why in a word.

    `context` is its own place in the trace. `is_entry`: its parent, if it has one, belongs to another
    service.
    """

    name: str
    context: TraceContext
    parent_id: str | None
    started_at: datetime
    ended_at: datetime
    attributes: Mapping[str, str | int] = field(default_factory=dict)
    error: str | None = None
    is_entry: bool = False


class Sending(Enum):
    DONE = "done"
    FAILED = "failed"  # it may work later
    REFUSED = "refused"  # these spans will never be taken


class SpanExporter(Protocol):
    """Where spans go. `is_sampled` is for any thread; everything else belongs to one."""

    def is_sampled(self, trace_id: str, caller: TraceContext | None, name: str) -> bool:
        """Whether a trace that begins here, or that the caller has begun, is to be told. Takes no time."""

    def send(self, spans: Sequence[Span]) -> Sending:
        """Returns once the receiver has them, or it is plain that it does not; within its own timeout."""

    @property
    def trouble(self) -> str | None:
        """What was wrong with the last `send`, for people."""

    def close(self) -> None:
        """What is being sent is given up; safe from any thread and to repeat."""

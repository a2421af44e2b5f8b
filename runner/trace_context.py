"""Where in a trace something happens, in the form of W3C Trace Context (https://www.w3.org/TR/trace-context/)."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

_PARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_KEY: Final = r"(?:[a-z][_0-9a-z\-*/]{0,255}|[a-z0-9][_0-9a-z\-*/]{0,240}@[a-z][_0-9a-z\-*/]{0,13})"
_MEMBER: Final = re.compile(_KEY + r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")
_MOST_MEMBERS: Final = 32
_MOST_STATE: Final = 512
_LONGEST_PARENT: Final = 256
SAMPLED: Final = 1
_RANDOM: Final = 2
_KNOWN_FLAGS: Final = SAMPLED | _RANDOM

RUN: Final = "run"
"""The span of the engine's run: the parent of whatever a job tells itself."""


@dataclass(frozen=True, slots=True)
class TraceContext:
    """The span `span_id` of the trace `trace_id`, both in hexadecimal digits; `state` is its tracestate."""

    trace_id: str
    span_id: str
    flags: int = 0
    state: str = ""

    @classmethod
    def parse(cls, traceparent: str, tracestate: str = "") -> TraceContext | None:
        """What these headers say; None where the first cannot be used. A bad tracestate is left out."""
        if len(traceparent) > _LONGEST_PARENT or (found := _PARENT.fullmatch(traceparent)) is None:
            return None
        form, trace_id, span_id, flags, more = found.groups()
        if form == "ff" or (form == "00" and more) or not int(trace_id, 16) or not int(span_id, 16):
            return None
        return cls(trace_id, span_id, int(flags, 16) & _KNOWN_FLAGS, _state(tracestate))

    @property
    def is_sampled(self) -> bool:
        return bool(self.flags & SAMPLED)

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which a program is told of it."""
        told = {"TRACEPARENT": f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"}
        return {**told, "TRACESTATE": self.state} if self.state else told


def _state(text: str) -> str:
    members = [member for each in text.split(",") if (member := each.strip(" \t"))]
    if len(members) > _MOST_MEMBERS or not all(map(_MEMBER.fullmatch, members)):
        return ""
    joined = ",".join(members)
    return joined if len(joined) <= _MOST_STATE else ""


@dataclass(frozen=True, slots=True)
class JobTrace:
    """The trace a job belongs to, kept with it so that it outlives the service.

    `parent_id` is the caller's span, if it named one. `asked_at` is when the request came; without it no
    spans are told of the job, and the caller's context is only handed on.
    """

    trace_id: str
    parent_id: str | None
    flags: int
    state: str = ""
    asked_at: datetime | None = None

    @classmethod
    def handed_on(cls, context: TraceContext) -> JobTrace:
        """A trace that this service tells nothing of."""
        return cls(context.trace_id, context.span_id, context.flags, context.state)

    @classmethod
    def begun(
        cls, job_id: str, context: TraceContext | None, *, is_sampled: bool, asked_at: datetime
    ) -> JobTrace:
        """The caller's trace, or one of the job's own: a UUIDv7 is random where it has to be."""
        sampled = SAMPLED if is_sampled else 0
        if context is None:
            return cls(trace_id_of(job_id), None, _RANDOM | sampled, "", asked_at)
        flags = (context.flags & _RANDOM) | sampled
        return cls(context.trace_id, context.span_id, flags, context.state, asked_at)

    @property
    def is_told(self) -> bool:
        return self.asked_at is not None and bool(self.flags & SAMPLED)

    def context(self, job_id: str, attempt: int) -> TraceContext | None:
        """What the attempt's engine is told; None where there is no span to name."""
        span_id = self.parent_id if self.asked_at is None else span_id_of(job_id, attempt, RUN)
        return None if span_id is None else TraceContext(self.trace_id, span_id, self.flags, self.state)


def trace_id_of(job_id: str) -> str:
    """The trace of a job whose caller named none."""
    return job_id.replace("-", "")


def span_id_of(job_id: str, attempt: int, name: str) -> str:
    """Of one span of one attempt: always the same, so that nothing but the job has to be kept."""
    digest = hashlib.blake2b(f"{job_id}/{attempt}/{name}".encode(), digest_size=8).hexdigest()
    return digest if int(digest, 16) else "1".rjust(16, "0")


def environment_of(trace: JobTrace | None, job_id: str, attempt: int) -> Mapping[str, str]:
    context = None if trace is None else trace.context(job_id, attempt)
    return {} if context is None else context.environment

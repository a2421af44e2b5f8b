"""Sends spans by OTLP over HTTP; the one module that knows OpenTelemetry, which is an extra.

Where spans go, with which headers, who this service says it is and which traces are told at all comes from
the usual OTEL_ variables, which the SDK reads itself. No provider is made global: nothing else is traced.
"""

from __future__ import annotations

import logging
import re
from contextlib import contextmanager
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    NonRecordingSpan,
    NoOpTracer,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from runner.spans import Sending

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from runner.spans import Span
    from runner.trace_context import TraceContext

_NAME: Final = "snakeline"
_UNKNOWN: Final = "unknown_service"
_FOR_EVER: Final = frozenset({400, 413})  # the same spans would be answered the same
_LIBRARY: Final = "opentelemetry"
_VALUE: Final = re.compile(r"%[-#0 +.\d]*[a-zA-Z]")
_ADDRESS: Final = re.compile(r"(https?://|url: )\S+")


class OtlpExporter:
    """A `SpanExporter`; `is_disabled` where OTEL_SDK_DISABLED says that nothing is to be told."""

    def __init__(self, version: str) -> None:
        """Raises ValueError and whatever the library raises: the OTEL_ variables cannot be used."""
        with _complaints_raised():
            provider = TracerProvider(shutdown_on_exit=False)
            self._exporter = OTLPSpanExporter()
        self.is_disabled = isinstance(provider.get_tracer(_NAME), NoOpTracer)
        if not self.is_disabled:
            _require_http(self._exporter._endpoint)  # noqa: SLF001 - it is sent to without a look at it
        self._sampler = provider.sampler
        self._resource = _resource(provider.resource, version)
        self._scope = InstrumentationScope(_NAME, version)
        self._words = _FirstWords()
        self._is_closed = False

    def is_sampled(self, trace_id: str, caller: TraceContext | None, name: str) -> bool:
        if caller is None:
            parent = None
            # Samplers compare the lower half as a number. That of a UUIDv7 begins with two bits that are
            # always the same: of any share below a half nothing would be told.
            number = int.from_bytes(blake2b(bytes.fromhex(trace_id), digest_size=16).digest(), "big")
        else:
            span = NonRecordingSpan(_context(caller.trace_id, caller.span_id, caller, is_remote=True))
            parent, number = set_span_in_context(span), int(trace_id, 16)
        found = self._sampler.should_sample(parent, number, name, SpanKind.SERVER)
        return found.decision is Decision.RECORD_AND_SAMPLE

    def send(self, spans: Sequence[Span]) -> Sending:
        self._words.forget()
        if self._exporter.export([self._readable(span) for span in spans]) is SpanExportResult.SUCCESS:
            return Sending.DONE
        return Sending.REFUSED if self._words.status in _FOR_EVER else Sending.FAILED

    @property
    def trouble(self) -> str | None:
        return self._words.text

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._exporter.shutdown()  # type: ignore[no-untyped-call]
            self._words.close()

    def _readable(self, span: Span) -> ReadableSpan:
        context, parent = span.context, None
        if span.parent_id is not None:
            parent = _context(context.trace_id, span.parent_id, context, is_remote=span.is_entry)
        status = Status() if span.error is None else Status(StatusCode.ERROR, span.error)
        return ReadableSpan(
            name=span.name,
            context=_context(context.trace_id, context.span_id, context, is_remote=False),
            parent=parent,
            resource=self._resource,
            attributes=span.attributes,
            kind=SpanKind.SERVER if span.is_entry else SpanKind.INTERNAL,
            status=status,
            start_time=_nanoseconds(span.started_at),
            end_time=_nanoseconds(span.ended_at),
            instrumentation_scope=self._scope,
        )


def _require_http(address: str) -> None:
    """Raises ValueError, which does not repeat the address: there may be a token in it."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("OTEL_EXPORTER_OTLP_ENDPOINT has to begin with http:// or https://, and a host")


def _resource(found: Resource, version: str) -> Resource:
    """Who we are, unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES say it."""
    ours: dict[str, str] = {}
    if str(found.attributes.get(SERVICE_NAME, _UNKNOWN)).startswith(_UNKNOWN):
        ours[SERVICE_NAME] = _NAME
    if SERVICE_VERSION not in found.attributes:
        ours[SERVICE_VERSION] = version
    return found.merge(Resource(ours))


def _context(trace_id: str, span_id: str, like: TraceContext, *, is_remote: bool) -> SpanContext:
    state = TraceState.from_header([like.state]) if like.state else TraceState()
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote, TraceFlags(like.flags), state)


def _nanoseconds(at: datetime) -> int:
    whole = int(at.timestamp() // 1) * 1_000_000_000
    return whole + at.microsecond * 1000


@contextmanager
def _complaints_raised() -> Iterator[None]:
    """What the library only warns of, and goes on without, is a mistake that its user wants to know.

    Raises ValueError. Values are left out: a header may be a secret.
    """
    found: list[str] = []

    class Complaints(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(_VALUE.sub("…", str(record.msg)))

    logger, handler = logging.getLogger(_LIBRARY), Complaints(logging.WARNING)
    propagated = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagated
    if found:
        raise ValueError("; ".join(found))


class _FirstWords(logging.Filter):
    """What the library says of a failure: kept for our own line instead of logged, and without addresses.

    It repeats itself at every try, and an address may have a token in it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.text: str | None = None
        self.status: int | None = None
        self._loggers = [
            logging.getLogger(f"{_LIBRARY}.exporter.otlp.proto.http.trace_exporter"),
            logging.getLogger(f"{_LIBRARY}.exporter.otlp.common.http"),
        ]
        for logger in self._loggers:
            logger.addFilter(self)

    def forget(self) -> None:
        self.text = self.status = None

    def filter(self, record: logging.LogRecord) -> bool:
        arguments: tuple[Any, ...] = record.args if isinstance(record.args, tuple) else ()
        self.status = next((value for value in arguments if type(value) is int), self.status)
        words = record.getMessage().partition(" encountered while ")[0]
        self.text = self.text or _ADDRESS.sub(r"\1…", words)[:300]
        return False

    def close(self) -> None:
        for logger in self._loggers:
            logger.removeFilter(self)

"""A receiver of traces as collectors are: OTLP over HTTP, decoded by OpenTelemetry's own messages."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class ToldSpan:
    """A span as it came; ids in hexadecimal digits, times in seconds since the epoch."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    state: str
    kind: int
    start: float
    end: float
    is_error: bool
    message: str
    attributes: dict[str, Any]
    resource: dict[str, Any] = field(repr=False)


class Receiver:
    """`url` is for OTEL_EXPORTER_OTLP_ENDPOINT. Requests are answered with `answers`, and 200 behind them."""

    def __init__(self, port: int) -> None:
        self.answers: list[int] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.raw: list[bytes] = []
        self._spans: list[ToldSpan] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = receiver.take(self.path, dict(self.headers), body)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def take(self, path: str, headers: dict[str, str], body: bytes) -> int:
        self.paths.append(path)
        self.headers.append(headers)
        self.raw.append(body)
        if self.answers and (status := self.answers.pop(0)) != 200:
            return status
        message = ExportTraceServiceRequest()
        message.ParseFromString(body)
        self._spans.extend(_told(message))
        return 200

    @property
    def spans(self) -> list[ToldSpan]:
        """All that were taken, by their beginning."""
        return sorted(self._spans, key=lambda span: (span.start, -span.end))

    def of_trace(self, trace_id: str) -> dict[str, list[ToldSpan]]:
        """The trace's spans by name."""
        found: dict[str, list[ToldSpan]] = {}
        for span in self.spans:
            if span.trace_id == trace_id:
                found.setdefault(span.name, []).append(span)
        return found

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _told(message: ExportTraceServiceRequest) -> Iterator[ToldSpan]:
    for group in message.resource_spans:
        resource = {each.key: _value(each.value) for each in group.resource.attributes}
        for scope in group.scope_spans:
            for span in scope.spans:
                yield ToldSpan(
                    name=span.name,
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    state=span.trace_state,
                    kind=span.kind,
                    start=span.start_time_unix_nano / 1e9,
                    end=span.end_time_unix_nano / 1e9,
                    is_error=span.status.code == span.status.STATUS_CODE_ERROR,
                    message=span.status.message,
                    attributes={each.key: _value(each.value) for each in span.attributes},
                    resource=resource,
                )


def _value(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value"))


@contextmanager
def receiver(port: int = 0) -> Iterator[Receiver]:
    made = Receiver(port)
    try:
        yield made
    finally:
        made.close()

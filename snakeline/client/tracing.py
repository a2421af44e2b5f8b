"""The trace that whoever uses the client is in, as headers of a request: W3C Trace Context."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_PARENT: Final = re.compile("(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_STATE: Final = re.compile("[ -~]{1,512}")


def trace_headers(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """`traceparent`, and `tracestate` where there is one; neither where there is no trace to go on in.

    The current span of OpenTelemetry, if this process uses that; else TRACEPARENT and TRACESTATE in the
    environment, as https://opentelemetry.io/docs/specs/otel/context/env-carriers/ has it.
    """
    span = _current_span()
    if span is not None and span.is_valid:
        parent = f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"
        state = span.trace_state.to_header()
        return {"traceparent": parent} | ({"tracestate": state} if state else {})
    environ = os.environ if environ is None else environ  # noqa: TID251 - of the caller's process
    parent, state = environ.get("TRACEPARENT", ""), environ.get("TRACESTATE", "")
    if not _PARENT.fullmatch(parent):
        return {}
    return {"traceparent": parent} | ({"tracestate": state} if _STATE.fullmatch(state) else {})


def _current_span() -> Any:
    """Its context. Never imported for this: where nobody has, there is no span."""
    opentelemetry = sys.modules.get("opentelemetry.trace")
    return None if opentelemetry is None else opentelemetry.get_current_span().get_span_context()

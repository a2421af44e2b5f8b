"""Which trace the client's requests go on in."""

from __future__ import annotations

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from snakeline.client.tracing import trace_headers

PARENT = f"00-{'a' * 32}-{'b' * 16}-01"


def test_the_environments_trace_is_gone_on_in() -> None:
    assert trace_headers({}) == {}
    assert trace_headers({"TRACEPARENT": PARENT}) == {"traceparent": PARENT}
    both = {"TRACEPARENT": PARENT, "TRACESTATE": "a=1,b=2"}
    assert trace_headers(both) == {"traceparent": PARENT, "tracestate": "a=1,b=2"}


@pytest.mark.parametrize(
    "parent",
    [
        *("", "nonsense", PARENT + "\n", PARENT.upper(), PARENT + "-more", PARENT.replace("00-", "ff-", 1)),
        *(f"00-{'0' * 32}-{'b' * 16}-01", f"00-{'a' * 32}-{'0' * 16}-01"),
    ],
)
def test_what_is_no_trace_is_not_sent(parent: str) -> None:
    assert trace_headers({"TRACEPARENT": parent, "TRACESTATE": "a=1"}) == {}


@pytest.mark.parametrize("state", ["", "a=1\r\nX-Evil: 1", "ä=1", "a" * 513])
def test_a_state_that_is_none_is_left_out(state: str) -> None:
    assert trace_headers({"TRACEPARENT": PARENT, "TRACESTATE": state}) == {"traceparent": PARENT}


def test_a_span_of_this_process_goes_before_the_environment() -> None:
    tracer = TracerProvider().get_tracer("test")
    with tracer.start_as_current_span("lims") as span:
        told = trace_headers({"TRACEPARENT": PARENT})
    context = span.get_span_context()
    assert told == {"traceparent": f"00-{context.trace_id:032x}-{context.span_id:016x}-01"} or told == {
        "traceparent": f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    }
    foreign = SpanContext(
        0xA, 0xB, is_remote=True, trace_flags=TraceFlags(0), trace_state=TraceState([("v", "1")])
    )
    with trace.use_span(NonRecordingSpan(foreign)):
        assert trace_headers({}) == {"traceparent": f"00-{0xA:032x}-{0xB:016x}-00", "tracestate": "v=1"}

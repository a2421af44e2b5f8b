"""Which headers of a request say where in a trace it was made."""

from __future__ import annotations

import pytest

from api.trace_headers import trace_of
from runner.trace_context import TraceContext

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = (b"traceparent", f"00-{TRACE}-{SPAN}-01".encode())


def test_the_headers_of_a_request_are_read_those_of_its_state_as_one_list() -> None:
    state = [(b"tracestate", b"a=1,b=2"), (b"accept", b"*/*"), (b"tracestate", b"c=3")]
    assert trace_of([PARENT, *state]) == TraceContext(TRACE, SPAN, 1, "a=1,b=2,c=3")


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"tracestate", b"a=1")],
        [PARENT, PARENT],
        [(b"traceparent", b"\xff\xfe")],
        [(b"traceparent", b"00-" + b"0" * 10_000)],
    ],
)
def test_without_exactly_one_good_parent_there_is_no_trace(headers: list[tuple[bytes, bytes]]) -> None:
    assert trace_of(headers) is None

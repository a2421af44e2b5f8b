"""W3C Trace Context: which headers are believed, and what of them a job is told."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from runner.trace_context import JobTrace, TraceContext, environment_of, span_id_of, trace_id_of

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
JOB = "019aa000-0000-7000-8000-000000000001"


def test_the_example_of_the_standard_is_read() -> None:
    context = TraceContext.parse(f"00-{TRACE}-{SPAN}-01", "congo=t61rcWkgMzE")
    assert context == TraceContext(TRACE, SPAN, 1, "congo=t61rcWkgMzE")
    assert context.is_sampled
    assert context.environment == {"TRACEPARENT": f"00-{TRACE}-{SPAN}-01", "TRACESTATE": "congo=t61rcWkgMzE"}


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-0x",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00-{TRACE}x-{SPAN}-01",
        f"01-{TRACE}-{SPAN}-01-{'x' * 500}",
    ],
)
def test_what_is_no_trace_parent_counts_as_none(header: str) -> None:
    assert TraceContext.parse(header) is None


def test_a_later_form_is_read_as_far_as_it_is_known() -> None:
    context = TraceContext.parse(f"cc-{TRACE}-{SPAN}-ff-what-comes-then")
    assert context is not None
    assert context.environment == {"TRACEPARENT": f"00-{TRACE}-{SPAN}-03"}


@pytest.mark.parametrize(
    ("header", "kept"),
    [
        ("a=1,b@c=2", "a=1,b@c=2"),
        (" a=1 ,, b=2\t", "a=1,b=2"),
        ("a=1,no member", ""),
        ("a=\x1b[31m", ""),
        ("a=1\r\nX: y", ""),
        ("a=ü", ""),
        (",".join(f"k{n}=v" for n in range(33)), ""),
        (",".join(f"k{n}={'v' * 60}" for n in range(9)), ""),
    ],
)
def test_a_trace_state_that_cannot_be_used_is_left_out(header: str, kept: str) -> None:
    context = TraceContext.parse(f"00-{TRACE}-{SPAN}-00", header)
    assert context is not None
    assert context.state == kept


def test_a_job_of_a_service_that_tells_nothing_is_handed_the_callers_own_context() -> None:
    context = TraceContext(TRACE, SPAN, 1, "a=b")
    trace = JobTrace.handed_on(context)
    assert not trace.is_told
    assert environment_of(trace, JOB, 3) == context.environment
    assert environment_of(None, JOB, 1) == {}


def test_a_told_job_is_handed_the_span_of_its_own_run_which_each_attempt_has_anew() -> None:
    caller = TraceContext(TRACE, SPAN, 3, "a=b")
    trace = JobTrace.begun(JOB, caller, is_sampled=True, asked_at=NOON)
    first, second = (environment_of(trace, JOB, attempt) for attempt in (1, 2))
    assert first == {"TRACEPARENT": f"00-{TRACE}-{span_id_of(JOB, 1, 'run')}-03", "TRACESTATE": "a=b"}
    assert first["TRACEPARENT"] != second["TRACEPARENT"]
    assert trace.is_told


def test_a_trace_that_is_not_to_be_told_says_so_to_the_job() -> None:
    trace = JobTrace.begun(JOB, TraceContext(TRACE, SPAN, 1), is_sampled=False, asked_at=NOON)
    assert environment_of(trace, JOB, 1)["TRACEPARENT"].endswith("-00")
    assert not trace.is_told


def test_without_a_caller_the_trace_has_the_jobs_own_id() -> None:
    trace = JobTrace.begun(JOB, None, is_sampled=True, asked_at=NOON)
    assert trace.trace_id == trace_id_of(JOB) == JOB.replace("-", "")
    assert trace.parent_id is None
    assert environment_of(trace, JOB, 1)["TRACEPARENT"].endswith("-03")

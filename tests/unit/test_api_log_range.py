"""Ranges over a stream with a gap."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.log_range import Span, Unsatisfiable, kept, parse_range
from runner.log_store import Gap

GAP = Gap(100, 200)


@pytest.mark.parametrize(
    ("header", "span"),
    [
        ("bytes=0-", Span(0, 100)),
        ("bytes=0-99", Span(0, 100)),
        ("bytes=0-150", Span(0, 100)),
        ("bytes=99-300", Span(99, 100)),
        ("bytes=100-300", Span(200, 300)),
        ("bytes=150-199", None),
        ("bytes=199-200", Span(200, 201)),
        ("bytes=-50", Span(250, 300)),
        ("bytes=-150", Span(200, 300)),
        ("bytes=-250", Span(50, 100)),
        ("bytes=299-", Span(299, 300)),
        ("bytes=300-", None),
        ("bytes=-0", None),
    ],
)
def test_a_range_is_cut_at_the_gap(header: str, span: Span | None) -> None:
    if span is None:
        with pytest.raises(Unsatisfiable):
            parse_range(header, 300, GAP)
    else:
        assert parse_range(header, 300, GAP) == span


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=2-1",
        "bytes=0-1,2-3",
        "items=0-1",
        "bytes=+1-2",
        "bytes=1²-3",
    ],
)
def test_what_is_no_single_range_is_ignored(header: str | None) -> None:
    assert parse_range(header, 300, GAP) is None


def test_an_empty_log_has_no_range() -> None:
    with pytest.raises(Unsatisfiable):
        parse_range("bytes=0-", 0, None)


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.integers(1, 20))
def test_what_is_kept_is_in_the_span_and_out_of_the_gap(
    start: int, length: int, gap: int, width: int
) -> None:
    asked, hole = Span(start, start + length), Gap(gap, gap + width)
    found = kept(asked, hole)
    inside = set(range(found.start, found.end))
    assert inside <= set(range(asked.start, asked.end)) - set(range(hole.start, hole.end))
    reachable = set(range(asked.start, asked.end)) - set(range(hole.start, hole.end))
    assert bool(inside) == bool(reachable)
    if reachable:
        assert found.start == min(reachable)

"""Cursors: opaque, and only good for the list they came from."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.paging import Cursors, next_link
from api.problems import Problem
from api.schemas import ListJobs

CURSORS = Cursors(b"a secret")


@given(st.integers(0, 2**63 - 1))
def test_a_cursor_leads_back_to_where_it_was_made(seq: int) -> None:
    filters = ListJobs(q="x", label=["a:1", "b:2"])
    assert CURSORS.decode(CURSORS.encode(seq, filters), filters) == seq


def test_a_page_size_may_change_between_pages() -> None:
    assert CURSORS.decode(CURSORS.encode(5, ListJobs(limit=10)), ListJobs(limit=20)) == 5


def test_the_order_of_repeated_filters_does_not_matter() -> None:
    cursor = CURSORS.encode(5, ListJobs(label=["a:1", "b:2"]))
    assert CURSORS.decode(cursor, ListJobs(label=["b:2", "a:1"])) == 5


@given(st.integers(0, 2**40), st.integers(1, 1000))
def test_cursors_do_not_tell_how_many_rows_lie_between_two_pages(seq: int, between: int) -> None:
    filters = ListJobs()
    here, there = (
        int.from_bytes(base64.urlsafe_b64decode(CURSORS.encode(number, filters) + "=")[:8])
        for number in (seq, seq + between)
    )
    assert here != there
    assert abs(here - there) > 2**16, "near rows have cursors far apart"
    assert Cursors(b"another").encode(seq, filters) != CURSORS.encode(seq, filters)


@given(st.text(max_size=40))
def test_any_other_text_is_400(cursor: str) -> None:
    with pytest.raises(Problem) as caught:
        CURSORS.decode(cursor, ListJobs())
    assert caught.value.kind.status == 400


def test_the_link_keeps_every_filter() -> None:
    filters = ListJobs.model_validate(
        {"status": ["failed"], "label": ["a:b c"], "created_after": "2026-01-01T00:00:00+02:00", "limit": 7}
    )
    link = next_link("CURSOR", filters)
    assert link == (
        "</jobs?cursor=CURSOR&status=failed&label=a%3Ab+c&created_after=2025-12-31T22%3A00%3A00Z"
        '&order=desc&limit=7>; rel="next"'
    )

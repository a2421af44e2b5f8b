"""A log as events: nothing lost, nothing doubled, wherever the client breaks off."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from api.sse import TextEvents, sse_event
from tests.support.sse import Event, read_events

# Bytes that make trouble: line ends, multi-byte characters and pieces of them, field names, NUL.
PIECES = st.sampled_from(
    [
        b"\r",
        b"\n",
        b"\r\n",
        "ü".encode(),
        "🐍".encode(),
        b"\xf0",
        b"\x9f",
        b"\xff",
        b"data: x",
        b"id: 7",
        b":",
        b"\0",
        b"a b",
        b" ",
    ]
)
STREAMS = st.lists(PIECES, max_size=30).map(b"".join)


def expected(data: bytes) -> str:
    return data.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")


def cut(data: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(bounds)]


@given(STREAMS, st.lists(st.integers(0, 200), max_size=6))
def test_the_text_is_the_same_however_the_stream_is_cut(data: bytes, places: list[int]) -> None:
    encoder = TextEvents(0)
    stream = b"".join(encoder.feed(piece) for piece in cut(data, places)) + encoder.feed(b"", final=True)
    events = read_events(stream)
    assert "".join(event.data for event in events) == expected(data)
    if data:
        assert events[-1].id == str(len(data))


@given(STREAMS, st.lists(st.integers(0, 200), max_size=6), st.data())
def test_a_stream_resumes_behind_any_event(data: bytes, places: list[int], draw: st.DataObject) -> None:
    encoder = TextEvents(0)
    events = read_events(b"".join(encoder.feed(piece) for piece in cut(data, places)))
    seen = events[: draw.draw(st.integers(0, len(events)))]
    offset = int(seen[-1].id) if seen else 0
    rest = TextEvents(offset)
    resumed = read_events(rest.feed(data[offset:]) + rest.feed(b"", final=True))
    assert "".join(event.data for event in [*seen, *resumed]) == expected(data)


def test_a_character_is_never_split_and_its_first_bytes_are_not_counted() -> None:
    encoder = TextEvents(10)
    snake = "🐍".encode()
    assert read_events(encoder.feed(b"a" + snake[:2])) == [Event("message", "a", "11")]
    assert encoder.feed(snake[2:3]) == b""
    assert read_events(encoder.feed(snake[3:])) == [Event("message", "🐍", "15")]


def test_a_skip_says_what_is_missing_and_goes_on_behind_it() -> None:
    encoder = TextEvents(0)
    stream = encoder.feed(b"a\r") + encoder.skip(2, 50) + encoder.feed(b"\nb")
    assert read_events(stream) == [
        Event("message", "a", "1"),
        Event("message", "\n", "2"),
        Event("gap", '{"start":2,"end":50}', "50"),
        Event("message", "\nb", "52"),
    ]


def test_no_text_can_become_a_field() -> None:
    assert read_events(sse_event("a\rid: 9\r\nevent: end\n\ndata: x", event_id=1)) == [
        Event("message", "a\nid: 9\nevent: end\n\ndata: x", "1")
    ]

"""Sending a log that changes meanwhile: never other bytes than were promised."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from api.log_range import Span
from api.log_response import LogResponse
from runner.logs import SegmentLogStore
from tests.support.log_writer import SegmentWriter

if TYPE_CHECKING:
    from pathlib import Path

SEGMENT_BYTES = 2**20  # what is read at a time


@pytest.fixture
def writer(tmp_path: Path) -> SegmentWriter:
    writer = SegmentWriter(tmp_path, segment_bytes=SEGMENT_BYTES)
    writer.begin()
    return writer


def sent(response: LogResponse, *, client_goes: bool = False) -> list[Any]:
    """Every message that the server is given."""
    messages: list[Any] = []

    async def receive() -> Any:
        if not client_goes:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        messages.append(message)

    asyncio.run(response({"type": "http", "method": "GET"}, receive, send))
    return messages


def whole(tmp_path: Path) -> LogResponse:
    """An answer with all that the log holds now."""
    log = SegmentLogStore(tmp_path).open("job", 1)
    return LogResponse(log, Span(0, log.size()), status=200, headers={}, gap=log.gap(), marked=True)


def body(messages: list[Any]) -> bytes:
    return b"".join(message["body"] for message in messages[1:])


def test_what_is_written_meanwhile_is_not_sent(tmp_path: Path, writer: SegmentWriter) -> None:
    writer.write(b"x" * 100)
    response = whole(tmp_path)
    writer.write(b"y" * 100)
    messages = sent(response)
    assert response.headers["content-length"] == "100"
    assert body(messages) == b"x" * 100
    assert messages[-1]["more_body"] is False


def test_bytes_that_are_dropped_meanwhile_break_the_answer_off(tmp_path: Path, writer: SegmentWriter) -> None:
    writer.write(b"x" * SEGMENT_BYTES * 3)
    response = whole(tmp_path)
    writer.write(b"y" * SEGMENT_BYTES * 8)
    messages = sent(response)
    # Without a last message the server closes the connection, and the client sees that bytes are missing.
    assert all(message["more_body"] for message in messages[1:])
    assert body(messages) == b"x" * SEGMENT_BYTES


def test_a_client_that_has_gone_is_sent_no_more(tmp_path: Path, writer: SegmentWriter) -> None:
    writer.write(b"x" * SEGMENT_BYTES * 4)
    assert len(body(sent(whole(tmp_path), client_goes=True))) < 4 * SEGMENT_BYTES

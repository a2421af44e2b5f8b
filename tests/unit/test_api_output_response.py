"""Sending a file that changes meanwhile: never other bytes than promised, nor a descriptor too many."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import pytest

from api.log_range import Span
from api.output_response import OutputResponse
from runner.job_files import OpenedFile

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 3 * 2**20


class Download:
    """A response over a file of 3 MiB, and what the server is given of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(b"x" * SIZE)
        self.file = OpenedFile.of(os.open(path, os.O_RDONLY))
        self.response = OutputResponse(
            self.file, Span(0, SIZE), status=200, headers={}, media_type="application/octet-stream"
        )

    def sent(self, *, method: str = "GET", client_goes: bool = False, fails: bool = False) -> list[Any]:
        messages: list[Any] = []

        async def receive() -> Any:
            if not client_goes:
                await asyncio.Event().wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if fails and message["type"] == "http.response.body":
                raise OSError("the connection is gone")
            messages.append(message)

        scope = {"type": "http", "method": "GET", "snakeline.method": method}
        asyncio.run(self.response(scope, receive, send))
        return messages


def body(messages: list[Any]) -> bytes:
    return b"".join(message["body"] for message in messages[1:])


@pytest.fixture
def download(tmp_path: Path) -> Download:
    return Download(tmp_path / "file")


def test_the_whole_file_is_sent_and_closed(download: Download) -> None:
    messages = download.sent()
    assert body(messages) == b"x" * SIZE
    assert messages[-1]["more_body"] is False
    with pytest.raises(OSError, match="Bad file descriptor"):
        download.file.read(0, 1)


def test_of_a_file_that_grows_no_more_is_sent_than_was_promised(download: Download) -> None:
    with download.path.open("ab") as more:
        more.write(b"y" * SIZE)
    assert body(download.sent()) == b"x" * SIZE


@pytest.mark.parametrize("left", [0, SIZE // 2, SIZE - 1])
def test_a_file_that_shrinks_breaks_the_answer_off(download: Download, left: int) -> None:
    os.truncate(download.path, left)
    messages = download.sent()
    # Without a last message the server closes the connection, and the client sees that bytes are missing.
    assert all(message["more_body"] for message in messages[1:])
    assert body(messages) == b"x" * left


def test_a_file_put_in_its_place_is_not_sent(download: Download) -> None:
    (download.path.parent / "other").write_bytes(b"secret" * SIZE)
    (download.path.parent / "other").rename(download.path)
    assert body(download.sent()) == b"x" * SIZE


def test_to_head_nothing_is_read(download: Download) -> None:
    assert [message["type"] for message in download.sent(method="HEAD")] == ["http.response.start"]


def test_a_client_that_has_gone_is_sent_no_more(download: Download) -> None:
    assert len(body(download.sent(client_goes=True))) < SIZE


@pytest.mark.parametrize("how", [{"client_goes": True}, {"fails": True}, {"method": "HEAD"}])
def test_the_file_is_closed_however_it_ends(download: Download, how: dict[str, Any]) -> None:
    download.sent(**how)
    with pytest.raises(OSError, match="Bad file descriptor"):
        download.file.read(0, 1)

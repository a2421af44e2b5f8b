"""Answers that are made while they are sent: whole, or seen not to be, with nothing left open behind them."""

from __future__ import annotations

import asyncio
import io
import os
import zipfile
from collections import Counter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from api.client_limits import OpenStreams
from api.made_response import MadeResponse
from api.problems import Problem
from api.turns import Turns
from api.zip_archive import Member, archive
from runner.errors import JobNotFound, OutputNotFound
from runner.file_listing import TooManyFiles
from runner.job_files import OpenedFile

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

    from api.state import AppState
    from api.zip_archive import Content
    from runner.callers_jobs import CallersJobs

PIECE = b"x" * 100_000
JOBS = cast("CallersJobs", SimpleNamespace(caller=SimpleNamespace(visible_tenant="a")))


class Made:
    """Ten pieces and then maybe an error; `closed` once nothing of it is held any more."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.given = 0
        self.closed = False

    def pieces(self) -> Generator[bytes]:
        try:
            for _ in range(10):
                self.given += 1
                yield PIECE
            if self.error is not None:
                raise self.error
        finally:
            self.closed = True


def sent(
    made: Made, *, method: str = "GET", goes_after: int | None = None, streams: OpenStreams | None = None
) -> list[Any]:
    """What the server is given; with `goes_after` the client goes when it has got so many messages."""
    messages: list[Any] = []

    async def answer() -> None:
        gone = asyncio.Event()

        async def receive() -> Any:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            messages.append(message)
            if goes_after is not None and len(messages) > goes_after:
                gone.set()
                await asyncio.sleep(0)

        state = SimpleNamespace(streams=streams or OpenStreams(1, Counter()), making=Turns(2))
        response = MadeResponse(
            cast("AppState", state), JOBS, made.pieces(), media_type="application/zip", headers={"X-Y": "z"}
        )
        scope = {"type": "http", "method": "GET", "snakeline.method": method, "client": ("192.0.2.1", 1)}
        await response(scope, receive, send)

    asyncio.run(answer())
    return messages


def body(messages: list[Any]) -> bytes:
    return b"".join(message["body"] for message in messages[1:])


def test_everything_is_sent_and_then_the_end() -> None:
    made = Made()
    messages = sent(made)
    assert body(messages) == PIECE * 10
    assert [message["more_body"] for message in messages[1:]][-2:] == [True, False]
    assert dict(messages[0]["headers"])[b"content-type"] == b"application/zip"
    assert b"content-length" not in dict(messages[0]["headers"])
    assert made.closed


@pytest.mark.parametrize("error", [OSError("disk"), JobNotFound("x"), TooManyFiles(), OutputNotFound("x")])
def test_what_cannot_be_made_whole_breaks_the_answer_off(error: Exception) -> None:
    made = Made(error)
    assert all(message["more_body"] for message in sent(made)[1:])
    assert made.closed


def test_for_head_and_for_a_client_that_has_gone_nothing_more_is_made() -> None:
    made = Made()
    assert [message["type"] for message in sent(made, method="HEAD")] == ["http.response.start"]
    assert made.given == 0
    made = Made()
    assert all(message.get("more_body", True) for message in sent(made, goes_after=3))
    assert (made.given < 10, made.closed) == (True, True)


def test_it_counts_as_a_stream_of_its_client() -> None:
    streams = OpenStreams(1, Counter())
    scope = {"client": ("192.0.2.1", 2)}
    with streams.open(scope), pytest.raises(Problem) as caught:
        sent(Made(), streams=streams)
    assert caught.value.kind.slug == "too-many-streams"
    sent(Made(), streams=streams)
    assert len(streams) == 0


# ---------------------------------------------------------------- archives of files that change


class Disk:
    """Files that are opened for an archive; whether all of them have been closed again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.opened: list[OpenedFile] = []

    def member(self, name: str, content: bytes, meanwhile: Callable[[Path], None] | None = None) -> Member:
        """`meanwhile` is done to the file when it has just been opened."""
        path = self.folder / name
        path.write_bytes(content)

        def opened() -> Content:
            file = OpenedFile.of(os.open(path, os.O_RDONLY))
            self.opened.append(file)
            if meanwhile is not None:
                meanwhile(path)
            return file

        return Member(name.encode(), opened)

    def all_closed(self) -> bool:
        def is_closed(file: OpenedFile) -> bool:
            try:
                os.fstat(file.fd)
            except OSError:
                return True
            return False

        return all(map(is_closed, self.opened))


def gone() -> Content:
    raise OutputNotFound("019…")


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def test_files_are_held_as_they_were_met(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    members = [
        disk.member("same", b"a" * 600_000),
        Member(b"gone", gone),
        disk.member("shrunk", b"b" * 600_000, lambda path: os.truncate(path, 300_000)),
        disk.member("emptied", b"c", lambda path: os.truncate(path, 0)),
        disk.member("grown", b"d", grow),
        disk.member("replaced", b"e", lambda path: path.unlink()),
    ]
    with zipfile.ZipFile(io.BytesIO(b"".join(archive(members)))) as whole:
        assert whole.testzip() is None
        assert {name: whole.read(name) for name in whole.namelist()} == {
            "same": b"a" * 600_000, "shrunk": b"b" * 300_000, "emptied": b"", "grown": b"d", "replaced": b"e",
        }  # fmt: skip
    assert len(disk.opened) == 5
    assert disk.all_closed()


def test_an_archive_that_is_not_made_whole_has_no_directory(tmp_path: Path) -> None:
    disk = Disk(tmp_path)

    def members() -> Iterator[Member]:
        yield disk.member("file", b"a")
        raise TooManyFiles

    found: list[bytes] = []
    with pytest.raises(TooManyFiles):
        found.extend(archive(members()))
    with pytest.raises(zipfile.BadZipFile):
        zipfile.ZipFile(io.BytesIO(b"".join(found)))
    half = archive([disk.member("large", os.urandom(2**20))])
    next(half)
    next(half)
    assert not disk.all_closed()
    half.close()
    assert disk.all_closed()

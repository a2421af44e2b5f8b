"""What a crate's archive is made of: the log as it is downloaded, and documents that are kept small."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, cast

from api.crate_archive import LogContent, PackedContent
from runner.log_store import Gap

if TYPE_CHECKING:
    from runner.log_store import Log


def test_a_packed_document_is_read_as_often_as_one_likes() -> None:
    lines = [json.dumps({"@id": f"#task/{n}", "name": "x" * 100}).encode() for n in range(20_000)]
    content = PackedContent(lines, 0)
    whole = b"".join(lines)
    assert sum(map(len, content._packed)) < len(whole) / 10
    assert content.size_bytes == len(whole)
    for most in (1000, 2**16):
        pieces = list(content.pieces(most))
        assert b"".join(pieces) == whole
        assert max(map(len, pieces[:-1])) <= most
    assert b"".join(PackedContent([], 0).pieces()) == b""


class StoredLog:
    """A log whose middle is no longer kept; it is written on meanwhile."""

    def __init__(self, first: bytes, skipped: int, last: bytes) -> None:
        self.first, self.last = first, last
        self.behind = len(first) + skipped

    def size(self) -> int:
        return self.behind + len(self.last)

    def gap(self) -> Gap | None:
        return Gap(len(self.first), self.behind) if self.behind > len(self.first) else None

    def read(self, offset: int, limit: int) -> tuple[int, bytes]:
        if offset < len(self.first):
            return offset, self.first[offset : offset + limit]
        at = max(offset, self.behind)
        return at, (self.last + b"later")[at - self.behind :][:limit]


def test_a_log_is_what_is_kept_of_it_with_a_line_for_the_rest() -> None:
    for log, expected in (
        (StoredLog(b"one\ntwo\n", 0, b""), b"one\ntwo\n"),
        (StoredLog(b"one\n", 1000, b"three\n"), b"one\n\n[snakeline: 1000 bytes skipped]\nthree\n"),
        (StoredLog(b"", 0, b""), b""),
    ):
        content = LogContent(cast("Log", log), 0)
        assert b"".join(content.pieces(3)) == expected
        assert content.size_bytes == len(expected)

"""What a log is, told by a program that keeps all of it."""

from __future__ import annotations

from runner.attempt_files import SEGMENTS_KEPT
from runner.log_store import Gap


class LogModel:
    """What a log with all its history would answer."""

    def __init__(self, segment_bytes: int) -> None:
        self.segment_bytes = segment_bytes
        self.data = b""

    @classmethod
    def of_size(cls, size: int, segment_bytes: int) -> LogModel:
        model = cls(segment_bytes)
        model.data = bytes(size)
        return model

    def kept_from(self) -> int:
        gap = self.gap()
        return gap.end if gap else 0

    def gap(self) -> Gap | None:
        segments = -(-len(self.data) // self.segment_bytes)
        dropped = segments - SEGMENTS_KEPT
        if dropped <= 0:
            return None
        return Gap(self.segment_bytes, self.segment_bytes * (1 + dropped))

    def read(self, offset: int, limit: int) -> tuple[int, bytes]:
        gap = self.gap()
        end = len(self.data)
        if gap and gap.start <= offset < gap.end:
            offset = gap.end
        elif gap and offset < gap.start:
            end = gap.start
        if offset >= len(self.data):
            return len(self.data), b""
        return offset, self.data[offset : min(end, offset + limit)]

    def tail_offset(self, lines: int) -> int:
        floor = self.kept_from()
        kept = self.data[floor:]
        if lines < 1 or not kept:
            return len(self.data)
        body = kept[:-1] if kept.endswith(b"\n") else kept
        rows = body.split(b"\n")
        wanted = b"\n".join(rows[-lines:])
        return floor + len(body) - len(wanted)

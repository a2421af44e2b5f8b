"""Where a run writes: its terminal lines and its events, buffered until someone could be waiting for them."""

from __future__ import annotations

import json
import os
import time
from typing import Any

_CHUNK_LINES = 4096
_encode = json.JSONEncoder(separators=(",", ":")).encode


class Console:
    """Standard error as Snakemake uses it. Nothing is written before `flush`."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def line(self, text: str = "") -> None:
        self._lines.append(text)

    def flush(self) -> None:
        if self._lines:
            data = "\n".join(self._lines) + "\n"
            self._lines.clear()
            write_all(2, data.encode("utf-8", "replace"))


class Events:
    """The events file (one JSON object a line). A full disk or a missing path costs events, not the run."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._fd: int | None = None
        self._lines: list[str] = []

    def add(self, event: str, **fields: Any) -> None:
        """Tell of an event, without the fields that have no value."""
        if self._path is not None:
            line = {"v": 2, "event": event, "t": time.time()}
            line.update((name, value) for name, value in fields.items() if value or type(value) is int)
            self._lines.append(_encode(line))

    def flush(self) -> None:
        if not self._lines or self._path is None:
            return
        data = ("\n".join(self._lines) + "\n").encode()
        self._lines.clear()
        try:
            if self._fd is None:
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
                self._fd = os.open(self._path, flags, 0o600)
            write_all(self._fd, data)
        except OSError:
            self._path = None


def write_all(fd: int, data: bytes) -> None:
    """Write everything. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def numbered(start: int, count: int) -> bytes:
    """Lines `start` to `start + count` of the stream that `output_bytes` prints: 16 bytes each, its number.

    So the byte at any offset is known, and a reader sees where something is missing.
    """
    return b"".join([b"%015d\n" % number for number in range(start, start + count)])


def write_numbered(fd: int, size_bytes: int) -> None:
    """The first `size_bytes` of the numbered stream. Raises OSError."""
    written = 0
    while written < size_bytes:
        data = numbered(written // 16, _CHUNK_LINES)[: size_bytes - written]
        write_all(fd, data)
        written += len(data)

"""Writes a job's output into log segments; used by the shim: standard library only."""

from __future__ import annotations

import contextlib
import os

from runner.attempt_files import SEGMENTS_KEPT, AttemptFiles


class LogSegments:
    """An append-only byte stream in files of `segment_bytes` each.

    The first segment and the newest `SEGMENTS_KEPT - 1` stay. A file is made with its first byte, so a
    silent job makes none. When nothing can be written the bytes are dropped and counted, and one marker
    line says so as soon as writing works again: the job is never held up.
    """

    def __init__(self, files: AttemptFiles, segment_bytes: int) -> None:
        self._files = files
        self._segment_bytes = segment_bytes
        self._fd: int | None = None
        self._dropped = 0
        self.size = 0

    def write(self, data: bytes | memoryview) -> None:
        if self._dropped:
            self._mark_dropped()
        rest = memoryview(data)
        while rest:
            try:
                written = self._write_some(rest)
            except OSError:
                self._dropped += len(rest)
                return
            rest = rest[written:]

    def _mark_dropped(self) -> None:
        marker = f"\n[snakeline: {self._dropped} bytes lost, the log could not be written]\n".encode()
        try:
            while marker:
                marker = marker[self._write_some(memoryview(marker)) :]
        except OSError:
            return
        self._dropped = 0

    def _write_some(self, data: memoryview) -> int:
        index, position = divmod(self.size, self._segment_bytes)
        if self._fd is None or (position == 0 and self.size):
            self._open(index)
        assert self._fd is not None
        written = os.write(self._fd, data[: self._segment_bytes - position])
        self.size += written
        return written

    def _open(self, index: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        fd = os.open(self._files.log_segment(index), flags, 0o600)
        if self._fd is not None:
            os.close(self._fd)
        self._fd = fd
        out = index - (SEGMENTS_KEPT - 1)
        if out >= 1:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._files.log_segment(out))

"""The file the events go to: bounded, a plain file or nothing, and never a reason for the run to stop."""

import os
import stat
from typing import Optional

LIMIT_BYTES = 64 * 2**20
_PIECE_BYTES = 256 * 2**10


class EventsFile:
    """A plain file that is only appended to. Nothing here raises: what cannot be written is lost."""

    def __init__(self, path: "str | None") -> None:
        self.used_bytes = 0
        self._fd: Optional[int] = None  # noqa: UP045
        self._identity = (0, 0)
        self._is_torn = False  # the last line has no end, or may have none
        self._lines: list[bytes] = []
        self._waiting_bytes = 0
        try:
            self._open(path)
        except Exception:  # noqa: BLE001 - a run without events is better than none
            self.close()

    def _open(self, path: "str | None") -> None:
        if path is None:
            return
        # To read as well: a FIFO in the file's place would hold the run until somebody reads it (fifo(7)).
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(path, flags, 0o600)
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode):
            self.close()
            return
        self._identity = (status.st_dev, status.st_ino)
        self.used_bytes = status.st_size
        self._is_torn = status.st_size > 0 and os.pread(self._fd, 1, status.st_size - 1) != b"\n"

    @property
    def is_open(self) -> bool:
        return self._fd is not None

    def append(self, line: bytes) -> None:
        """A line that has no end yet, to be written with others."""
        size = len(line) + 1
        if self._fd is None or self.used_bytes + size + 1 > LIMIT_BYTES:
            return
        self.used_bytes += size
        self._lines.append(line)
        self._waiting_bytes += size
        if self._waiting_bytes > _PIECE_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting. What is half written is closed off by the next line."""
        if not self._lines or self._fd is None:
            return
        data = b"\n" * self._is_torn + b"\n".join(self._lines) + b"\n"
        self._lines, self._waiting_bytes = [], 0
        try:
            status = os.fstat(self._fd)
            if (status.st_dev, status.st_ino) != self._identity:
                # A workflow has closed what it had not opened: the number may be that of its own file now.
                self._fd = None
                return
            self.used_bytes = status.st_size + len(data)
            self._is_torn = os.write(self._fd, data) < len(data)
        except OSError:
            return

    def close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is None:
            return
        try:
            status = os.fstat(fd)
            if self._identity in ((0, 0), (status.st_dev, status.st_ino)):
                os.close(fd)
        except OSError:
            return

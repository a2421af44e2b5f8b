"""A command on a terminal, and what a person would see there."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import pyte

from tests.support.server import service_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

INTERRUPTIBLE = ("env", "--default-signal=INT")
"""What is started through this hears SIGINT, also where a shell had us ignore it: in the background."""
_ENDED_S = 0.2


class Terminal:
    """Runs `snakeline` on a pseudo-terminal of this size; `raw` is every byte that came out of it."""

    def __init__(
        self, *arguments: str, settings: Mapping[str, str], columns: int = 90, lines: int = 20
    ) -> None:
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self._master, slave = pty.openpty()
        self._size(columns, lines)
        environment = service_environment(settings) | {"TERM": "xterm-256color"}
        environment = {k: v for k, v in environment.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
        self.process = subprocess.Popen(
            [*INTERRUPTIBLE, sys.executable, "-m", "snakeline", *arguments],
            env=environment,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip()

    def see(self, condition: Callable[[str], bool], *, timeout_s: float = 30) -> str:
        """What is on the screen once that is so."""
        deadline = time.monotonic() + timeout_s
        while not condition(self.text):
            assert time.monotonic() < deadline, f"never seen; on the screen is\n{self.text}"
            assert self._read(0.1) or self.process.poll() is None, f"it ended; on the screen is\n{self.text}"
        return self.text

    def end(self, *, timeout_s: float = 30) -> int:
        """The exit code, with all of the output read."""
        deadline = time.monotonic() + timeout_s
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"it goes on; on the screen is\n{self.text}"
            self._read(0.1)
        while self._read(_ENDED_S):
            pass
        return self.process.returncode

    def resize(self, columns: int, lines: int) -> None:
        self.screen.resize(lines, columns)
        self._size(columns, lines)

    def _size(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def _read(self, within_s: float) -> bool:
        if not select.select([self._master], [], [], within_s)[0]:
            return False
        data = b""
        with suppress(OSError):  # the other end is closed
            data = os.read(self._master, 65536)
        self.raw += data
        self._stream.feed(data)
        return bool(data)

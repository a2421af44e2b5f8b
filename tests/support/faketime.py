"""A wall clock that a test can set, for one process and those it starts; the monotonic clock stays true.

libfaketime would do, but its releases up to 0.9.10 break every sleep on a monotonic clock that is left
alone (clock_nanosleep(2) with TIMER_ABSTIME answers EINVAL): hence a library of our own, made on the spot.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.server import EXECUTED, running_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.server import LiveServer

_SOURCE = Path(__file__).with_name("set_clock.c")
_COMPILERS = ("cc", "gcc", "clang", "tcc")
_DAY_S = 86_400


def compiler() -> str | None:
    return next((found for name in _COMPILERS if (found := shutil.which(name))), None)


needs_set_clock = pytest.mark.skipif(
    compiler() is None, reason="no C compiler to make the clock with (Debian, Ubuntu: apt-get install tcc)"
)


class SetClock:
    """A wall clock; it goes right until `jump` is called."""

    def __init__(self, directory: Path) -> None:
        self._file = os.open(directory / "clock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._directory = directory
        self.library = str(directory / "set_clock.so")
        program = compiler()
        assert program is not None
        command = [program, "-shared", "-fPIC", "-nostdlib", "-o", self.library, str(_SOURCE)]
        subprocess.run(command, check=True, timeout=60)
        self.jump(0)

    def close(self) -> None:
        os.close(self._file)

    def jump(self, days: float) -> None:
        """Set it so many days away from the true time, at once and for all who see it."""
        os.pwrite(self._file, struct.pack("@l", round(days * _DAY_S)), 0)
        self.offset = timedelta(days=days)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.offset

    @property
    def environment(self) -> dict[str, str]:
        """What makes a program see it."""
        return {"LD_PRELOAD": self.library, "SET_CLOCK_FILE": str(self._directory / "clock")}

    def python(self) -> str:
        """An interpreter that sees it, whatever environment it is started with."""
        wrapper = self._directory / "python-with-a-set-clock"
        lines = [f"export {name}='{value}'" for name, value in self.environment.items()]
        wrapper.write_text("\n".join(["#!/bin/sh", *lines, f"exec '{sys.executable}' \"$@\"", ""]))
        wrapper.chmod(0o700)
        return str(wrapper)


@contextmanager
def clocked_server(directory: Path, clock: SetClock, **settings: str) -> Iterator[LiveServer]:
    """The service by this clock. Its jobs are not: the launcher has an environment of its own."""
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in clock.environment.items():
                patch.setenv(name, value)
            server = stack.enter_context(running_server(directory, through=EXECUTED, **settings))
        yield server

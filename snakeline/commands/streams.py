"""Standard output and standard error as a command finds and leaves them."""

from __future__ import annotations

import codecs
import io
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# For terminals that know no more than ASCII: each is as wide as what it stands for.
_IN_ASCII: Final[Mapping[str, str]] = dict(zip("✓✗○●⊘█▒░─│…·", "+xo*-#=.-|~-", strict=True))

_BROKEN_PIPE: Final = 141
_STDOUT: Final = 1


def prepare_output() -> None:
    """Whole lines also where PYTHONUNBUFFERED is set; what cannot be written as it is gets another form.

    What is written to one that the caller has closed goes nowhere.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - until the end
    if isinstance(getattr(sys.stdout, "buffer", None), io.RawIOBase):
        # What is written to it may be written in part, and nobody would notice.
        encoding = sys.stdout.encoding
        buffered = io.BufferedWriter(sys.stdout.detach())  # type: ignore[union-attr]
        sys.stdout = io.TextIOWrapper(buffered, encoding=encoding, line_buffering=True)
    codecs.register_error("snakeline", _in_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="snakeline")


def is_screen(stream: TextIO) -> bool:
    """Whether it is a terminal on which a line can be written again."""
    terminal = os.environ.get("TERM", "dumb")  # noqa: TID251 - the caller's terminal, no setting
    return stream.isatty() and terminal not in ("dumb", "unknown")


def _in_ascii(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    sign = _IN_ASCII.get(error.object[error.start])
    return (sign, error.start + 1) if sign else codecs.backslashreplace_errors(error)


@contextmanager
def readers_may_leave() -> Iterator[None]:
    """End without a word when whoever reads our output has had enough, as `head` has: 128 + SIGPIPE."""
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        # What is still to be written is tried once more at the exit.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, _STDOUT)
        os.close(nowhere)
        sys.exit(_BROKEN_PIPE)

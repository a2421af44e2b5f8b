"""How the service logs: on stderr, one JSON object a line, or a line for people, whoever writes it."""

from __future__ import annotations

import io
import logging
import os
import select
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TextIO, cast

import structlog

if TYPE_CHECKING:
    from api.log_settings import LogFormatName, LogLevelName

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_STDERR: Final = 2
PATIENCE_S: Final = 0.5
PATIENCE_SHARE: Final = 0.01
_CONTROL: Final = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
_WITHIN_LINES: Final = {code: text for code, text in _CONTROL.items() if chr(code) not in "\n\t"}

_log = structlog.get_logger(__name__)


class StderrLines(io.TextIOBase):
    """Standard error as a place for log lines: a line that cannot be written is lost and disturbs nobody.

    Otherwise a full disk, or a reader of our log that has gone, would break the requests that are logged,
    and one that reads no more would stop the service. Such a reader is waited for once, for `PATIENCE_S`;
    all waiting for one that reads slowly is `PATIENCE_SHARE` of the time, and beyond it lines are lost.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.RLock()  # a warning may be logged while a line is being written
        self._poll = select.poll()
        self._poll.register(_STDERR, select.POLLOUT)
        self._is_stuck = False
        self._patience_s = PATIENCE_S
        self._waited_at = time.monotonic()
        self._is_cut = False  # the last line has no end

    def write(self, text: str) -> int:
        with self._lock, suppress(OSError):
            rest = text.encode("utf-8", "replace")
            if self._is_cut:
                rest = b"\n" + rest
            while rest and self._has_room():
                # A pipe that can be written at all takes so many bytes at once: pipe(7).
                written = os.write(_STDERR, rest[: select.PIPE_BUF])
                rest = rest[written:]
                self._is_cut = bool(rest)
        return len(text)

    def _has_room(self) -> bool:
        if self._poll.poll(0):
            self._is_stuck = False
            return True
        if self._is_stuck:
            return False
        began = time.monotonic()
        patience_s = min(PATIENCE_S, self._patience_s + (began - self._waited_at) * PATIENCE_SHARE)
        self._is_stuck = not self._poll.poll(patience_s * 1000)
        self._waited_at = time.monotonic()
        self._patience_s = max(0.0, patience_s - (self._waited_at - began))
        return not self._is_stuck


def configure_logging(level: LogLevelName, form: LogFormatName = "auto") -> None:
    """Called once, by the entry point. Standard logging (of uvicorn, of libraries) takes the same form.

    Whatever the level, libraries never tell details: those hold addresses, headers and rows, and secrets
    in them.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    lines = cast("TextIO", StderrLines())
    last = _for_people() if is_for_people(form) else [structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(lines),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(lines)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(_LEVELS[level], logging.WARNING), force=True)
    logging.getLogger("runner").setLevel(_LEVELS[level])
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # its warnings tell of bytes of a body


def log_crashes() -> None:
    """Take down in the log what would go to stderr as plain text: errors that end a thread, warnings."""
    threading.excepthook = _thread_failed
    sys.unraisablehook = _unraisable
    logging.captureWarnings(capture=True)


def is_for_people(form: LogFormatName) -> bool:
    if form == "auto":
        with suppress(OSError):
            return os.isatty(_STDERR)
    return form == "console"


def _for_people() -> list[structlog.typing.Processor]:
    # Its own tracebacks would show the values of all variables.
    plain = structlog.dev.plain_traceback
    return [_legible, structlog.dev.ConsoleRenderer(colors=os.isatty(_STDERR), exception_formatter=plain)]


def _legible(_logger: Any, _method: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Much of it comes from elsewhere, and a terminal obeys control characters."""
    for name, value in line.items():
        if isinstance(value, str):
            line[name] = value.translate(_WITHIN_LINES if name == "exception" else _CONTROL)
    return line


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    if failure.exc_value is not None and not isinstance(failure.exc_value, SystemExit):
        name = failure.thread.name if failure.thread is not None else None
        _log.error("thread_failed", thread=name, exc_info=failure.exc_value)


def _unraisable(failure: sys.UnraisableHookArgs) -> None:
    _log.error("error_ignored", exc_info=failure.exc_value)

"""How the service logs: one JSON object a line on stderr, whoever writes it."""

from __future__ import annotations

import io
import logging
import os
from contextlib import suppress
from typing import Literal, TextIO, cast

import structlog

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


_STDERR = 2


class StderrLines(io.TextIOBase):
    """Standard error as a place for log lines: a line that cannot be written is lost and disturbs nobody.

    Otherwise a full disk, or a reader of our log that has gone, would break the requests that are logged.
    """

    def write(self, text: str) -> int:
        with suppress(OSError):
            os.write(_STDERR, text.encode("utf-8", "replace"))
        return len(text)


def configure_logging(level: Literal["debug", "info", "warning", "error"]) -> None:
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
    as_json = structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*shared, as_json],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(lines),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(lines)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processor=as_json, foreign_pre_chain=shared))
    logging.basicConfig(handlers=[handler], level=max(_LEVELS[level], logging.WARNING), force=True)
    logging.getLogger("runner").setLevel(_LEVELS[level])
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # its warnings tell of bytes of a body

"""The settings that say what the service logs, and how."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

LogLevelName = Literal["debug", "info", "warning", "error"]
LogFormatName = Literal["auto", "json", "console"]

LogLevel = Annotated[
    LogLevelName, Field(description="What the service logs: `debug`, `info`, `warning` or `error`.")
]
LogFormat = Annotated[
    LogFormatName,
    Field(
        description="`json` logs one object a line, `console` lines for people; `auto` is `console` on a "
        "terminal, else `json`."
    ),
]
AccessLogShare = Annotated[
    float,
    Field(
        ge=0,
        le=1,
        description="The share of answered requests that leave a line, 0 to 1; errors and slow ones "
        "always do.",
    ),
]
AccessLogSlow = Annotated[
    float,
    Field(
        ge=0, le=86_400, description="Seconds until the first byte of an answer from which on it was slow."
    ),
]

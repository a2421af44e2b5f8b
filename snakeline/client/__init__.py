"""A client of Snakeline's HTTP API: typed, synchronous or asynchronous, with nothing of the service in it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from snakeline.client.aio.client import AsyncClient, AsyncJob
    from snakeline.client.errors import (
        ChangesMissed,
        ClientError,
        Problem,
        ProfileError,
        UnexpectedAnswer,
        Unreachable,
        WaitTimeout,
    )
    from snakeline.client.many import JobRequest, NotAllSubmitted
    from snakeline.client.retries import Waiting
    from snakeline.client.sync.client import Client, Job
    from snakeline.client.values import TERMINAL, JobChange, JobPage, LogPart, LogPiece, Output, Task

__all__ = [
    "TERMINAL",
    "AsyncClient",
    "AsyncJob",
    "ChangesMissed",
    "Client",
    "ClientError",
    "Job",
    "JobChange",
    "JobPage",
    "JobRequest",
    "LogPart",
    "LogPiece",
    "NotAllSubmitted",
    "Output",
    "Problem",
    "ProfileError",
    "Task",
    "UnexpectedAnswer",
    "Unreachable",
    "WaitTimeout",
    "Waiting",
]

_WHERE: Final[Mapping[str, tuple[str, ...]]] = {
    "aio.client": ("AsyncClient", "AsyncJob"),
    "errors": (
        *("ChangesMissed", "ClientError", "Problem", "ProfileError"),
        *("UnexpectedAnswer", "Unreachable", "WaitTimeout"),
    ),
    "many": ("JobRequest", "NotAllSubmitted"),
    "retries": ("Waiting",),
    "sync.client": ("Client", "Job"),
    "values": ("TERMINAL", "JobChange", "JobPage", "LogPart", "LogPiece", "Output", "Task"),
}


def __getattr__(name: str) -> object:
    # Most have use for a few of them, and an HTTP client is slow to load.
    for module, names in _WHERE.items():
        if name in names:
            found: object = getattr(import_module(f"{__name__}.{module}"), name)
            globals()[name] = found
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

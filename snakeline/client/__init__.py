"""A client of Snakeline's HTTP API: typed, synchronous or asynchronous, with nothing of the service in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snakeline.client.errors import (
    ChangesMissed,
    ClientError,
    Problem,
    ProfileError,
    Unreachable,
    WaitTimeout,
)
from snakeline.client.many import JobRequest, NotAllSubmitted
from snakeline.client.sync.client import Client, Job
from snakeline.client.values import TERMINAL, JobChange, JobPage, LogPart, LogPiece, Output, Task

if TYPE_CHECKING:
    from snakeline.client.aio.client import AsyncClient, AsyncJob

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
    "Unreachable",
    "WaitTimeout",
]


def __getattr__(name: str) -> object:
    # Most have use for one of the two, and most of those for the other one.
    if name in ("AsyncClient", "AsyncJob"):
        from snakeline.client.aio import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

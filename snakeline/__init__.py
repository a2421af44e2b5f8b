"""What a user types or imports: the `snakeline` command and the Python client of the HTTP API.

`from snakeline import Client, AsyncClient`: see docs/client.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakeline.client import (
        AsyncClient,
        AsyncJob,
        ChangesMissed,
        Client,
        ClientError,
        Job,
        JobRequest,
        NotAllSubmitted,
        Problem,
        ProfileError,
        UnexpectedAnswer,
        Unreachable,
        Waiting,
        WaitTimeout,
    )

__all__ = [
    "AsyncClient",
    "AsyncJob",
    "ChangesMissed",
    "Client",
    "ClientError",
    "Job",
    "JobRequest",
    "NotAllSubmitted",
    "Problem",
    "ProfileError",
    "UnexpectedAnswer",
    "Unreachable",
    "WaitTimeout",
    "Waiting",
]


def __getattr__(name: str) -> object:
    # The command and the service are in this package, too, and have no need of an HTTP client at once.
    if name in __all__:
        from snakeline import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

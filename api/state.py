"""What every request can reach: set by the application's lifespan, typed here."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar, cast

from anyio import to_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from api.auth import Authenticator
    from api.checksums import Checksums
    from api.client_limits import Connections, OpenStreams
    from api.event_feed import EventFeed
    from api.paging import Cursors
    from api.shared_look import SharedLook
    from api.turns import Turns
    from api.waiting import StopSignal
    from runner.access import Caller
    from runner.callers_access import CallersAccess
    from runner.callers_jobs import CallersJobs
    from runner.health import Readiness

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class AppState:
    """`jobs_of` and `access_of` are for api/callers.py alone: a route gets what they make by its scope."""

    authenticator: Authenticator
    jobs_of: Callable[[Caller], CallersJobs]
    access_of: Callable[[Caller], CallersAccess]
    readiness: SharedLook[Readiness]
    metrics: SharedLook[bytes]
    cursors: Cursors
    feed: EventFeed
    metrics_are_public: bool
    stop: StopSignal
    connections: Connections
    streams: OpenStreams
    file_walks: Turns
    tail_searches: Turns
    making: Turns
    crates: Turns
    checksums: Checksums
    run_reads: Turns
    changes: Turns
    pins: Turns  # looking at workflows' folders, and copying them
    uploads: Turns  # writing files that come with jobs
    lists: Turns
    side_runs: Turns


def state_of(request: Request) -> AppState:
    return cast("AppState", request.state.snakeline)


async def in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run what may wait for the disk where it holds up nobody else."""
    return await to_thread.run_sync(partial(call, *args, **kwargs))

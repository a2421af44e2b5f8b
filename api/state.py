"""What every request can reach: set by the application's lifespan, typed here."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar, cast

from anyio import to_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from api.waiting import StopSignal
    from runner.service import JobService

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class AppState:
    service: JobService
    stop: StopSignal
    problems: Counter[str] = field(default_factory=Counter)  # answered so far, by type


def state_of(request: Request) -> AppState:
    return cast("AppState", request.state.snakeline)


async def in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run what may wait for the disk where it holds up nobody else."""
    return await to_thread.run_sync(partial(call, *args, **kwargs))

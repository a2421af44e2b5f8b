"""Work that takes long is done a few at a time, in turn for each tenant, and for nobody who has gone."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from anyio import CapacityLimiter, to_thread

from api.problems import Kind, Problem
from runner.errors import TooManySideRuns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.requests import Request

    from runner.callers_jobs import CallersJobs

P = ParamSpec("P")
T = TypeVar("T")

_GONE = Kind(400, "client-gone", "Nobody waits for the answer")


class Turns:
    """Runs at most `most` calls on threads of their own, and `of_tenant` for each tenant.

    So a tenant that asks for many waits for itself, and nobody else for all of them.
    """

    def __init__(self, most: int, *, of_tenant: int = 1) -> None:
        self._together = CapacityLimiter(most)
        self._most_of_tenant = of_tenant
        self._of_tenants: dict[str | None, tuple[CapacityLimiter, int]] = {}  # and who holds or awaits it

    async def run(
        self, request: Request, jobs: CallersJobs, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """What `call` returns, once it is the caller's tenant's turn.

        Raises Problem when the client has gone by then and only asked for something.
        """
        async with self._turn_of(jobs):
            if request.method == "GET":
                await require_waiting(request)
            return await to_thread.run_sync(partial(call, *args, **kwargs), limiter=self._together)

    async def run_part(self, jobs: CallersJobs, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `run`, for a part of an answer that is under way: its sender looks after the client.

        Work done part by part lets others in between.
        """
        async with self._turn_of(jobs):
            return await to_thread.run_sync(partial(call, *args, **kwargs), limiter=self._together)

    @asynccontextmanager
    async def _turn_of(self, jobs: CallersJobs) -> AsyncIterator[None]:
        tenant = jobs.caller.visible_tenant
        own, users = self._of_tenants.get(tenant) or (CapacityLimiter(self._most_of_tenant), 0)
        self._of_tenants[tenant] = own, users + 1
        try:
            async with own:
                yield
        finally:
            own, users = self._of_tenants[tenant]
            if users == 1:
                del self._of_tenants[tenant]
            else:
                self._of_tenants[tenant] = own, users - 1


async def require_waiting(request: Request) -> None:
    """Raises Problem when the client has gone."""
    if await request.is_disconnected():
        raise Problem(_GONE, "The connection was closed before it was this request's turn.")


class ShortTurns(Turns):
    """Turns for which few wait: who comes when too many do is told to come again.

    `waiting` of each tenant, and eight times as many in all. A client who has gone gets no turn, whatever
    it asked for.
    """

    def __init__(self, most: int, *, of_tenant: int, waiting: int) -> None:
        super().__init__(most, of_tenant=of_tenant)
        self._most_users = of_tenant + waiting
        self._most_users_in_all = most + 8 * waiting

    async def run(
        self, request: Request, jobs: CallersJobs, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """As `Turns.run`; raises TooManySideRuns at once."""
        _, users = self._of_tenants.get(jobs.caller.visible_tenant) or (None, 0)
        in_all = sum(users for _, users in self._of_tenants.values())
        if users >= self._most_users or in_all >= self._most_users_in_all:
            raise TooManySideRuns
        async with self._turn_of(jobs):
            await require_waiting(request)
            return await to_thread.run_sync(partial(call, *args, **kwargs), limiter=self._together)

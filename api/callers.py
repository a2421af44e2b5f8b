"""What a route asks for to be reached: the caller's jobs or its administration, by the scope it needs.

A route names one of these as the type of a parameter. There is no other way from a route to the runner.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated

import structlog
from fastapi import Depends, Request

from api.auth import require
from api.problems import Problem
from api.state import state_of
from runner.access import Caller, Scope
from runner.callers_access import CallersAccess
from runner.callers_jobs import CallersJobs
from runner.errors import Forbidden, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from fastapi.routing import APIRoute


async def _caller(request: Request, scope: Scope) -> Caller:
    authenticator = state_of(request).authenticator
    caller = await authenticator.caller(request)
    if not authenticator.is_open:
        structlog.contextvars.bind_contextvars(caller=caller.name)  # for this request's line in the log
    require(caller, scope)
    return caller


async def reader(request: Request) -> CallersJobs:
    return state_of(request).jobs_of(await _caller(request, Scope.READ))


async def submitter(request: Request) -> CallersJobs:
    return state_of(request).jobs_of(await _caller(request, Scope.SUBMIT))


async def admin(request: Request) -> CallersAccess:
    return state_of(request).access_of(await _caller(request, Scope.ADMIN))


async def scraper(request: Request) -> None:
    """Lets in who may see the figures of the whole service, all tenants together."""
    state = state_of(request)
    if state.metrics_are_public:
        return
    caller = await _caller(request, Scope.READ)
    if not caller.all_tenants:
        raise Forbidden("These figures are of all tenants: use a key made for the tenant *.")


async def may_still_read(request: Request) -> bool:
    """Whether a request that has been open for a while would be let in now.

    A store or an issuer that cannot say does not end it.
    """
    try:
        await reader(request)
    except Problem as problem:
        return problem.kind.status == HTTPStatus.SERVICE_UNAVAILABLE
    except StoreUnavailable:
        return True
    return True


async def visitor(request: Request) -> Caller | None:
    """Who asks, where it may be anybody; None for one who does not say, or while the store cannot tell."""
    try:
        return await state_of(request).authenticator.visitor(request)
    except StoreUnavailable:
        return None


Reader = Annotated[CallersJobs, Depends(reader)]
Submitter = Annotated[CallersJobs, Depends(submitter)]
Admin = Annotated[CallersAccess, Depends(admin)]
Scraper = Annotated[None, Depends(scraper)]
Visitor = Annotated[Caller | None, Depends(visitor)]

_SCOPES: Mapping[Callable[..., Any], Scope] = {
    reader: Scope.READ,
    submitter: Scope.SUBMIT,
    admin: Scope.ADMIN,
    scraper: Scope.READ,
}


def scope_of(route: APIRoute) -> Scope | None:
    """The scope a route needs; None for one that is open to everybody."""
    calls = [each.call for each in route.dependant.dependencies if each.call is not None]
    found = {_SCOPES[call] for call in calls if call in _SCOPES}
    assert len(found) <= 1, route.path
    return next(iter(found), None)


def knows_its_visitor(route: APIRoute) -> bool:
    """Whether a route is open but tells more to those who say who they are."""
    return any(each.call is visitor for each in route.dependant.dependencies)

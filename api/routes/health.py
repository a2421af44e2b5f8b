"""`/healthz`, `/readyz` and `/metrics`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response

from api import health_schemas, metrics
from api.callers import Scraper, Visitor
from api.documents import example, problems
from api.problems import NOT_READY, Problem
from api.representations import JSON, json_response, readiness_document
from api.state import state_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.health import Readiness

router = APIRouter(tags=["health"])


@router.get(
    "/healthz",
    operation_id="get_health",
    summary="Whether the process answers",
    response_model=health_schemas.Health,
    response_description="It does. No disk, no store and no other thread is asked.",
    responses=problems(),
)
async def get_health() -> Response:
    return Response(b'{"status":"ok"}', media_type=JSON)


@router.get(
    "/readyz",
    operation_id="get_readiness",
    summary="Whether a job submitted now would be accepted and run",
    response_model=health_schemas.Readiness,
    response_description="It would, and this is what would run it.",
    responses=problems(
        503,
        examples={
            503: example(
                Problem(
                    NOT_READY,
                    "accepting: stopping",
                    members={
                        "checks": [{"name": "accepting", "ok": False, "detail": "stopping"}],
                        "engine": {"name": "mock", "version": "mock", "is_mock": True},
                        "isolation": "cgroup",
                        "isolation_certain": True,
                        "isolation_protections": ["landlock", "memory_limit"],
                        "isolation_detail": "every process of a job is in one control group "
                        "and ended with it",
                    },
                )
            )
        },
    ),
)
async def get_readiness(request: Request, visitor: Visitor) -> Response:
    """503 has the same fields; `checks` says what is missing and what to do.

    Where callers have to say who they are, one who does not gets the status alone.
    """
    readiness = await state_of(request).readiness.get()
    if visitor is not None and not visitor.all_tenants:
        readiness = _without_paths(readiness, request.app.private_paths.hidden)
    document = {} if visitor is None else readiness_document(readiness)
    if readiness.ready:
        return json_response({"status": "ready", **document}, headers={"Cache-Control": "no-store"})
    missing = "Details are for callers with a key."
    if visitor is not None:
        missing = "; ".join(f"{check.name}: {check.detail}" for check in readiness.checks if not check.ok)
    raise Problem(
        NOT_READY, missing, headers={"Retry-After": "5", "Cache-Control": "no-store"}, members=document
    )


def _without_paths(readiness: Readiness, hidden: Callable[[str], str]) -> Readiness:
    """As a tenant may read it: where the service's files are is for its operators."""
    checks = tuple(replace(check, detail=hidden(check.detail)) for check in readiness.checks)
    isolation = replace(readiness.isolation, detail=hidden(readiness.isolation.detail))
    return replace(readiness, checks=checks, isolation=isolation)


@router.get(
    "/metrics",
    operation_id="get_metrics",
    summary="Figures for Prometheus",
    response_class=Response,
    responses={
        200: {
            "description": "Prometheus' text format.",
            "content": {"text/plain": {"schema": {"type": "string"}, "example": "snakeline_ready 1.0\n"}},
        },
        **problems(),
    },
)
async def get_metrics(request: Request, _scraper: Scraper) -> Response:
    """Answers also while the store does not; what cannot be told then is left out."""
    state = state_of(request)
    return Response(
        await state.metrics.get(),
        media_type=metrics.CONTENT_TYPE,
        headers={"Cache-Control": "no-store"},
    )

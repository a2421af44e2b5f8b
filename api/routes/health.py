"""`/healthz`, `/readyz` and `/metrics`."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from api import metrics, schemas
from api.documents import example, problems
from api.problems import NOT_READY, Problem
from api.representations import JSON, json_response, readiness_document
from api.state import in_thread, state_of

router = APIRouter(tags=["health"])


@router.get(
    "/healthz",
    operation_id="get_health",
    summary="Whether the process answers",
    response_model=schemas.Health,
    response_description="It does. No disk, no store and no other thread is asked.",
    responses=problems(),
)
async def get_health() -> Response:
    return Response(b'{"status":"ok"}', media_type=JSON)


@router.get(
    "/readyz",
    operation_id="get_readiness",
    summary="Whether a job submitted now would be accepted and run",
    response_model=schemas.Readiness,
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
                        "isolation": "subreaper",
                    },
                )
            )
        },
    ),
)
async def get_readiness(request: Request) -> Response:
    """503 has the same fields; `checks` says what is missing and what to do."""
    readiness = await in_thread(state_of(request).service.readiness)
    document = readiness_document(readiness)
    if readiness.ready:
        return json_response({"status": "ready", **document}, headers={"Cache-Control": "no-store"})
    missing = "; ".join(f"{check.name}: {check.detail}" for check in readiness.checks if not check.ok)
    raise Problem(
        NOT_READY, missing, headers={"Retry-After": "5", "Cache-Control": "no-store"}, members=document
    )


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
async def get_metrics(request: Request) -> Response:
    """Answers also while the store does not; what cannot be told then is left out."""
    state = state_of(request)
    readiness = await in_thread(state.service.readiness)
    figures = await in_thread(state.service.figures)
    return Response(
        metrics.exposition(readiness, figures, state.problems),
        media_type=metrics.CONTENT_TYPE,
        headers={"Cache-Control": "no-store"},
    )

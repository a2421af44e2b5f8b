"""`/workflows/{name}/plan`: what a job would do, before it is submitted."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response

from api import plan_schemas
from api.callers import Submitter
from api.documents import example, problems
from api.examples import RULE_GRAPH_SVG
from api.graph_answer import graph_picture, wants_svg
from api.graph_svg import SVG
from api.plan_documents import plan_document
from api.query_names import each_once
from api.representations import json_response
from api.request_body import read_model
from api.state import state_of
from runner.errors import TooManySideRuns, WorkflowNotFound

router = APIRouter(tags=["workflows"])


@router.post(
    "/workflows/{name}/plan",
    operation_id="plan_workflow",
    summary="Say what a job would do, without one",
    response_model=plan_schemas.Plan,
    response_description="The plan; also where there can be none: it is not `ok` then, and says why.",
    responses={
        200: {"content": {SVG: {"schema": {"type": "string"}, "example": RULE_GRAPH_SVG}}},
        **problems(
            400,
            404,
            408,
            413,
            415,
            422,
            503,
            507,
            examples={
                404: example(WorkflowNotFound("dmeo", ("demo", "wordcount"))),
                503: example(TooManySideRuns()),
            },
        ),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/PlanWorkflow"}}},
        }
    },
)
async def plan_workflow(
    request: Request,
    jobs: Submitter,
    name: str,
    query: Annotated[plan_schemas.ReadPlan, Query()],
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> Response:
    """A dry run in a fresh copy of the workflow, isolated as jobs are; nothing of it is kept.

    The body is checked as that of a job is. It takes none of the jobs' cores; a few plans are made at a time,
    in turn for each tenant. With `Accept: image/svg+xml` or `format=svg` the answer is a picture of the
    graph, if the plan is `ok`.
    """
    each_once(request)
    state = state_of(request)
    asked = await read_model(request, plan_schemas.PlanWorkflow, state.stop)
    plan = await state.side_runs.run(
        request, jobs, jobs.plan, asked.spec(name), query.limit, asked.attachments
    )
    if plan.ok and wants_svg(query.format, accept):
        return await graph_picture(plan.graph)
    return json_response(plan_document(plan))

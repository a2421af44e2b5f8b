"""`/jobs/{job_id}/graph`: the rules of a job's run and which feeds which, as JSON or as a picture."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response

from api.callers import Reader
from api.documents import BAD_PARAMETER, header, problems
from api.examples import RULE_GRAPH_SVG
from api.graph_answer import graph_answer, wants_svg
from api.query_names import each_once
from api.routes.jobs import known_id
from api.state import state_of
from api.task_schemas import GetGraph, RuleGraph

router = APIRouter(tags=["tasks"])

_ETAG = {"ETag": header("Changes with the graph, and is another one for the picture.")}


@router.get(
    "/jobs/{job_id}/graph",
    operation_id="get_job_graph",
    summary="Get the graph of a job's rules",
    response_model=RuleGraph,
    response_description="The graph as the run has told it so far: none before it has read its workflow.",
    responses={
        200: {
            "content": {"image/svg+xml": {"schema": {"type": "string"}, "example": RULE_GRAPH_SVG}},
            "headers": _ETAG,
        },
        304: {"description": "It is still the graph of `If-None-Match`.", "headers": _ETAG},
        **problems(404, 422, 503, examples=BAD_PARAMETER),
    },
)
async def get_job_graph(
    request: Request,
    jobs: Reader,
    job_id: str,
    query: Annotated[GetGraph, Query()],
    *,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Rules with their tasks counted by status, and which rule feeds which.

    With `Accept: image/svg+xml`, as browsers send it for `<img>`, or `format=svg` it is a picture, in light
    or dark colours as the reader's system has them.
    """
    each_once(request)
    known_id(job_id)
    graph = await state_of(request).run_reads.run(request, jobs, jobs.graph, job_id, query.attempt)
    return await graph_answer(graph, as_svg=wants_svg(query.format, accept), if_none_match=if_none_match)

"""`/jobs/{job_id}/usage`: what an attempt used of the machine as time went by."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic_core import to_json

from api.callers import Reader
from api.documents import BAD_PARAMETER, header, problems
from api.etags import matches
from api.query_names import each_once
from api.representations import JSON
from api.routes.jobs import known_id
from api.state import state_of
from api.usage_schemas import GetUsage, UsageHistory

if TYPE_CHECKING:
    from runner import usage_history
    from runner.callers_jobs import CallersJobs

router = APIRouter(tags=["jobs"])

_ETAG = {"ETag": header("Changes with what is told.")}


@router.get(
    "/jobs/{job_id}/usage",
    operation_id="get_job_usage",
    summary="Get what a job used as time went by",
    response_model=UsageHistory,
    response_description="Its processor and memory, point by point; none before it was first looked at.",
    responses={
        200: {"headers": _ETAG},
        304: {"description": "It is still what `If-None-Match` names.", "headers": _ETAG},
        **problems(404, 422, 503, examples=BAD_PARAMETER),
    },
)
async def get_job_usage(
    request: Request,
    jobs: Reader,
    job_id: str,
    query: Annotated[GetUsage, Query()],
    *,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """A running attempt is looked at every two seconds, or less often where much is running.

    The last point of an ended attempt is its end, so that even one that nobody had time to look at has one.
    What runs on a cluster is not seen.
    """
    each_once(request)
    known_id(job_id)
    content = await state_of(request).run_reads.run(request, jobs, _content, jobs, job_id, query.attempt)
    headers = {"ETag": f'"{hashlib.blake2b(content, digest_size=12).hexdigest()}"'}
    if if_none_match is not None and matches(if_none_match, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(content, 200, headers, JSON)


def _content(jobs: CallersJobs, job_id: str, attempt: int | None) -> bytes:
    """Written on the thread that reads it: a thousand points take longer than the event loop should."""
    return to_json(_document(jobs.usage(job_id, attempt)))


def _document(history: usage_history.UsageHistory) -> dict[str, Any]:
    return {
        "job_id": history.job_id,
        "attempt": history.attempt,
        "started_at": history.started_at,
        "ended_at": history.ended_at,
        "limits": {"cores": history.cores, "memory_bytes": history.memory_bytes},
        "usage": asdict(history.usage) if history.usage else None,
        "points": [
            {
                "elapsed_s": point.elapsed_s,
                "cores": point.cores,
                "rss_bytes": point.rss_bytes,
                "processes": point.processes,
                "read_bytes": point.read_bytes,
                "written_bytes": point.written_bytes,
            }
            for point in history.points
        ],
    }

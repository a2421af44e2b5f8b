"""`/jobs/{id}/report`: the engine's report of what a job has made."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response

from api import plan_schemas
from api.callers import Reader, Submitter
from api.content_types import inline
from api.documents import BAD_PARAMETER, example, header, parts, problems
from api.file_answer import Conditions, file_answer
from api.query_names import no_query
from api.representations import json_response
from api.routes.jobs import known_id
from api.state import in_thread, state_of
from runner.errors import ReportImpossible, ReportNotFound, TooManySideRuns

router = APIRouter(tags=["outputs"])

HTML = "text/html; charset=utf-8"
# It runs scripts and styles of its own and sees nothing of this service: an origin of its
# own, no connections, no forms. Its charts are compiled by the browser.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'unsafe-inline' 'unsafe-eval'",
        "style-src 'unsafe-inline' data:",
        "img-src data: blob:",
        "font-src data:",
        "frame-src data: blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'self'",
        "sandbox allow-scripts allow-downloads",
    )
)
_CONTENT = {"text/html": {"schema": {"type": "string"}, "example": "<!DOCTYPE html>…"}}
_HEADERS = {
    "ETag": header("Changes when it is made anew."),
    "Last-Modified": header("When it was made."),
    "Accept-Ranges": header("`bytes`"),
    "Content-Security-Policy": header("What keeps it apart from this service in a browser."),
}
_IMPOSSIBLE = example(ReportImpossible("File plots/quality.svg marked for report but does not exist."))


@router.post(
    "/jobs/{job_id}/report",
    operation_id="make_job_report",
    summary="Make a job's report",
    status_code=201,
    response_model=plan_schemas.Report,
    response_description="The report has been made.",
    responses={
        201: {"headers": {"Location": header("Where the report is.")}},
        **problems(
            404,
            409,
            413,
            422,
            503,
            507,
            examples={**BAD_PARAMETER, 409: _IMPOSSIBLE, 503: example(TooManySideRuns())},
        ),
    },
)
async def make_job_report(request: Request, jobs: Submitter, job_id: str) -> Response:
    """Snakemake's own HTML report of what the job has made, in place of an earlier one.

    No rule is run. Answers when it is there; a retry of the job waits until then. 409 before the job's
    end, and where Snakemake cannot make one, with its reason.
    """
    no_query(request)
    known_id(job_id)
    made = await state_of(request).side_runs.run(request, jobs, jobs.make_report, job_id)
    with closing(made):
        here = f"/jobs/{job_id}"
        document = {
            "job_id": job_id,
            "size": made.size_bytes,
            "made_at": datetime.fromtimestamp(made.modified_ns / 1e9, UTC),
            "links": {"self": f"{here}/report", "job": here},
        }
    return json_response(document, 201, {"Location": f"{here}/report"})


@router.get(
    "/jobs/{job_id}/report",
    operation_id="get_job_report",
    summary="Fetch a job's report",
    response_class=Response,
    response_description="The report as last made: one HTML file that needs nothing else.",
    responses={
        200: {"content": _CONTENT, "headers": _HEADERS},
        **parts("report", _CONTENT, _HEADERS),
        **problems(404, 416, 422, 503, examples={**BAD_PARAMETER, 404: example(ReportNotFound("019…"))}),
    },
)
async def get_job_report(
    request: Request,
    jobs: Reader,
    job_id: str,
    *,
    range_: Annotated[str | None, Header(alias="Range", description="One range: `bytes=0-99`.")] = None,
    if_range: Annotated[str | None, Header(description="Honour `Range` only for this `ETag`.")] = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """For a browser to show, by itself or in a frame of a page of this service.

    It was written by the job, so it is shown in a sandbox: its scripts run in an origin of their own and
    can neither read anything of this service nor send anything.
    """
    no_query(request)
    report = await in_thread(jobs.open_report, known_id(job_id))
    headers = {
        "Content-Disposition": inline(f"report-{job_id}.html".encode()),
        "Content-Security-Policy": _POLICY,
    }
    try:
        return file_answer(report, Conditions(if_none_match, range_, if_range), headers, media_type=HTML)
    except BaseException:
        report.close()
        raise

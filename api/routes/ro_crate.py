"""`/jobs/{job_id}/ro-crate`: what a job's run was, for archives and for other people's tools."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from api.accepts import accepts
from api.callers import Reader
from api.content_types import attachment
from api.crate_archive import crate_members, packed_crate
from api.crate_files import NO_CRATE
from api.documents import BAD_PARAMETER, TOO_MANY_STREAMS, example, header, problems
from api.examples import CRATE
from api.made_response import MadeResponse
from api.problems import Problem
from api.query_names import each_once
from api.representations import JSON
from api.routes.jobs import known_id
from api.state import state_of
from api.zip_archive import ZIP, archive

router = APIRouter(tags=["outputs"])

LD_JSON = "application/ld+json"
_DOCUMENT = {"schema": {"type": "object"}, "example": CRATE}


class FetchCrate(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: Literal["json", "zip"] | None = Field(
        default=None,
        description="`zip`: with the files; `json`: the document alone, unless `Accept` says otherwise.",
    )
    license: str | None = Field(
        default=None,
        min_length=1,
        max_length=300,
        description="What the crate is to say of its license: an address such as "
        "`https://spdx.org/licenses/CC-BY-4.0`, or a text.",
    )


@router.get(
    "/jobs/{job_id}/ro-crate",
    operation_id="get_job_ro_crate",
    summary="Get a job's run as an RO-Crate",
    response_class=Response,
    response_description="The crate's document, or the whole crate.",
    responses={
        200: {
            "content": {
                JSON: _DOCUMENT,
                LD_JSON: _DOCUMENT,
                ZIP: {"schema": {"type": "string"}, "example": "the archive's bytes"},
            },
            "headers": {"Content-Disposition": header("Of an archive: `attachment`, with a name.")},
        },
        **problems(
            404,
            409,
            422,
            429,
            503,
            examples={
                **BAD_PARAMETER,
                409: example(Problem(NO_CRATE, "The job is running: wait for its end.")),
                429: TOO_MANY_STREAMS,
            },
        ),
    },
)
async def get_job_ro_crate(
    request: Request,
    jobs: Reader,
    job_id: str,
    query: Annotated[FetchCrate, Query()],
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> Response:
    """Workflow Run RO-Crate 0.5: what ran, on what, with which results, and an action for each task.

    `Accept: application/zip` or `format=zip` fetches it with the files. 409 before the job has ended, and for
    one that never ran.
    """
    each_once(request)
    known_id(job_id)
    state = state_of(request)
    crate = await state.crates.run(request, jobs, packed_crate, jobs, job_id, query.license)
    if query.format == "zip" or (query.format is None and accepts(accept, ZIP)):
        pieces = archive(crate_members(jobs, crate))
        headers = {"Content-Disposition": attachment(f"{job_id}.crate.zip".encode())}
        return MadeResponse(state, jobs, pieces, media_type=ZIP, headers=headers)
    media_type = LD_JSON if accepts(accept, LD_JSON) else JSON
    headers = {"Content-Length": str(crate.document.size_bytes)}
    return MadeResponse(state, jobs, crate.document.pieces(), media_type=media_type, headers=headers)

"""`/jobs`: submit, list, get, cancel, retry, delete."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from functools import partial
from typing import Annotated

import structlog
from fastapi import APIRouter, Header, Query, Request, Response

from api import schemas
from api.callers import Reader, Submitter, reader
from api.documents import BAD_PARAMETER, ETAG, TOO_MANY_STREAMS, example, header, problems
from api.etags import matches
from api.job_upload import submit_with_files
from api.paging import next_link, no_cursor
from api.problems import invalid_header
from api.query_names import each_once, no_query
from api.representations import job_document, job_etag, job_response, json_response
from api.request_body import read_model
from api.state import AppState, in_thread, state_of
from api.upload_requests import MEDIA_TYPE, is_upload
from api.waiting import Wake
from runner.callers_jobs import CallersJobs
from runner.errors import FieldError, InvalidSpec, JobNotFound, WorkflowNotFound
from runner.job_store import JobPage, JobQuery, Submitted
from runner.jobs import UPLOADED, Job, JobSpec, JobStatus

router = APIRouter(tags=["jobs"])

_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_REPEATABLE = frozenset({"status", "label"})
_KEY = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")


def known_id(job_id: str) -> str:
    """The id, if it can be one of ours; the request's log lines then name it.

    Raises JobNotFound without asking the store.
    """
    if _UUID7.fullmatch(job_id) is None:
        raise JobNotFound(job_id[:100])
    structlog.contextvars.bind_contextvars(job_id=job_id)
    return job_id


@router.post(
    "/jobs",
    operation_id="submit_job",
    summary="Submit a job",
    status_code=201,
    response_model=schemas.Job,
    response_description="The job, durably stored; or the one this Idempotency-Key has already made.",
    responses={
        201: {
            "headers": {
                **ETAG,
                "Location": header("Where the job is."),
                "Idempotent-Replayed": header("`true`: an earlier request with this key made the job."),
            }
        },
        **problems(400, 408, 413, 415, 422, 429, 503, 507),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/SubmitJob"}},
                MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/SubmitJobWithFiles"}},
            },
        }
    },
)
async def submit_job(
    request: Request,
    jobs: Submitter,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=255,
            description="1 to 255 printable ASCII characters. The same key and body answer the same job.",
        ),
    ] = None,
) -> Response:
    """Answers once the job is durably stored: what was answered 201 survives a crash and a power cut."""
    no_query(request)
    if idempotency_key is not None and _KEY.fullmatch(idempotency_key) is None:
        raise invalid_header("Idempotency-Key", "must be 1 to 255 printable ASCII characters")
    state = state_of(request)
    if is_upload(request.method, request.url.path, request.headers.raw):
        submitted = await submit_with_files(request, state, jobs, idempotency_key)
    else:
        spec = (await read_model(request, schemas.SubmitJob, state.stop)).spec()
        submitted = await _submit(request, state, jobs, spec, idempotency_key)
    structlog.contextvars.bind_contextvars(job_id=submitted.job.id)
    headers = {"Location": f"/jobs/{submitted.job.id}"}
    if submitted.replayed:
        headers["Idempotent-Replayed"] = "true"
    return job_response(submitted.job, 201, headers)


async def _submit(
    request: Request, state: AppState, jobs: CallersJobs, spec: JobSpec, idempotency_key: str | None
) -> Submitted:
    workflow = None
    try:
        if spec.workflow != UPLOADED:  # which is refused
            workflow = jobs.pinned(spec.workflow)
            if workflow is None:
                workflow = await state.pins.run(request, jobs, jobs.pin, spec.workflow)
        future = jobs.submit(spec, workflow=workflow, idempotency_key=idempotency_key)
    except WorkflowNotFound as error:
        raise InvalidSpec((FieldError("/workflow", str(error)),)) from None
    # Shielded: a client that goes away must not turn into a cancelled write of somebody else's group.
    return await asyncio.shield(asyncio.wrap_future(future))


@router.get(
    "/jobs",
    operation_id="list_jobs",
    summary="List jobs",
    response_model=schemas.JobPage,
    response_description="A page of jobs, newest first unless `order=asc`.",
    responses={
        200: {"headers": {"Link": header('`rel="next"`: the next page (RFC 8288).')}},
        **problems(
            400,
            422,
            503,
            examples={
                **BAD_PARAMETER,
                400: example(no_cursor()),
            },
        ),
    },
)
async def list_jobs(
    request: Request, jobs: Reader, filters: Annotated[schemas.ListJobs, Query()]
) -> Response:
    """Filters hold together; several statuses are alternatives. Follow `next_cursor` or the `Link` header."""
    each_once(request, but=_REPEATABLE)
    cursors = state_of(request).cursors
    query = JobQuery(
        tenant=filters.tenant,
        statuses=tuple(filters.status),
        workflow=filters.workflow,
        labels=tuple((key, value) for key, _, value in (label.partition(":") for label in filters.label)),
        q=filters.q,
        created_after=filters.created_after,
        created_before=filters.created_before,
        order=filters.order,
        limit=filters.limit,
        after_seq=None if filters.cursor is None else cursors.decode(filters.cursor, filters),
    )
    page, places = await state_of(request).lists.run(request, jobs, _page_and_places, jobs, query)
    cursor = cursors.encode(page.items[-1].seq, filters) if page.has_more and page.items else None
    return json_response(
        {
            "items": [job_document(job, places.get(job.id)) for job in page.items],
            "total": page.total,
            "total_is_exact": page.total_is_exact,
            "next_cursor": cursor,
        },
        headers={"Link": next_link(cursor, filters)} if cursor else None,
    )


def _page_and_places(jobs: CallersJobs, query: JobQuery) -> tuple[JobPage, Mapping[str, int]]:
    page = jobs.list(query)
    return page, jobs.queue_places(page.items)


@router.get(
    "/jobs/{job_id}",
    operation_id="get_job",
    summary="Get a job, or wait for it to change",
    response_model=schemas.Job,
    response_description="The job as it is now.",
    responses={
        200: {"headers": ETAG},
        304: {"description": "It is still the version of `If-None-Match`.", "headers": ETAG},
        **problems(404, 422, 429, 503, examples={**BAD_PARAMETER, 429: TOO_MANY_STREAMS}),
    },
)
async def get_job(
    request: Request,
    jobs: Reader,
    job_id: str,
    query: Annotated[schemas.WaitForJob, Query()],
    if_none_match: Annotated[
        str | None, Header(description="An `ETag` of this job, or several, or `*`.")
    ] = None,
) -> Response:
    """With `wait`, answers as soon as the job is another version than `If-None-Match` names.

    Without `If-None-Match` it waits for the next change from now on, but not for one of a job that has
    ended. When time is up, or the service stops, the answer is the job as it is, or 304.
    """
    each_once(request)
    known_id(job_id)
    state = state_of(request)
    job = await in_thread(jobs.get, job_id)
    if (
        query.wait > 0
        and _is_unchanged(job, if_none_match)
        and not (if_none_match is None and job.status.is_terminal)
    ):
        with state.streams.open(request.scope):
            job = await _next_version(request, state, jobs, job, query.wait)
        await reader(request)  # what may be read was decided a long poll ago
    if if_none_match is not None and matches(if_none_match, job_etag(job)):
        return Response(status_code=304, headers={"ETag": job_etag(job)})
    if job.status is not JobStatus.PENDING:
        return job_response(job)
    places = await in_thread(jobs.queue_places, [job])
    return job_response(job, queue_position=places.get(job.id))


def _is_unchanged(job: Job, if_none_match: str | None) -> bool:
    return if_none_match is None or matches(if_none_match, job_etag(job))


async def _next_version(
    request: Request, state: AppState, jobs: CallersJobs, known: Job, wait_s: float
) -> Job:
    """The first version of the job after `known`, or the same when `wait_s` is up."""
    deadline = time.monotonic() + wait_s
    async with Wake(partial(jobs.watch, job_id=known.id), state.stop, request.receive) as wake:
        while True:
            # Subscribed first, then looked: a change between the two is seen by one or the other.
            wake.clear()
            job = await in_thread(jobs.get, known.id)
            left_s = deadline - time.monotonic()
            if job.version != known.version or left_s <= 0 or wake.is_over:
                return job
            await wake.wait(left_s)


@router.post(
    "/jobs/{job_id}/cancel",
    operation_id="cancel_job",
    summary="Cancel a job",
    status_code=202,
    response_model=schemas.Job,
    response_description="The job. A running one is `cancelled` only once its last process is gone.",
    responses={202: {"headers": ETAG}, **problems(404, 409, 413, 422, 503, 507, examples=BAD_PARAMETER)},
)
async def cancel_job(request: Request, jobs: Submitter, job_id: str) -> Response:
    """Asking twice is one request. 409 when the job has ended."""
    no_query(request)
    changes = state_of(request).changes
    return job_response(await changes.run(request, jobs, jobs.cancel, known_id(job_id)), 202)


@router.post(
    "/jobs/{job_id}/retry",
    operation_id="retry_job",
    summary="Run a failed or cancelled job again",
    status_code=202,
    response_model=schemas.Job,
    response_description="The job, pending again, as a new attempt.",
    responses={202: {"headers": ETAG}, **problems(404, 409, 413, 422, 429, 503, 507, examples=BAD_PARAMETER)},
)
async def retry_job(request: Request, jobs: Submitter, job_id: str) -> Response:
    """A new attempt in the same working directory: Snakemake resumes. Earlier logs stay."""
    no_query(request)
    changes = state_of(request).changes
    return job_response(await changes.run(request, jobs, jobs.retry, known_id(job_id)), 202)


@router.delete(
    "/jobs/{job_id}",
    operation_id="delete_job",
    summary="Delete an ended job",
    status_code=204,
    response_class=Response,
    response_description="The job and all its files are gone.",
    responses=problems(404, 409, 413, 422, 503, 507, examples=BAD_PARAMETER),
)
async def delete_job(request: Request, jobs: Submitter, job_id: str) -> Response:
    """Its row, logs and working directory. 409 while it is pending or running."""
    no_query(request)
    await state_of(request).changes.run(request, jobs, jobs.delete, known_id(job_id))
    return Response(status_code=204)

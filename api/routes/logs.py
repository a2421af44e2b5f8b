"""`/jobs/{job_id}/logs`: the whole log, a part of it, or its growing end."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response

from api import schemas
from api.callers import Reader, may_still_read
from api.documents import BAD_PARAMETER, TOO_MANY_STREAMS, header, parts, problems
from api.etags import matches
from api.log_range import Span, Unsatisfiable, kept, parse_range
from api.log_response import LogResponse
from api.log_stream import FollowResponse
from api.problems import RANGE_NOT_SATISFIABLE, Problem, invalid_header, invalid_query
from api.query_names import each_once
from api.routes.jobs import known_id
from api.state import in_thread, state_of
from runner.callers_jobs import CallersJobs
from runner.jobs import Job
from runner.log_store import Gap, Log

router = APIRouter(tags=["logs"])

_TEXT_CONTENT = {
    "text/plain": {
        "schema": {"type": "string"},
        "example": "Building DAG of jobs...\nProvided cores: 1\n1 of 5 steps (20%) done\n",
    }
}
_EVENT_CONTENT = {
    "text/event-stream": {
        "schema": {"type": "string"},
        "example": (
            "id: 24\ndata: Building DAG of jobs...\ndata: \n\nevent: end\nid: 24\n"
            'data: {"attempt":1,"status":"completed","exit_code":0,"exit_signal":null}\n\n'
        ),
    }
}


@dataclass(frozen=True, slots=True)
class _Look:
    """One look at a log: everything the answer says of it is of the same moment."""

    job: Job
    attempt: int
    log: Log
    size: int
    gap: Gap | None

    @property
    def etag(self) -> str | None:
        """Strong, and only once the log can no longer change."""
        has_ended = self.job.attempt > self.attempt or self.job.status.is_terminal
        return f'"{self.attempt}-{self.size}"' if has_ended else None

    @property
    def headers(self) -> dict[str, str]:
        headers = {
            "Accept-Ranges": "bytes",
            "Cache-Control": "private, no-cache",
            "X-Log-Attempt": str(self.attempt),
            "X-Log-Size": str(self.size),
        }
        if self.gap is not None:
            headers["X-Log-Skipped"] = f"{self.gap.start}-{self.gap.end}"
        if self.etag is not None:
            headers["ETag"] = self.etag
        return headers


_HEADERS_OUT = {
    "X-Log-Attempt": header("The attempt this log is of."),
    "X-Log-Size": header("Bytes the job has written, those no longer kept included."),
    "X-Log-Skipped": header(
        "`start-end`: the bytes from `start` up to, not including, `end` are no longer kept."
    ),
    "X-Log-Offset": header("With `offset`, `limit` or `tail`: where in the log the answer begins."),
    "X-Log-Next-Offset": header("With `offset` or `limit`: the `offset` to go on with."),
    "ETag": header("Only once the attempt has ended."),
    "Accept-Ranges": header("`bytes`"),
}


@router.get(
    "/jobs/{job_id}/logs",
    operation_id="get_job_log",
    summary="Read or follow a job's log",
    response_class=Response,
    response_description="What the job wrote, as it wrote it; followed as events if asked to.",
    responses={
        200: {
            "content": {**_TEXT_CONTENT, **_EVENT_CONTENT},
            "headers": _HEADERS_OUT,
        },
        **parts("log", _TEXT_CONTENT, _HEADERS_OUT),
        **problems(404, 416, 422, 429, 503, examples={**BAD_PARAMETER, 429: TOO_MANY_STREAMS}),
    },
)
async def get_job_log(
    request: Request,
    jobs: Reader,
    job_id: str,
    query: Annotated[schemas.ReadLog, Query()],
    *,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
    range_: Annotated[str | None, Header(alias="Range", description="One range: `bytes=0-99`.")] = None,
    if_range: Annotated[str | None, Header(description="Honour `Range` only for this `ETag`.")] = None,
    if_none_match: Annotated[str | None, Header()] = None,
    last_event_id: Annotated[
        str | None, Header(description="Resume an event stream behind this offset.")
    ] = None,
) -> Response:
    """What the job wrote to stdout and stderr, in that order. Offsets count its bytes and never change.

    A very long log keeps its beginning and its end; a line in the middle says how many bytes are missing.
    `tail`, `offset` and `limit` choose a part; `Range` works where none of them is given. `follow=true`
    streams until the attempt ends: as plain text, or, with `Accept: text/event-stream`, as events whose ids
    are offsets (`message`, `gap`, and `end` with the status and exit code), to be resumed by
    `Last-Event-ID`. Name the `attempt` when you resume: the default is always the latest.
    """
    each_once(request)
    known_id(job_id)
    if query.tail is not None and (query.offset is not None or query.limit is not None):
        raise invalid_query("tail", "cannot be combined with offset or limit")
    if query.follow:
        return await _follow(
            request, jobs, job_id, query, as_events="text/event-stream" in accept, resume=last_event_id
        )
    look = await in_thread(_look, jobs, job_id, query.attempt)
    if query.tail is not None:
        start = await _tail_offset(request, jobs, look, query.tail)
        span = Span(min(start, look.size), look.size)
        return _answer(look, span, marked=True, headers={"X-Log-Offset": str(span.start)})
    if query.offset is not None or query.limit is not None:
        return _slice(look, query.offset or 0, query.limit)
    if look.etag is not None and if_none_match is not None and matches(if_none_match, look.etag):
        return Response(status_code=304, headers=look.headers)
    if if_range is None or if_range == look.etag:
        try:
            ranged = parse_range(range_, look.size, look.gap)
        except Unsatisfiable:
            raise Problem(
                RANGE_NOT_SATISFIABLE,
                f"The log has {look.size} bytes; none that are kept lie in this range.",
                headers={"Content-Range": f"bytes */{look.size}"},
            ) from None
        if ranged is not None:
            headers = {"Content-Range": f"bytes {ranged.start}-{ranged.end - 1}/{look.size}"}
            return _answer(look, ranged, status=206, marked=False, headers=headers)
    return _answer(look, Span(0, look.size), marked=True)


def _look(jobs: CallersJobs, job_id: str, attempt: int | None) -> _Look:
    # The job first: a log that is complete by the job's word is complete when its size is taken.
    job, number, log = jobs.log(job_id, attempt)
    size = log.size()
    gap = log.gap()
    if gap is not None and gap.end > size:
        size = log.size()  # it grew, and lost its middle, between the two looks
    return _Look(job, number, log, size, gap)


async def _tail_offset(request: Request, jobs: CallersJobs, look: _Look, lines: int) -> int:
    if lines == 0:
        return look.size
    return await state_of(request).tail_searches.run(request, jobs, look.log.tail_offset, lines)


def _slice(look: _Look, offset: int, limit: int | None) -> Response:
    """Exactly the bytes of the log, never a marker: a part ends before the gap or begins behind it."""
    start = min(offset, look.size)
    part = kept(Span(start, look.size if limit is None else min(start + limit, look.size)), look.gap)
    if part.start != start:
        end = look.size if limit is None else min(part.start + limit, look.size)
        part = Span(part.start, end)
    headers = {"X-Log-Offset": str(part.start), "X-Log-Next-Offset": str(part.end)}
    return _answer(look, part, marked=False, headers=headers)


def _answer(
    look: _Look, span: Span, *, status: int = 200, marked: bool, headers: dict[str, str] | None = None
) -> Response:
    return LogResponse(
        look.log,
        span,
        status=status,
        headers={**look.headers, **(headers or {})},
        gap=look.gap,
        marked=marked,
    )


async def _follow(
    request: Request,
    jobs: CallersJobs,
    job_id: str,
    query: schemas.ReadLog,
    *,
    as_events: bool,
    resume: str | None,
) -> Response:
    state = state_of(request)
    if query.limit is not None:
        raise invalid_query("limit", "cannot be combined with follow")
    look = await in_thread(_look, jobs, job_id, query.attempt)
    if as_events and resume:
        if not (resume.isascii() and resume.isdigit() and len(resume) < 20):
            raise invalid_header("Last-Event-ID", "must be the id of an event of this stream: an offset")
        offset = int(resume)
    elif query.tail is not None:
        offset = await _tail_offset(request, jobs, look, query.tail)
    else:
        offset = query.offset or 0
    headers = {"X-Log-Attempt": str(look.attempt), "X-Log-Offset": str(offset)}
    return FollowResponse(
        state,
        look.job,
        look.attempt,
        look.log,
        offset,
        jobs=jobs,
        as_events=as_events,
        headers=headers,
        is_allowed=None if state.authenticator.is_open else partial(may_still_read, request),
    )

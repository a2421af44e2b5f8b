"""`/events` and `/jobs/{job_id}/events`: changes of jobs, as they happen."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Header, Query, Request, Response

from api.callers import Reader, may_still_read
from api.documents import BAD_PARAMETER, TOO_MANY_STREAMS, problems
from api.event_feed import EventFeed, Follower, Told, told
from api.event_ids import EventIds
from api.event_schemas import EVENT_CONTENT, FollowJob, FollowJobs
from api.event_stream import PAGE, EventsResponse
from api.problems import invalid_header, invalid_query
from api.query_names import each_once
from api.routes.jobs import known_id
from api.state import in_thread, state_of
from runner.callers_jobs import CallersJobs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

router = APIRouter(tags=["events"])

_RESUME = Header(description="Resume behind the event with this id; a browser sends it by itself.")
_REFUSED = problems(404, 422, 429, 503, examples={**BAD_PARAMETER, 429: TOO_MANY_STREAMS})


@router.get(
    "/jobs/{job_id}/events",
    operation_id="follow_job_events",
    summary="Follow a job's changes",
    response_class=Response,
    response_description="Every change since the job was submitted, then each as it happens.",
    responses={
        200: {"content": EVENT_CONTENT},
        204: {"description": "The job has ended and all has been told: nothing is left to wait for."},
        **_REFUSED,
    },
)
async def follow_job_events(
    request: Request,
    jobs: Reader,
    job_id: str,
    query: Annotated[FollowJob, Query()],
    last_event_id: Annotated[str | None, _RESUME] = None,
) -> Response:
    """Server-Sent Events, each named after its kind; the stream is over when the job has ended.

    A retry begins another: the id of the last event leads on from there. Progress that a later change makes
    old may be left out.
    """
    each_once(request)
    known_id(job_id)
    job = await in_thread(jobs.get, job_id)
    ids = EventIds(state_of(request).cursors, jobs.caller.visible_tenant)
    after = _after(ids, last_event_id, query.after) or 0
    if after > await state_of(request).feed.newest_of_all():
        after = 0  # an id of a store that has been replaced since: all that there is, again
    wanted = partial(_is_wanted, jobs.caller.visible_tenant, lambda item: item.job_id == job_id)
    follower = Follower(state_of(request).feed, after, wanted)
    page = await in_thread(jobs.news, follower.seen, job_id=job_id, limit=PAGE)
    follower.seen = page.read_to
    if job.status.is_terminal and not page.items:
        return Response(status_code=204)
    first = [told(item) for item in page.items]
    return _answer(request, jobs, follower, begin=b"", first=first, job_id=job_id)


@router.get(
    "/events",
    operation_id="follow_events",
    summary="Follow the changes of all jobs",
    response_class=Response,
    response_description="Each change as it happens, from now on, or behind `Last-Event-ID`.",
    responses={200: {"content": EVENT_CONTENT}, **{k: v for k, v in _REFUSED.items() if k != 404}},
)
async def follow_events(
    request: Request,
    jobs: Reader,
    query: Annotated[FollowJobs, Query()],
    last_event_id: Annotated[str | None, _RESUME] = None,
) -> Response:
    """Server-Sent Events, each named after its kind.

    Kinds are `submitted`, `claimed`, `progressed`, `cancel_requested`, `ended`, `retried`, `interrupted`.
    Without an id to begin behind, the first event is `start`: its id leads back to this moment. `gap` says
    that changes may be missing. What happened to a job that has been deleted since is not told.
    """
    each_once(request, but=frozenset({"status"}))
    ids = EventIds(state_of(request).cursors, jobs.caller.visible_tenant)
    statuses = frozenset(status.value for status in query.status)

    def matches(item: Told) -> bool:
        return (not statuses or item.status in statuses) and query.workflow in (None, item.workflow)

    wanted = partial(_is_wanted, jobs.caller.visible_tenant, matches)
    after = _after(ids, last_event_id, query.after)
    if after is None:
        newest = await in_thread(jobs.newest_event)
        follower = Follower(state_of(request).feed, newest, wanted)
        return _answer(request, jobs, follower, begin=_mark("start", "{}", ids, newest))
    follower = Follower(state_of(request).feed, after, wanted)
    begin = await _gap(state_of(request).feed, follower, ids)
    return _answer(request, jobs, follower, begin=begin)


def _is_wanted(visible_tenant: str | None, matches: Callable[[Told], bool], item: Told) -> bool:
    """The one place that keeps the changes of other tenants out of a stream that is fed for all."""
    return visible_tenant in (None, item.tenant) and matches(item)


def _after(ids: EventIds, last_event_id: str | None, after: str | None) -> int | None:
    """The number to begin behind; None when none is named. Raises Problem."""
    detail = "must be the id of an event of this stream"
    if last_event_id:
        try:
            return ids.seq(last_event_id)
        except ValueError:
            raise invalid_header("Last-Event-ID", detail) from None
    if after is None or after == "0":
        return None if after is None else 0
    try:
        return ids.seq(after)
    except ValueError:
        raise invalid_query("after", f"{detail}, or 0") from None


async def _gap(feed: EventFeed, follower: Follower, ids: EventIds) -> bytes:
    """What to say first where an id is of a store that has been replaced since: then begin from now on."""
    newest = await feed.newest_of_all()
    if follower.seen <= newest:
        return b""
    follower.seen = newest
    return _mark("gap", '{"detail":"Changes may be missing here: look at the jobs again."}', ids, newest)


def _mark(kind: str, data: str, ids: EventIds, seq: int) -> bytes:
    return f"event: {kind}\nid: {ids.told(seq)}\ndata: {data}\n\n".encode()


def _answer(
    request: Request,
    jobs: CallersJobs,
    follower: Follower,
    *,
    begin: bytes,
    first: Sequence[Told] = (),
    job_id: str | None = None,
) -> Response:
    state = state_of(request)
    return EventsResponse(
        state,
        jobs,
        follower,
        EventIds(state.cursors, jobs.caller.visible_tenant),
        begin=begin,
        first=first,
        job_id=job_id,
        is_allowed=None if state.authenticator.is_open else partial(may_still_read, request),
    )

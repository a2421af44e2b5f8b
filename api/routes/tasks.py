"""`/jobs/{job_id}/tasks`: what a job's run consists of, task by task, and the logs of each."""

from __future__ import annotations

import re
from typing import Annotated, Final

from fastapi import APIRouter, Header, Path, Query, Request, Response

from api.callers import Reader
from api.documents import BAD_PARAMETER, FILE_HEADERS, example, header, parts, problems
from api.file_answer import Conditions, file_answer, file_etag
from api.file_tail import tail_offset
from api.log_range import Span
from api.log_response import TEXT
from api.output_response import OutputResponse
from api.paging import decode_path_cursor, encode_path_cursor, next_link, no_cursor
from api.problems import Kind, Problem
from api.query_names import each_once
from api.representations import json_response
from api.routes.jobs import known_id
from api.state import state_of
from api.task_documents import task_document, task_links, task_page_document
from api.task_schemas import GetTask, ListTasks, ReadTaskLog, Task, TaskPage
from runner.callers_jobs import CallersJobs
from runner.errors import OutputNotFound, TaskNotFound
from runner.tasks import TaskQuery

router = APIRouter(tags=["tasks"])

_REPEATABLE: Final = frozenset({"status", "rule"})
_POSITION: Final = re.compile(rb"(\d{1,10}):(\d{1,18})")
_NO_TASK_LOG: Final = Kind(404, "task-log-not-found", "The task has no such log")
_NO_TASK: Final = example(TaskNotFound("Attempt 1 of job 019… has no task 7: see its list of tasks."))
_NO_LOG: Final = "Task {number} names no log file: what it wrote is in the job's own, /jobs/{job_id}/logs."
_LOG_CONTENT: Final = {
    "text/plain": {"schema": {"type": "string"}, "example": "[bwa] 12000 reads mapped\n[bwa] done\n"}
}

Number = Annotated[int, Path(ge=0, le=2**53, description="`number` of a task.")]


@router.get(
    "/jobs/{job_id}/tasks",
    operation_id="list_job_tasks",
    summary="List the tasks of a job's run",
    response_model=TaskPage,
    response_description="A page of the tasks, by number.",
    responses={
        200: {"headers": {"Link": header('`rel="next"`: the next page (RFC 8288).')}},
        **problems(400, 404, 422, 503, examples={**BAD_PARAMETER, 400: example(no_cursor())}),
    },
)
async def list_job_tasks(
    request: Request, jobs: Reader, job_id: str, query: Annotated[ListTasks, Query()]
) -> Response:
    """What Snakemake calls the jobs of the run: those that have told of themselves, and those to come.

    Pages go on with the attempt that the first one was of. A task that has not started yet tells its rule
    and its wildcards alone.
    """
    each_once(request, but=_REPEATABLE)
    known_id(job_id)
    attempt, after = _position(query)
    wanted = TaskQuery(
        attempt=attempt,
        statuses=tuple(query.status),
        rules=tuple(query.rule),
        after=after,
        limit=query.limit,
    )
    page = await state_of(request).run_reads.run(request, jobs, jobs.tasks, job_id, wanted)
    cursor = None
    if page.has_more and page.items:
        cursor = encode_path_cursor(f"{page.attempt}:{page.items[-1].number}".encode(), query)
    return json_response(
        task_page_document(page, job_id, cursor),
        headers={"Link": next_link(cursor, query, f"/jobs/{job_id}/tasks")} if cursor else None,
    )


def _position(query: ListTasks) -> tuple[int | None, int | None]:
    """The attempt, and the number that the page before ended with. Raises Problem (400)."""
    if query.cursor is None:
        return query.attempt, None
    found = _POSITION.fullmatch(decode_path_cursor(query.cursor, query))
    if found is None:
        raise no_cursor()
    return int(found[1]), int(found[2])


@router.get(
    "/jobs/{job_id}/tasks/{number}",
    operation_id="get_job_task",
    summary="Get one task",
    response_model=Task,
    response_description="The task as it is now, with the last lines of its log if it has failed.",
    responses=problems(404, 422, 503, examples={**BAD_PARAMETER, 404: _NO_TASK}),
)
async def get_job_task(
    request: Request, jobs: Reader, job_id: str, number: Number, query: Annotated[GetTask, Query()]
) -> Response:
    """`number` is Snakemake's own, and means this task within one attempt."""
    each_once(request)
    known_id(job_id)
    reads = state_of(request).run_reads
    task = await reads.run(request, jobs, jobs.task, job_id, number, query.attempt)
    return json_response(task_document(task, task_links(job_id, query.attempt, number)))


@router.get(
    "/jobs/{job_id}/tasks/{number}/logs",
    operation_id="get_job_task_log",
    summary="Read a task's log file",
    response_class=Response,
    response_description="The file as it is now.",
    responses={
        200: {
            "content": _LOG_CONTENT,
            "headers": {**FILE_HEADERS, "X-Log-Offset": header("With `tail`: where the answer begins.")},
        },
        **parts("file", _LOG_CONTENT, FILE_HEADERS),
        **problems(404, 416, 422, 503, examples={**BAD_PARAMETER, 404: _NO_TASK}),
    },
)
async def get_job_task_log(
    request: Request,
    jobs: Reader,
    job_id: str,
    number: Number,
    query: Annotated[ReadTaskLog, Query()],
    *,
    range_: Annotated[str | None, Header(alias="Range", description="One range: `bytes=0-99`.")] = None,
    if_range: Annotated[str | None, Header(description="Honour `Range` only for this `ETag`.")] = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """A file that the rule names under `log:`, the first one unless `index` says another.

    What a rule without one writes is in the job's log. A later attempt writes to the same files.
    """
    each_once(request)
    known_id(job_id)
    reads = state_of(request).run_reads
    opening = (job_id, number, query.index, query.attempt)
    try:
        file = await reads.run(request, jobs, jobs.open_task_log, *opening)
    except OutputNotFound:
        raise Problem(_NO_TASK_LOG, await _why_no_log(request, jobs, job_id, number, query)) from None
    try:
        if query.tail is None:
            asked = Conditions(if_none_match, range_, if_range)
            return file_answer(file, asked, {}, media_type=TEXT)
        searches = state_of(request).tail_searches
        start = await searches.run(request, jobs, tail_offset, file, query.tail)
        headers = {"ETag": file_etag(file), "X-Log-Offset": str(start)}
        span = Span(start, file.size_bytes)
        return OutputResponse(file, span, status=200, headers=headers, media_type=TEXT)
    except BaseException:
        file.close()
        raise


async def _why_no_log(
    request: Request, jobs: CallersJobs, job_id: str, number: int, query: ReadTaskLog
) -> str:
    """What to do instead. Raises as the task itself does."""
    task = await state_of(request).run_reads.run(request, jobs, jobs.task, job_id, number, query.attempt)
    if not task.log:
        return _NO_LOG.format(number=number, job_id=job_id)
    if query.index >= len(task.log):
        return f"Task {number} names {len(task.log)} log files: index is 0 to {len(task.log) - 1}."
    return f"{task.log[query.index]} is not there, or is no plain file below the job's working directory."

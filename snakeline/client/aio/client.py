"""A client of Snakeline's HTTP API: typed, and independent of the service's own code."""

from __future__ import annotations

import math
import time
import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import quote

from snakeline.client.aio.access import AsyncAccessCalls
from snakeline.client.aio.calls import job_path, named
from snakeline.client.aio.connection import AsyncConnection
from snakeline.client.aio.files import AsyncFileCalls
from snakeline.client.aio.runs import AsyncRunCalls
from snakeline.client.answers import document_of
from snakeline.client.errors import Problem, WaitTimeout
from snakeline.client.many import async_submit_many
from snakeline.client.pauses import async_pause
from snakeline.client.profiles import service_of
from snakeline.client.upload import parts_of
from snakeline.client.values import JobPage, JobState

if TYPE_CHECKING:
    import builtins
    import os
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
    from datetime import datetime
    from types import TracebackType

    import httpx2

    from snakeline.client.many import JobRequest
    from snakeline.client.retries import Waiting
    from snakeline.client.upload import Files
    from snakeline.client.values import Output, Task

_LONG_POLL_S: Final = 25.0
_LOOK_S: Final = 5.0
_TOO_MANY_STREAMS: Final = "too-many-streams"
_MARGIN_S: Final = 10.0  # how much later than a long poll's end the answer may come


@dataclass(frozen=True, slots=True)
class AsyncJob(JobState):
    """A job as it was at one moment, with what can be done about it: each answers the job anew."""

    client: AsyncClient | None = field(default=None, repr=False, compare=False)

    async def refresh(self) -> AsyncJob:
        return await self._client.get(self.id)

    async def wait(self, *, timeout_s: float | None = None) -> AsyncJob:
        """The job once it has ended. Raises WaitTimeout when `timeout_s` is up."""
        return await self._client.wait(self.id, timeout_s=timeout_s)

    async def follow(self, *, attempt: int | None = None) -> AsyncIterator[str]:
        """The log as text, in pieces as they are written, until the attempt ends: by default this one."""
        async for text in self._client.follow_log(self.id, attempt=attempt or self.attempt):
            yield text

    async def log(self, *, attempt: int | None = None, tail: int | None = None) -> bytes:
        return await self._client.log(self.id, attempt=attempt, tail=tail)

    async def tasks(
        self, *, status: Sequence[str] = (), rules: Sequence[str] = (), attempt: int | None = None
    ) -> AsyncIterator[Task]:
        async for task in self._client.tasks(self.id, status=status, rules=rules, attempt=attempt):
            yield task

    async def usage_history(self, *, attempt: int | None = None) -> dict[str, Any]:
        return await self._client.usage_history(self.id, attempt=attempt or self.attempt)

    async def outputs(self, *, prefix: str = "", declared: bool = False) -> AsyncIterator[Output]:
        async for output in self._client.outputs(self.id, prefix=prefix, declared=declared):
            yield output

    async def download(self, path: str | Output, to: str | os.PathLike[str]) -> None:
        """Save a file of the job's as `to`, whole or not at all; an existing one is replaced."""
        await self._client.download(self.id, path, to)

    async def cancel(self) -> AsyncJob:
        return await self._client.cancel(self.id)

    async def retry(self) -> AsyncJob:
        return await self._client.retry(self.id)

    async def delete(self) -> None:
        await self._client.delete(self.id)

    @property
    def _client(self) -> AsyncClient:
        if self.client is None:
            raise ValueError("this job was not answered by a client")
        return self.client


class AsyncClient(AsyncAccessCalls, AsyncFileCalls, AsyncRunCalls):
    """Speaks to one service at `base_url`. A connection pool: make one, use it, close it.

    `api_key` is an API key or a token of the service's issuer. It goes to `base_url` alone: redirects are
    not followed. Every method raises `Problem` when the service refuses and `Unreachable` when it does not
    answer. Refusals that may pass (429, 503) and breaks are tried again for `retry_for_s`, 0 for not at all;
    a request that makes something is never made twice by that. `on_wait` is told of it, before each pause
    that it takes, and gets None when the pause is over.

    Requests go on in the trace that the caller is in: the current span of OpenTelemetry, or TRACEPARENT in
    the environment. Raises ValueError for an address or a key that cannot be one.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 30.0,
        retry_for_s: float = 60.0,
        on_wait: Callable[[Waiting | None], None] | None = None,
    ) -> None:
        self.base_url = base_url
        self._connection = AsyncConnection(
            base_url, api_key=api_key, timeout_s=timeout_s, retry_for_s=retry_for_s, on_wait=on_wait
        )

    @classmethod
    def from_environment(
        cls, *, profile: str | None = None, timeout_s: float = 30.0, retry_for_s: float = 60.0
    ) -> Self:
        """For the service that `SNAKELINE_URL`, `SNAKELINE_API_KEY` and the file with profiles name.

        By default it is on this machine. Raises ProfileError.
        """
        service = service_of(profile=profile)
        return cls(service.url, api_key=service.api_key, timeout_s=timeout_s, retry_for_s=retry_for_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._connection.close()

    async def ready(self) -> dict[str, Any]:
        """What `GET /readyz` says, whether the answer is yes (200) or no (503)."""
        answer = await self._connection.send("GET", "/readyz", accept=(503,))
        return document_of(answer)

    async def workflows(self) -> builtins.list[dict[str, Any]]:
        items: list[dict[str, Any]] = (await self._document("GET", "/workflows"))["items"]
        return items

    async def workflow(self, name: str) -> dict[str, Any]:
        """One workflow, with its version and its readme."""
        return await self._document("GET", f"/workflows/{quote(name, safe='')}")

    async def submit(
        self,
        workflow: str,
        *,
        parameters: Mapping[str, Any] | None = None,
        targets: Sequence[str] = (),
        cores: int | None = None,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        priority: int = 0,
        timeout_s: float | None = None,
        memory_mb: int | None = None,
        max_retries: int = 0,
        retry_lost: bool = False,
        options: Mapping[str, Any] | None = None,
        files: Files = (),
        workflow_file: str | os.PathLike[str] | None = None,
        idempotency_key: str | None = None,
    ) -> AsyncJob:
        """Submit a job; once this returns, the job is durable.

        `files` go with it into its `input/`: paths, or a mapping of names to paths. A `workflow_file` is a
        Snakefile or an archive with one, for the workflow `uploaded`. Raises OSError for a file that cannot
        be read.

        Each call makes one job, also where its connection breaks and it is sent again. With an
        `idempotency_key` of your own you may repeat the call itself after `Unreachable`.
        """
        body: dict[str, Any] = {
            "workflow": workflow,
            "parameters": dict(parameters or {}),
            "targets": [*targets],
            "labels": dict(labels or {}),
            "priority": priority,
            "max_retries": max_retries,
            "retry_lost": retry_lost,
            "options": dict(options or {}),
            **named(name=name, cores=cores, timeout_s=timeout_s, memory_mb=memory_mb),
        }
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        if not files and workflow_file is None:
            answer = await self._connection.send("POST", "/jobs", body=body, headers=headers, repeatable=True)
            return self._job(answer)
        with parts_of(body, files, workflow_file) as parts:
            answer = await self._connection.send(
                "POST", "/jobs", parts=parts, headers=headers, repeatable=True
            )
            return self._job(answer)

    async def submit_many(
        self, requests: Iterable[JobRequest], *, at_once: int = 8
    ) -> builtins.list[AsyncJob]:
        """Submit jobs, up to `at_once` at a time, and answer them in the same order.

        Each request has the arguments of `submit` by name. Once one is refused no further one is begun, and
        NotAllSubmitted tells which were submitted and which failed.
        """
        return await async_submit_many(self.submit, requests, at_once=at_once)

    async def plan(
        self,
        workflow: str,
        *,
        parameters: Mapping[str, Any] | None = None,
        targets: Sequence[str] = (),
        cores: int | None = None,
        memory_mb: int | None = None,
        options: Mapping[str, Any] | None = None,
        attachments: Sequence[str] = (),
        limit: int = 500,
        timeout_s: float = 120.0,
    ) -> dict[str, Any]:
        """What a job would do, with the first `limit` of its tasks; not `ok` where the job would fail."""
        body: dict[str, Any] = {
            "parameters": dict(parameters or {}),
            "targets": [*targets],
            "options": dict(options or {}),
            "attachments": [*attachments],
            "cores": cores,
            "memory_mb": memory_mb,
        }
        path = f"/workflows/{quote(workflow, safe='')}/plan"
        answer = await self._connection.send(
            "POST", path, body=body, params={"limit": limit}, timeout_s=timeout_s
        )
        return document_of(answer)

    async def get(self, job_id: str) -> AsyncJob:
        return self._job(await self._connection.send("GET", job_path(job_id)))

    async def list(
        self,
        *,
        status: Sequence[str] = (),
        workflow: str | None = None,
        q: str | None = None,
        labels: Mapping[str, str] | None = None,
        tenant: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        order: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> JobPage[AsyncJob]:
        """One page of jobs, newest first."""
        params = named(workflow=workflow, q=q, tenant=tenant, order=order, limit=limit, cursor=cursor)
        params |= {"status": [*status], "label": [f"{k}:{v}" for k, v in (labels or {}).items()]}
        if created_after is not None:
            params["created_after"] = created_after.isoformat()
        if created_before is not None:
            params["created_before"] = created_before.isoformat()
        document = await self._document("GET", "/jobs", params=params)
        items = [self._bound(raw, None) for raw in document["items"]]
        return JobPage(items, document["total"], document["next_cursor"])

    async def jobs(
        self,
        *,
        status: Sequence[str] = (),
        workflow: str | None = None,
        q: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> AsyncIterator[AsyncJob]:
        """All jobs that match, newest first, page by page."""
        cursor: str | None = None
        while True:
            page = await self.list(
                status=status, workflow=workflow, q=q, labels=labels, limit=500, cursor=cursor
            )
            for job in page.items:
                yield job
            cursor = page.next_cursor
            if cursor is None:
                return

    async def wait(self, job_id: str, *, timeout_s: float | None = None) -> AsyncJob:
        """The job once it has ended, by long polls, also across a short absence of the service.

        Raises WaitTimeout when `timeout_s` is up.
        """
        deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
        job = await self.get(job_id)
        while not job.has_ended:
            left_s = min(_LONG_POLL_S, deadline - time.monotonic())
            if left_s <= 0:
                raise WaitTimeout(f"Job {job_id} is still {job.status} after {timeout_s} s.")
            try:
                job = await self._change_of(job, left_s, final=(_TOO_MANY_STREAMS,))
            except Problem as refused:
                if refused.type != _TOO_MANY_STREAMS:
                    raise
                # Others of ours wait for their jobs so: this one is looked at now and then.
                await async_pause(min(left_s, _LOOK_S))
                job = await self.get(job_id)
        return job

    async def next_change(self, job: AsyncJob, *, within_s: float = _LONG_POLL_S) -> AsyncJob:
        """The job as soon as it is another than `job`, or `job` when none has come `within_s` seconds."""
        return await self._change_of(job, within_s)

    async def _change_of(self, job: AsyncJob, within_s: float, *, final: tuple[str, ...] = ()) -> AsyncJob:
        answer = await self._connection.send(
            "GET",
            job_path(job.id),
            params={"wait": min(60, max(1, round(within_s)))},
            headers={"If-None-Match": job.etag} if job.etag else {},
            timeout_s=within_s + _MARGIN_S,
            accept=(304,),
            final=final,
        )
        return job if answer.status_code == 304 else self._job(answer)

    async def cancel(self, job_id: str) -> AsyncJob:
        """Ask for the job's end; a running one is `cancelled` once its last process is gone (see `wait`)."""
        return self._job(await self._connection.send("POST", job_path(job_id, "/cancel")))

    async def retry(self, job_id: str) -> AsyncJob:
        """Run a failed or cancelled job again: a new attempt in the same working directory."""
        return self._job(await self._connection.send("POST", job_path(job_id, "/retry")))

    async def delete(self, job_id: str) -> None:
        """Remove an ended job with all its files."""
        await self._connection.send("DELETE", job_path(job_id))

    def _job(self, answer: httpx2.Response) -> AsyncJob:
        return self._bound(document_of(answer), answer.headers.get("etag"))

    def _bound(self, raw: Mapping[str, Any], etag: str | None) -> AsyncJob:
        return replace(AsyncJob.from_json(raw, etag), client=self)

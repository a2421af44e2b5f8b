"""A client of Snakeline's HTTP API: typed, synchronous, and independent of the service's own code."""

from __future__ import annotations

import json
import math
import os
import time
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import quote

from snakeline.client_changes import changes
from snakeline.client_errors import ChangesMissed, ClientError, Problem, Unreachable, WaitTimeout
from snakeline.client_values import TERMINAL, Job, JobChange, JobPage, Output, Task
from snakeline.connection import Absence, Connection
from snakeline.upload import parts_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

    import httpx2

    from snakeline.upload import Files

__all__ = [
    "TERMINAL",
    "ChangesMissed",
    "Client",
    "ClientError",
    "Job",
    "JobChange",
    "JobPage",
    "Output",
    "Problem",
    "Task",
    "Unreachable",
    "WaitTimeout",
]

_LONG_POLL_S: Final = 25.0
_MARGIN_S: Final = 10.0  # how much later than a long poll's end the answer may come
_DEFAULT_URL: Final = "http://127.0.0.1:8000"


class Client:
    """Speaks to one service at `base_url`. A connection pool: make one, use it, close it.

    `api_key` is an API key or a token of the service's issuer. It goes to `base_url` alone: redirects are
    not followed. Every method raises `Problem` when the service refuses and `Unreachable` when it does not
    answer.
    """

    def __init__(self, base_url: str, *, api_key: str | None = None, timeout_s: float = 30.0) -> None:
        self.base_url = base_url
        self._connection = Connection(base_url, api_key=api_key, timeout_s=timeout_s)

    @classmethod
    def from_environment(cls, *, timeout_s: float = 30.0) -> Self:
        """For the service at `SNAKELINE_URL` (default: this machine), with the key in `SNAKELINE_API_KEY`."""
        environ = os.environ  # noqa: TID251 - a client's, not settings of the service
        url = environ.get("SNAKELINE_URL") or _DEFAULT_URL
        return cls(url, api_key=environ.get("SNAKELINE_API_KEY") or None, timeout_s=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def ready(self) -> dict[str, Any]:
        """What `GET /readyz` says, whether the answer is yes (200) or no (503)."""
        answer = self._connection.send("GET", "/readyz", accept=(503,))
        document: dict[str, Any] = answer.json()
        return document

    def workflows(self) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self._connection.send("GET", "/workflows").json()["items"]
        return items

    def submit(
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
    ) -> Job:
        """Submit a job; once this returns, the job is durable.

        `files` go with it into its `input/`: paths, or a mapping of names to paths. A `workflow_file` is a
        Snakefile or an archive with one, for the workflow `uploaded`. Raises OSError for a file that cannot
        be read.

        With an `idempotency_key` the call may be repeated after `Unreachable`: it never makes two jobs.
        """
        body: dict[str, Any] = {
            "workflow": workflow,
            "parameters": dict(parameters or {}),
            "targets": list(targets),
            "labels": dict(labels or {}),
            "priority": priority,
            "max_retries": max_retries,
            "retry_lost": retry_lost,
            "options": dict(options or {}),
        }
        if name is not None:
            body["name"] = name
        if cores is not None:
            body["cores"] = cores
        if timeout_s is not None:
            body["timeout_s"] = timeout_s
        if memory_mb is not None:
            body["memory_mb"] = memory_mb
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        if not files and workflow_file is None:
            return _job(self._connection.send("POST", "/jobs", body=body, headers=headers))
        with parts_of(body, files, workflow_file) as parts:
            return _job(self._connection.send("POST", "/jobs", parts=parts, headers=headers))

    def plan(
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
        answer = self._connection.send("POST", path, body=body, params={"limit": limit}, timeout_s=timeout_s)
        plan: dict[str, Any] = answer.json()
        return plan

    def get(self, job_id: str) -> Job:
        return _job(self._connection.send("GET", _path(job_id)))

    def list(
        self,
        *,
        status: Sequence[str] = (),
        workflow: str | None = None,
        q: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> JobPage:
        """One page of jobs, newest first."""
        given = {"workflow": workflow, "q": q, "limit": limit, "cursor": cursor}
        params: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        document = self._connection.send("GET", "/jobs", params=params | {"status": [*status]}).json()
        items = [Job.from_json(raw) for raw in document["items"]]
        return JobPage(items, document["total"], document["next_cursor"])

    def wait(self, job_id: str, *, timeout_s: float | None = None) -> Job:
        """Block until the job has ended, by long polls, also across a short absence of the service.

        Raises WaitTimeout when `timeout_s` is up.
        """
        deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
        job = self.get(job_id)
        absence = Absence()
        while not job.has_ended:
            left_s = min(_LONG_POLL_S, deadline - time.monotonic())
            if left_s <= 0:
                raise WaitTimeout(f"Job {job_id} is still {job.status} after {timeout_s} s.")
            try:
                job = self._next_change(job, left_s)
            except Unreachable as error:
                absence.bear(error)
            else:
                absence.over()
        return job

    def _next_change(self, job: Job, within_s: float) -> Job:
        answer = self._connection.send(
            "GET",
            _path(job.id),
            params={"wait": max(1, round(within_s))},
            headers={"If-None-Match": job.etag} if job.etag else {},
            timeout_s=within_s + _MARGIN_S,
            accept=(304,),
        )
        return job if answer.status_code == 304 else _job(answer)

    def cancel(self, job_id: str) -> Job:
        """Ask for the job's end; a running one is `cancelled` once its last process is gone (see `wait`)."""
        return _job(self._connection.send("POST", _path(job_id, "/cancel")))

    def retry(self, job_id: str) -> Job:
        """Run a failed or cancelled job again: a new attempt in the same working directory."""
        return _job(self._connection.send("POST", _path(job_id, "/retry")))

    def delete(self, job_id: str) -> None:
        """Remove an ended job with all its files."""
        self._connection.send("DELETE", _path(job_id))

    def log(self, job_id: str, *, attempt: int | None = None) -> bytes:
        """The log as it is now, as far as the service keeps it."""
        params = {} if attempt is None else {"attempt": attempt}
        return self._connection.send("GET", _path(job_id, "/logs"), params=params).content

    def tasks(
        self,
        job_id: str,
        *,
        status: Sequence[str] = (),
        rules: Sequence[str] = (),
        attempt: int | None = None,
    ) -> Iterator[Task]:
        """The tasks of the run by their numbers, page by page; those of the latest attempt by default."""
        params: dict[str, Any] = {"status": [*status], "rule": [*rules], "limit": 500}
        params |= {} if attempt is None else {"attempt": attempt}
        while True:
            page = self._connection.send("GET", _path(job_id, "/tasks"), params=params).json()
            yield from map(Task.from_json, page["items"])
            if page["next_cursor"] is None:
                return
            params["cursor"] = page["next_cursor"]

    def graph(self, job_id: str, *, attempt: int | None = None) -> dict[str, Any]:
        """The rules of the run with their tasks counted by status, and what feeds what (`nodes`, `edges`)."""
        params = {} if attempt is None else {"attempt": attempt}
        graph: dict[str, Any] = self._connection.send("GET", _path(job_id, "/graph"), params=params).json()
        return graph

    def graph_svg(self, job_id: str, *, attempt: int | None = None) -> str:
        """That graph as a picture."""
        params: dict[str, Any] = {"format": "svg"} | ({} if attempt is None else {"attempt": attempt})
        return self._connection.send("GET", _path(job_id, "/graph"), params=params).text

    def events(self, job_id: str | None = None, *, after: str | None = None) -> Iterator[JobChange]:
        """Changes as they happen: a job's from its submission to its end, or all jobs' from now on.

        `after` is the `id` of a change to begin behind. A stream that breaks is taken up where it broke, also
        across a short absence of the service. Raises ChangesMissed where that cannot be.
        """
        path = "/events" if job_id is None else _path(job_id, "/events")
        what = "The stream of changes" if job_id is None else f"The changes of job {job_id}"
        return changes(self._connection, path, after=after, what=what)

    def outputs(
        self,
        job_id: str,
        *,
        prefix: str = "",
        hidden: bool = False,
        declared: bool = False,
        rules: Sequence[str] = (),
    ) -> Iterator[Output]:
        """The files in the working directory, sorted by path, page by page.

        Only those whose path begins with `prefix`; with `hidden` also names that begin with a dot. `declared`
        ones are outputs of tasks that have finished, `rules` says of which rules alone.
        """
        params: dict[str, Any] = {"prefix": prefix, "all": hidden, "limit": 500}
        params |= {"declared": declared, "rule": [*rules]}
        while True:
            page = self._connection.send("GET", _path(job_id, "/outputs"), params=params).json()
            yield from map(Output.from_json, page["items"])
            if page["next_cursor"] is None:
                return
            params["cursor"] = page["next_cursor"]

    def download(self, job_id: str, path: str | Output, to: str | os.PathLike[str]) -> None:
        """Fetch a file of the job's and save it as `to`, whole or not at all; an existing one is replaced."""
        self._connection.save(_output_path(job_id, path), to)

    def download_folder(
        self, job_id: str, folder: str, to: str | os.PathLike[str], *, hidden: bool = False
    ) -> None:
        """Save the files below a folder as the ZIP archive `to`, as `download` does; "" is all of them."""
        path = f"/outputs/{quote(folder.strip('/'))}/" if folder.strip("/") else "/outputs/"
        self._connection.save(_path(job_id, path), to, params={"format": "zip", "all": hidden})

    def checksum(self, job_id: str, path: str | Output, *, timeout_s: float = 3600.0) -> str:
        """The SHA-256 of a file of the job's, in hexadecimal digits: the service reads all of it."""
        answer = self._connection.send(
            "GET", _output_path(job_id, path), params={"checksum": "sha256"}, timeout_s=timeout_s
        )
        return str(answer.json()["sha256"])

    def report(self, job_id: str, to: str | os.PathLike[str], *, timeout_s: float = 600.0) -> None:
        """Have the engine report on an ended job, and save that page as `to`, as `download` does."""
        self._connection.send("POST", _path(job_id, "/report"), timeout_s=timeout_s)
        self._connection.save(_path(job_id, "/report"), to)

    def ro_crate(self, job_id: str, to: str | os.PathLike[str], *, license_url: str | None = None) -> None:
        """Save an ended job's run as an RO-Crate, the ZIP archive `to`, as `download` does.

        `license_url` is what the crate says of its license: an address, or any text.
        """
        params = {"format": "zip"} | ({} if license_url is None else {"license": license_url})
        self._connection.save(_path(job_id, "/ro-crate"), to, params=params)

    def follow_log(self, job_id: str, *, attempt: int | None = None) -> Iterator[str]:
        """The log as text, from its beginning, in pieces as they are written, until the attempt ends.

        A stream that breaks is taken up where it broke, also across a short absence of the service. Where
        bytes are no longer kept, a line in brackets says how many; what is no UTF-8 becomes U+FFFD.
        """
        # Named, because a job that is retried meanwhile has another current attempt when we come back.
        number = self.get(job_id).attempt if attempt is None else attempt
        absence = Absence()
        offset = "0"
        while True:
            try:
                events = self._connection.events(
                    _path(job_id, "/logs"),
                    params={"follow": "true", "attempt": number},
                    after=offset,
                    what=f"The log of job {job_id}",
                )
                for event in events:
                    absence.over()
                    if event.event == "end":
                        return
                    offset = event.id
                    yield _skipped(event) if event.event == "gap" else event.data
            except Unreachable as error:
                absence.bear(error)


def _skipped(event: httpx2.ServerSentEvent) -> str:
    gap = json.loads(event.data)
    return f"\n[{gap['end'] - gap['start']} bytes are no longer kept]\n"


def _path(job_id: str, rest: str = "") -> str:
    return f"/jobs/{quote(job_id, safe='')}{rest}"


def _output_path(job_id: str, path: str | Output) -> str:
    return path.url if isinstance(path, Output) else _path(job_id, f"/outputs/{quote(path)}")


def _job(answer: httpx2.Response) -> Job:
    return Job.from_json(answer.json(), answer.headers.get("etag"))

"""A client of Snakeline's HTTP API: typed, synchronous, and independent of the service's own code."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import quote

import httpx2

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

TERMINAL: Final = frozenset({"completed", "failed", "cancelled"})
_LONG_POLL_S: Final = 25.0
_MARGIN_S: Final = 10.0  # how much later than a long poll's end the answer may come
_SILENCE_S: Final = 60.0  # the service's heartbeat is four times as fast
_ABSENCE_S: Final = 15.0
_PAUSE_S: Final = 0.25
_EVENT_LIMIT_BYTES: Final = 16 * 2**20


class ClientError(Exception):
    """Base of everything the client raises."""


class Unreachable(ClientError):
    """No answer came: the service is down, the address is wrong, or the connection broke."""


class WaitTimeout(ClientError):
    """The job had not ended in the time given; it runs on."""


class Problem(ClientError):
    """The service refused the request: its RFC 9457 problem document, as an exception.

    `type` is a stable slug to branch on; `errors` has a pointer and a detail per field on 422.
    `retry_after_s` is set where the same request may succeed later.
    """

    def __init__(self, status: int, document: Mapping[str, Any], retry_after_s: float | None = None) -> None:
        self.status = status
        self.type = str(document.get("type", "about:blank"))
        self.title = str(document.get("title", ""))
        self.detail = str(document.get("detail", ""))
        raw = document.get("errors")
        self.errors: list[dict[str, str]] = raw if isinstance(raw, list) else []
        self.retry_after_s = retry_after_s
        fields = "; ".join(f"{e.get('pointer')}: {e.get('detail')}" for e in self.errors)
        super().__init__(" - ".join(part for part in (f"{status} {self.title}", self.detail, fields) if part))


@dataclass(frozen=True, slots=True)
class Job:
    """A job as the API showed it at one moment; `raw` is the whole answer, newer fields included."""

    id: str
    status: str
    workflow: str
    attempt: int
    engine: str
    created_at: datetime
    reason: str | None
    name: str | None
    exit_code: int | None
    exit_signal: int | None
    error_message: str | None
    started_at: datetime | None
    completed_at: datetime | None
    raw: Mapping[str, Any] = field(repr=False)
    etag: str | None = field(default=None, repr=False)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any], etag: str | None = None) -> Self:
        return cls(
            id=raw["id"],
            status=raw["status"],
            workflow=raw["workflow"],
            attempt=raw["attempt"],
            engine=raw["engine"],
            created_at=datetime.fromisoformat(raw["created_at"]),
            reason=raw["reason"],
            name=raw["name"],
            exit_code=raw["exit_code"],
            exit_signal=raw["exit_signal"],
            error_message=raw["error_message"],
            started_at=_time(raw["started_at"]),
            completed_at=_time(raw["completed_at"]),
            raw=raw,
            etag=etag,
        )

    @property
    def has_ended(self) -> bool:
        return self.status in TERMINAL

    @property
    def duration_s(self) -> float | None:
        """Seconds from the engine's start to the end; None while either is unknown."""
        if self.started_at is None or self.completed_at is None:
            return None
        return (self.completed_at - self.started_at).total_seconds()


@dataclass(frozen=True, slots=True)
class JobPage:
    """One page of jobs; `next_cursor` continues behind it and is None on the last page."""

    items: list[Job]
    total: int
    next_cursor: str | None


class Client:
    """Speaks to one service at `base_url`. A connection pool: make one, use it, close it.

    Every method raises `Problem` when the service refuses and `Unreachable` when it does not answer.
    """

    def __init__(self, base_url: str, *, timeout_s: float = 30.0) -> None:
        # The address is given: a proxy from the environment would not reach a service on this machine.
        self.base_url = base_url
        self._http = httpx2.Client(base_url=base_url, timeout=timeout_s, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def ready(self) -> dict[str, Any]:
        """What `GET /readyz` says, whether the answer is yes (200) or no (503)."""
        answer = self._send("GET", "/readyz", accept=(503,))
        document: dict[str, Any] = answer.json()
        return document

    def workflows(self) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self._send("GET", "/workflows").json()["items"]
        return items

    def submit(
        self,
        workflow: str,
        *,
        parameters: Mapping[str, Any] | None = None,
        targets: Sequence[str] = (),
        cores: int = 1,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        priority: int = 0,
        timeout_s: float | None = None,
        max_retries: int = 0,
        retry_lost: bool = False,
        options: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """Submit a job; once this returns, the job is durable.

        With an `idempotency_key` the call may be repeated after `Unreachable`: it never makes two jobs.
        """
        body: dict[str, Any] = {
            "workflow": workflow,
            "parameters": dict(parameters or {}),
            "targets": list(targets),
            "cores": cores,
            "labels": dict(labels or {}),
            "priority": priority,
            "max_retries": max_retries,
            "retry_lost": retry_lost,
            "options": dict(options or {}),
        }
        if name is not None:
            body["name"] = name
        if timeout_s is not None:
            body["timeout_s"] = timeout_s
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        return _job(self._send("POST", "/jobs", body=body, headers=headers))

    def get(self, job_id: str) -> Job:
        return _job(self._send("GET", _path(job_id)))

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
        document = self._send("GET", "/jobs", params=params | {"status": [*status]}).json()
        items = [Job.from_json(raw) for raw in document["items"]]
        return JobPage(items, document["total"], document["next_cursor"])

    def wait(self, job_id: str, *, timeout_s: float | None = None) -> Job:
        """Block until the job has ended, by long polls, also across a short absence of the service.

        Raises WaitTimeout when `timeout_s` is up.
        """
        deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
        job = self.get(job_id)
        absence = _Absence()
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
        answer = self._send(
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
        return _job(self._send("POST", _path(job_id, "/cancel")))

    def retry(self, job_id: str) -> Job:
        """Run a failed or cancelled job again: a new attempt in the same working directory."""
        return _job(self._send("POST", _path(job_id, "/retry")))

    def delete(self, job_id: str) -> None:
        """Remove an ended job with all its files."""
        self._send("DELETE", _path(job_id))

    def log(self, job_id: str, *, attempt: int | None = None) -> bytes:
        """The log as it is now, as far as the service keeps it."""
        params = {} if attempt is None else {"attempt": attempt}
        return self._send("GET", _path(job_id, "/logs"), params=params).content

    def follow_log(self, job_id: str, *, attempt: int | None = None) -> Iterator[str]:
        """The log as text, from its beginning, in pieces as they are written, until the attempt ends.

        A stream that breaks is taken up where it broke, also across a short absence of the service. Where
        bytes are no longer kept, a line in brackets says how many; what is no UTF-8 becomes U+FFFD.
        """
        # Named, because a job that is retried meanwhile has another current attempt when we come back.
        number = self.get(job_id).attempt if attempt is None else attempt
        absence = _Absence()
        offset = "0"
        while True:
            try:
                for event in self._log_events(job_id, number, offset):
                    absence.over()
                    if event.event == "end":
                        return
                    offset = event.id
                    yield _skipped(event) if event.event == "gap" else event.data
            except Unreachable as error:
                absence.bear(error)

    def _log_events(self, job_id: str, attempt: int, offset: str) -> Iterator[httpx2.ServerSentEvent]:
        """Raises Unreachable when the stream is over, for whatever reason: only `end` ends the log."""
        given = self._http.timeout
        # A silent job is no broken connection, but the service is never silent for longer than this.
        timeout = httpx2.Timeout(connect=given.connect, read=_SILENCE_S, write=given.write, pool=given.pool)
        headers = {"Accept": "text/event-stream", "Last-Event-ID": offset}
        params: dict[str, Any] = {"follow": "true", "attempt": attempt}
        try:
            with self._http.stream(
                "GET", _path(job_id, "/logs"), params=params, headers=headers, timeout=timeout
            ) as answer:
                if not answer.is_success:
                    answer.read()
                    raise _problem(answer)
                yield from httpx2.EventSource(answer, max_event_size=_EVENT_LIMIT_BYTES)
        except httpx2.RequestError as error:
            raise Unreachable(f"The log of job {job_id} broke off: {_text(error)}") from error
        raise Unreachable(f"The log of job {job_id} broke off before its end.")

    def _send(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        accept: tuple[int, ...] = (),
    ) -> httpx2.Response:
        timeout = self._http.timeout if timeout_s is None else timeout_s
        try:
            answer = self._http.request(
                method, path, json=body, params=params, headers=headers, timeout=timeout
            )
        except httpx2.RequestError as error:
            raise Unreachable(f"{method} {self._http.base_url}{path}: {_text(error)}") from error
        if answer.is_success or answer.status_code in accept:
            return answer
        raise _problem(answer)


class _Absence:
    """Bears an unreachable service for a while, as during its restart."""

    def __init__(self) -> None:
        self._since: float | None = None

    def over(self) -> None:
        self._since = None

    def bear(self, error: Unreachable) -> None:
        """Pause before the next try. Raises the error when it has lasted for too long."""
        now = time.monotonic()
        self._since = self._since or now
        if now - self._since > _ABSENCE_S:
            raise error
        time.sleep(_PAUSE_S)  # noqa: TID251 - a pause between two tries of a caller that asked to wait


def _skipped(event: httpx2.ServerSentEvent) -> str:
    gap = json.loads(event.data)
    return f"\n[{gap['end'] - gap['start']} bytes are no longer kept]\n"


def _path(job_id: str, rest: str = "") -> str:
    return f"/jobs/{quote(job_id, safe='')}{rest}"


def _job(answer: httpx2.Response) -> Job:
    return Job.from_json(answer.json(), answer.headers.get("etag"))


def _problem(answer: httpx2.Response) -> Problem:
    try:
        document = answer.json()
    except ValueError:
        document = None
    if not isinstance(document, dict):
        # Not ours: a proxy between us and the service answered.
        document = {"title": answer.reason_phrase, "detail": answer.text[:500]}
    try:
        retry_after_s = float(answer.headers["retry-after"])
    except (KeyError, ValueError):
        retry_after_s = None
    return Problem(answer.status_code, document, retry_after_s)


def _time(value: str | None) -> datetime | None:
    return None if value is None else datetime.fromisoformat(value)


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__

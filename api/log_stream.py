"""Follows a log while its attempt runs: as plain text, or as Server-Sent Events that can be resumed."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol

from pydantic_core import to_json
from starlette.responses import Response

from api.body_pieces import LEAST_BYTES, PieceSize
from api.log_response import TEXT, gap_marker
from api.sse import HEARTBEAT, TextEvents, sse_event
from api.state import in_thread
from api.waiting import Wake
from runner.errors import JobNotFound
from runner.jobs import JobStatus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from starlette.types import Receive, Scope, Send

    from api.state import AppState
    from runner.callers_jobs import CallersJobs
    from runner.jobs import Job
    from runner.log_store import Log

EVENT_STREAM = "text/event-stream; charset=utf-8"
HEARTBEAT_S = 15.0


class Form(Protocol):
    """How what happens to a log is written to the client."""

    def data(self, piece: bytes) -> bytes: ...
    def gap(self, start: int, end: int) -> bytes: ...
    def end(self, job: Job | None, attempt: int, offset: int) -> bytes: ...
    def heartbeat(self) -> bytes: ...


class PlainForm:
    """The bytes as they are; a marker line for a gap."""

    def data(self, piece: bytes) -> bytes:
        return piece

    def gap(self, start: int, end: int) -> bytes:
        return gap_marker(end - start)

    def end(self, job: Job | None, attempt: int, offset: int) -> bytes:  # noqa: ARG002 - nothing to say
        return b""

    def heartbeat(self) -> bytes:
        return b""


class EventForm:
    """Events `message`, `gap` and `end`; a comment as heartbeat."""

    def __init__(self, offset: int) -> None:
        self._text = TextEvents(offset)

    def data(self, piece: bytes) -> bytes:
        return self._text.feed(piece)

    def gap(self, start: int, end: int) -> bytes:
        return self._text.skip(start, end)

    def end(self, job: Job | None, attempt: int, offset: int) -> bytes:
        # Only the current attempt's result is known; an earlier one has failed, or it would be current.
        is_current = job is not None and job.attempt == attempt
        document = {
            "attempt": attempt,
            "status": job.status.value if job is not None and is_current else JobStatus.FAILED.value,
            "exit_code": job.exit_code if job is not None and is_current else None,
            "exit_signal": job.exit_signal if job is not None and is_current else None,
        }
        if job is None:
            document["status"] = None
        held = self._text.feed(b"", final=True)
        return held + sse_event(to_json(document).decode(), event="end", event_id=offset)

    def heartbeat(self) -> bytes:
        return HEARTBEAT


class FollowResponse(Response):
    """The log from `offset` on until the attempt has ended, the client goes, or the service stops.

    A caller who is no longer allowed to read, as `is_allowed` says, is cut off within seconds.
    """

    def __init__(
        self,
        state: AppState,
        job: Job,
        attempt: int,
        log: Log,
        offset: int,
        *,
        jobs: CallersJobs,
        as_events: bool,
        headers: Mapping[str, str],
        is_allowed: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        self._state = state
        self._jobs = jobs
        self._is_allowed = is_allowed
        self._job: Job | None = job
        self._job_id = job.id
        self._attempt = attempt
        self._log = log
        self._offset = offset
        self._size = PieceSize()
        self._form: Form = EventForm(offset) if as_events else PlainForm()
        super().__init__(
            None,
            200,
            {**headers, "Cache-Control": "no-store", "X-Accel-Buffering": "no"},
            EVENT_STREAM if as_events else TEXT,
        )
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._state.streams.open(scope):
            await self._follow(receive, send)

    async def _follow(self, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        wake = Wake(partial(self._jobs.watch, job_id=self._job_id), self._state.stop, receive)
        async with self._log.watch() as watch, wake:
            wake.also_on(watch)
            if self._is_allowed is not None:
                wake.only_while(self._is_allowed)
            await self._refresh()  # it may have changed before we subscribed
            # The first bytes go out at once: a client that waits for headers must not wait for the job.
            await send({"type": "http.response.body", "body": self._form.heartbeat(), "more_body": True})
            async for piece in self._pieces(wake):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                if len(piece) >= LEAST_BYTES:
                    await self._size.taken(send)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _pieces(self, wake: Wake) -> AsyncIterator[bytes]:
        while not wake.is_over:
            if wake.clear():
                await self._refresh()
            # Looked at before the log is read: what an attempt wrote is all there once it has ended.
            has_ended = self._has_ended
            async for piece in self._new():
                yield piece
                if wake.is_over:
                    return
            if has_ended:
                yield self._form.end(self._job, self._attempt, self._offset)
                return
            if not await wake.wait(HEARTBEAT_S) and (heartbeat := self._form.heartbeat()):
                yield heartbeat

    async def _new(self) -> AsyncIterator[bytes]:
        """Everything the log holds behind `_offset`."""
        # What was written a moment ago is in memory: reading a little of it takes less time than handing
        # the read to a thread. A long way to catch up is read in threads.
        at, piece = self._log.read(self._offset, LEAST_BYTES)
        while at > self._offset or piece:
            if at > self._offset:
                yield self._form.gap(self._offset, at)
            self._offset = at + len(piece)
            if piece and (text := self._form.data(piece)):
                yield text
            if len(piece) < LEAST_BYTES:
                at, piece = self._log.read(self._offset, LEAST_BYTES)
            else:
                at, piece = await in_thread(self._log.read, self._offset, self._size.bytes)

    async def _refresh(self) -> None:
        try:
            self._job = await in_thread(self._jobs.get, self._job_id)
        except JobNotFound:
            self._job = None

    @property
    def _has_ended(self) -> bool:
        job = self._job
        return job is None or job.attempt > self._attempt or job.status.is_terminal

"""Follows the changes of jobs as Server-Sent Events that can be resumed at any of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.responses import Response

from api.body_pieces import LEAST_BYTES, PieceSize
from api.event_feed import told
from api.log_stream import EVENT_STREAM, HEARTBEAT_S
from api.sse import HEARTBEAT
from api.state import in_thread
from api.waiting import Wake
from runner.errors import JobNotFound, StoreUnavailable
from runner.jobs import Change, JobStatus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from starlette.types import Receive, Scope, Send

    from api.event_feed import Follower, Told
    from api.event_ids import EventIds
    from api.state import AppState
    from runner.callers_jobs import CallersJobs

PAGE: Final = 200
_STORE_PAUSE_S: Final = 1.0


class EventsResponse(Response):
    """Every change behind `follower.seen` that it wants, until the client goes or the service stops.

    With a `job_id` it is over with the event that leaves the job ended. A caller who is no longer allowed to
    read, as `is_allowed` says, is cut off within seconds.
    """

    def __init__(
        self,
        state: AppState,
        jobs: CallersJobs,
        follower: Follower,
        ids: EventIds,
        *,
        begin: bytes,
        first: Sequence[Told],
        job_id: str | None,
        is_allowed: Callable[[], Awaitable[bool]] | None,
    ) -> None:
        self._state = state
        self._jobs = jobs
        self._follower = follower
        self._ids = ids
        self._begin = begin
        self._first = first
        self._job_id = job_id
        self._is_allowed = is_allowed
        self._has_told_the_end = False
        self._size = PieceSize()
        super().__init__(None, 200, {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}, EVENT_STREAM)
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._state.streams.open(scope), self._state.feed.following(self._follower):
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            if scope.get("snakeline.method") != "HEAD":
                await self._follow(receive, send)

    async def _follow(self, receive: Receive, send: Send) -> None:
        async with Wake(self._follower.watch, self._state.stop, receive) as wake:
            if self._is_allowed is not None:
                wake.only_while(self._is_allowed)
            # At once: a client that waits for headers must not wait for a change.
            await self._send(self._begin or HEARTBEAT, send)
            await self._send_all(self._first, send, wake)
            async for piece in self._pieces(wake):
                if isinstance(piece, bytes):
                    await self._send(piece, send)
                else:
                    await self._send_all(piece, send, wake)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, piece: bytes, send: Send) -> None:
        await send({"type": "http.response.body", "body": piece, "more_body": True})

    async def _send_all(self, items: Sequence[Told], send: Send, wake: Wake) -> None:
        """In pieces, the next when the client has taken nearly all of the last."""
        held: list[bytes] = []
        size = 0
        for item in _without_superseded(items):
            held.append(self._event(item))
            size += len(held[-1])
            if size >= LEAST_BYTES:
                await self._send(b"".join(held), send)
                await self._size.taken(send)
                held, size = [], 0
            if wake.is_over:
                return
        if held:
            await self._send(b"".join(held), send)
        if items:
            self._has_told_the_end = JobStatus(items[-1].status).is_terminal

    def _event(self, item: Told) -> bytes:
        head = f"event: {item.kind}\nid: {self._ids.told(item.seq)}\ndata: "
        return head.encode() + item.data + b"\n\n"

    async def _pieces(self, wake: Wake) -> AsyncIterator[bytes | Sequence[Told]]:
        while not wake.is_over:
            wake.clear()
            try:
                items, has_more = await self._new()
            except StoreUnavailable:
                # The stream is resumed where it is; to end it would only bring the client back at once.
                await wake.wait(_STORE_PAUSE_S)
                continue
            if items:
                yield items
            elif not has_more:
                if self._job_id is not None and self._has_told_the_end:
                    return
                if not await wake.wait(HEARTBEAT_S):
                    if await self._is_gone():
                        return
                    yield HEARTBEAT

    async def _new(self) -> tuple[Sequence[Told], bool]:
        """What the follower wants and has not seen, a page at most; whether there is more."""
        feed, follower = self._state.feed, self._follower
        await feed.warm_up()
        items = follower.take()
        if items is not None:
            return items, False
        read_to = feed.read_to  # whatever was stored before it is seen by the read that follows
        page = await self._state.lists.run_part(
            self._jobs, self._jobs.news, follower.seen, job_id=self._job_id, limit=PAGE
        )
        follower.seen = page.read_to if page.has_more else max(page.read_to, read_to)
        return follower.filtered([told(item) for item in page.items]), True

    async def _is_gone(self) -> bool:
        """Whether the job was deleted, which is told by nothing else."""
        if self._job_id is None:
            return False
        try:
            await in_thread(self._jobs.get, self._job_id)
        except JobNotFound:
            return True
        except StoreUnavailable:
            pass
        return False


def _without_superseded(items: Sequence[Told]) -> list[Told]:
    """Without the progress that a later change of the same job, told at the same time, makes old."""
    latest = {item.job_id: item.seq for item in items}
    return [item for item in items if item.kind != Change.PROGRESSED.value or latest[item.job_id] == item.seq]

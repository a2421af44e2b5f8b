"""What happens in a job's run: its log, its tasks, their graph, changes as they happen."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from snakeline.client.aio.calls import AsyncCalls, job_path, named
from snakeline.client.errors import ChangesMissed, Unreachable
from snakeline.client.values import TERMINAL, JobChange, LogPart, LogPiece, Task

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

_PART_BYTES: Final = 4 * 2**20


class AsyncRunCalls(AsyncCalls):
    """The runs of jobs."""

    async def log(
        self,
        job_id: str,
        *,
        attempt: int | None = None,
        tail: int | None = None,
        offset: int | None = None,
        limit: int | None = None,
    ) -> bytes:
        """The log as it is now, as far as the service keeps it: whole, its last lines, or a part of it."""
        params = named(attempt=attempt, tail=tail, offset=offset, limit=limit)
        return (await self._connection.send("GET", job_path(job_id, "/logs"), params=params)).content

    async def log_parts(
        self, job_id: str, *, attempt: int | None = None, offset: int = 0
    ) -> AsyncIterator[LogPart]:
        """The log from `offset` to where it ends now, byte for byte, in parts of bounded size.

        Where a part begins behind the end of the one before it, bytes are no longer kept.
        """
        number = attempt or int((await self._document("GET", job_path(job_id)))["attempt"])
        while True:
            params = {"attempt": number, "offset": offset, "limit": _PART_BYTES}
            answer = await self._connection.send("GET", job_path(job_id, "/logs"), params=params)
            if not answer.content:
                return
            offset = int(answer.headers["x-log-next-offset"])
            yield LogPart(answer.content, int(answer.headers["x-log-offset"]), offset)
            if offset >= int(answer.headers["x-log-size"]):
                return

    async def follow_log(self, job_id: str, *, attempt: int | None = None) -> AsyncIterator[str]:
        """The log as text, from its beginning, in pieces as they are written, until the attempt ends.

        A stream that breaks is taken up where it broke, also across a short absence of the service. Where
        bytes are no longer kept, a line in brackets says how many; what is no UTF-8 becomes U+FFFD.
        """
        async for piece in self.follow_log_pieces(job_id, attempt=attempt):
            yield piece.text

    async def follow_log_pieces(
        self, job_id: str, *, attempt: int | None = None, offset: int = 0, tail: int | None = None
    ) -> AsyncIterator[LogPiece]:
        """The same, from `offset` or the last `tail` lines on, each with the offset to resume from."""
        # Named, because a job that is retried meanwhile has another current attempt when we come back.
        number = attempt or int((await self._document("GET", job_path(job_id)))["attempt"])
        absence = self._connection.absence()
        after = None if tail is not None else str(offset)
        while True:
            params = named(follow="true", attempt=number, tail=tail if after is None else None)
            try:
                async for event in self._connection.events(
                    job_path(job_id, "/logs"), params=params, after=after, what=f"The log of job {job_id}"
                ):
                    absence.over()
                    if event.event == "end":
                        return
                    after = event.id
                    is_gap = event.event == "gap"
                    yield LogPiece(_skipped(event.data) if is_gap else event.data, int(after), is_gap)
            except Unreachable as error:
                await self._connection.bear(absence, error)

    async def tasks(
        self,
        job_id: str,
        *,
        status: Sequence[str] = (),
        rules: Sequence[str] = (),
        attempt: int | None = None,
    ) -> AsyncIterator[Task]:
        """The tasks of the run by their numbers, page by page; those of the latest attempt by default."""
        params = {"status": [*status], "rule": [*rules], "limit": 500, **named(attempt=attempt)}
        async for item in self._items(job_path(job_id, "/tasks"), params):
            yield Task.from_json(item)

    async def task(self, job_id: str, number: int, *, attempt: int | None = None) -> Task:
        """One task, with the last lines of its log if it failed."""
        path = job_path(job_id, f"/tasks/{number}")
        return Task.from_json(await self._document("GET", path, params=named(attempt=attempt)))

    async def task_log(
        self,
        job_id: str,
        number: int,
        *,
        index: int = 0,
        tail: int | None = None,
        attempt: int | None = None,
    ) -> bytes:
        """A file that the task's rule names under `log:`, as it is now."""
        params = named(index=index, tail=tail, attempt=attempt)
        path = job_path(job_id, f"/tasks/{number}/logs")
        return (await self._connection.send("GET", path, params=params)).content

    async def graph(self, job_id: str, *, attempt: int | None = None) -> dict[str, Any]:
        """The rules of the run with their tasks counted by status, and what feeds what (`nodes`, `edges`)."""
        return await self._document("GET", job_path(job_id, "/graph"), params=named(attempt=attempt))

    async def graph_svg(self, job_id: str, *, attempt: int | None = None) -> str:
        """That graph as a picture."""
        params = named(format="svg", attempt=attempt)
        return (await self._connection.send("GET", job_path(job_id, "/graph"), params=params)).text

    async def usage_history(self, job_id: str, *, attempt: int | None = None) -> dict[str, Any]:
        """What an attempt used of the machine, point by point (`points`), with its limits and its sums."""
        return await self._document("GET", job_path(job_id, "/usage"), params=named(attempt=attempt))

    async def latest_change(self) -> str:
        """What to give `events` as `after` to be told of every change from this moment on.

        So whoever submits jobs next misses none of their ends.
        """
        absence = self._connection.absence()
        while True:
            events = self._connection.events("/events", after=None, what="The stream of changes")
            try:
                async with aclosing(events):
                    async for event in events:
                        return event.id
            except Unreachable as error:
                await self._connection.bear(absence, error)

    async def events(
        self, job_id: str | None = None, *, after: str | None = None, status: Sequence[str] = ()
    ) -> AsyncIterator[JobChange]:
        """Changes as they happen: a job's from its submission to its end, or all jobs' from now on.

        `after` is the `id` of a change to begin behind, `status` says to which statuses alone a change of all
        jobs' led. A stream that breaks is taken up where it broke, also across a short absence of the
        service. Raises ChangesMissed where that cannot be.
        """
        path = "/events" if job_id is None else job_path(job_id, "/events")
        what = "The stream of changes" if job_id is None else f"The changes of job {job_id}"
        absence = self._connection.absence()
        params = {"status": [*status]} if status else None
        latest: str | None = None
        while True:
            try:
                async for event in self._connection.events(path, params=params, after=after, what=what):
                    absence.over()
                    after = event.id
                    if event.event == "gap":
                        raise ChangesMissed(after)
                    if event.event != "start":
                        change = JobChange.from_json(json.loads(event.data), event.id)
                        latest = change.status
                        yield change
            except Unreachable as error:
                # Of one job the stream is over with its end; to ask once more tells whether that was all.
                if latest not in TERMINAL:
                    await self._connection.bear(absence, error)
                latest = None
            else:
                return


def _skipped(data: str) -> str:
    gap = json.loads(data)
    return f"\n[{gap['end'] - gap['start']} bytes are no longer kept]\n"

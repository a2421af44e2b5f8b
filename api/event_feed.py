"""The newest changes of all jobs, read from the store once for everybody who follows them."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog
from pydantic_core import to_json

from api.state import in_thread
from runner.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from runner.callers_jobs import CallersJobs
    from runner.job_news import NewsItem, NewsPage
    from runner.jobs import JobEvent

_MOST_ITEMS: Final = 1000
_MOST_BYTES: Final = 4 * 2**20
_PAGE: Final = 200
_BETWEEN_LOOKS_S: Final = 0.05  # what happens meanwhile is read together
_STORE_PAUSE_S: Final = 1.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Told:
    """A change as it goes out; `data` is the JSON of it and of its job, as it was when it was read."""

    seq: int
    tenant: str
    job_id: str
    workflow: str
    kind: str
    status: str
    data: bytes


def told(item: NewsItem) -> Told:
    event, job = item.event, item.job
    document: dict[str, Any] = {
        "job_id": event.job_id,
        "kind": event.kind.value,
        "status": event.status.value,
        "attempt": event.attempt,
        "at": event.at,
        "job": {
            "id": job.id,
            "status": job.status.value,
            "reason": job.reason.value if job.reason else None,
            "name": job.name,
            "workflow": job.workflow,
            "attempt": job.attempt,
            "created_at": job.created_at,
            "updated_at": job.updated_at,
            "started_at": job.started_at,
            "completed_at": job.completed_at,
            "exit_code": job.exit_code,
            "exit_signal": job.exit_signal,
            "error_message": job.error_message,
            "progress": job.progress,
            "owner": job.owner,
            "tenant": job.tenant,
            "links": {"self": f"/jobs/{job.id}"},
        },
    }
    return Told(
        event.seq, event.tenant, job.id, job.workflow, event.kind.value, event.status.value, to_json(document)
    )


class Follower:
    """One reader of the feed. `seen`: every change up to this number has been offered to it.

    It holds a number and nothing else: what it has not taken yet stays in the feed for a while, and in the
    store for as long as the job.
    """

    def __init__(self, feed: EventFeed, seen: int, wants: Callable[[Told], bool]) -> None:
        self._feed = feed
        self._wants = wants
        self._wake: Callable[[object], None] | None = None
        self._is_behind = True  # there may be something between `seen` and what the feed has read
        self.seen = seen

    def watch(self, wake: Callable[[object], None]) -> Callable[[], None]:
        """Call `wake` when there is something to take; returns the function that ends it."""
        self._wake = wake

        def end() -> None:
            self._wake = None

        return end

    def take(self) -> list[Told] | None:
        """What it wants of all the feed has read and it has not seen; None where that must be read anew."""
        items = self._feed.behind(self.seen)
        if items is None:
            return None
        # What was read from the store for this one alone may lie ahead of what the feed has read.
        self.seen, self._is_behind = max(self.seen, self._feed.read_to), False
        return [item for item in items if self._wants(item)]

    def filtered(self, items: list[Told]) -> list[Told]:
        return [item for item in items if self._wants(item)]

    def offer(self, items: list[Told], read_to: int) -> None:
        """The feed has read `items` behind what it had told before."""
        if self._is_behind:
            return
        if any(self._wants(item) for item in items):
            self._is_behind = True
            if self._wake is not None:
                self._wake(None)
        else:
            self.seen = max(self.seen, read_to)


class EventFeed:
    """Reads the store only while somebody follows, and holds a bounded part of what it read.

    Belongs to the event loop's thread. `jobs` are the operator's: whoever takes from it must ask for their
    own tenant's alone.
    """

    def __init__(self, jobs: CallersJobs) -> None:
        self._jobs = jobs
        self._followers: set[Follower] = set()
        self._items: deque[Told] = deque()
        self._bytes = 0
        self._floor = 0  # every change behind it, up to `read_to`, is among the items
        self._read_to: int | None = None  # None: nobody follows

    @property
    def read_to(self) -> int:
        """Up to where the store has been read; 0 while nobody follows."""
        return self._read_to or 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listens to the bus as long as this lasts."""
        loop = asyncio.get_running_loop()
        self._hint = asyncio.Event()

        def hint(_event: JobEvent) -> None:
            # On the publisher's thread; a loop that has just closed has nobody left to tell.
            if self._followers and not self._hint.is_set():
                with suppress(RuntimeError):
                    loop.call_soon_threadsafe(self._hint.set)

        end = self._jobs.watch(hint)
        looking = loop.create_task(self._look_on())
        try:
            yield
        finally:
            end()
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking

    @contextmanager
    def following(self, follower: Follower) -> Iterator[None]:
        """Offers it what is read as long as this lasts. Before it takes anything, `warm_up` must be done."""
        self._followers.add(follower)
        try:
            yield
        finally:
            self._followers.discard(follower)
            if not self._followers:
                self._items.clear()
                self._bytes, self._read_to = 0, None

    async def warm_up(self) -> None:
        """Begin to read, unless that is done already. Raises StoreUnavailable."""
        if self._read_to is None:
            self._begin_behind(await self.newest_of_all())

    def _begin_behind(self, newest: int) -> None:
        if self._read_to is None and self._followers:
            self._read_to = self._floor = newest
            self._hint.set()

    async def newest_of_all(self) -> int:
        """The greatest number that any change has ever had. Raises StoreUnavailable."""
        return await in_thread(self._jobs.newest_event)

    def behind(self, seq: int) -> list[Told] | None:
        """The items behind `seq`; None when some of them are no longer held."""
        if self._read_to is None or seq < self._floor:
            return None
        found = []
        for item in reversed(self._items):
            if item.seq <= seq:
                break
            found.append(item)
        return found[::-1]

    # ------------------------------------------------------------ reading

    async def _look_on(self) -> None:
        is_away = False
        while True:
            await self._hint.wait()
            self._hint.clear()
            try:
                if await self._look():
                    self._hint.set()
                is_away = False
            except Exception as error:  # noqa: BLE001 - whatever it is, those who follow would hear no more
                if not is_away:
                    is_trouble_known = isinstance(error, StoreUnavailable)
                    _log.warning("event_feed_waits", detail=str(error), exc_info=not is_trouble_known)
                is_away = True
                self._hint.set()
                await asyncio.sleep(_STORE_PAUSE_S)
            await asyncio.sleep(_BETWEEN_LOOKS_S)

    async def _look(self) -> bool:
        """Read what is new, a page at most; whether there is more."""
        after = self._read_to
        if after is None:
            return False
        page, items = await in_thread(self._page, after)
        read_to = page.read_to
        if self._read_to != after:
            return True  # everybody has gone meanwhile, and somebody has come
        for item in items:
            self._items.append(item)
            self._bytes += len(item.data)
        self._read_to = read_to
        while self._items and (len(self._items) > _MOST_ITEMS or self._bytes > _MOST_BYTES):
            dropped = self._items.popleft()
            self._bytes -= len(dropped.data)
            self._floor = dropped.seq
        for follower in self._followers:
            follower.offer(items, read_to)
        return page.has_more

    def _page(self, after: int) -> tuple[NewsPage, list[Told]]:
        page = self._jobs.news(after, limit=_PAGE)
        return page, [told(item) for item in page.items]

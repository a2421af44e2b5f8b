"""Waiting in a request: for a change of a job, until the client goes or the service stops."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator
    from types import TracebackType

    from starlette.types import Receive

    from runner.log_store import LogWatch

    Watch = Callable[[Callable[[object], None]], Callable[[], None]]

ALLOWED_AGAIN_S = 5.0
_IDLE_S = 3600.0


class StopSignal:
    """Set once, when the service begins to stop; belongs to the event loop's thread."""

    def __init__(self) -> None:
        self._callbacks: set[Callable[[], None]] = set()
        self._is_set = False

    @property
    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        for callback in list(self._callbacks):
            callback()

    @contextmanager
    def calling(self, callback: Callable[[], None]) -> Iterator[None]:
        """Call back once it is set, as long as this lasts."""
        self._callbacks.add(callback)
        try:
            yield
        finally:
            self._callbacks.discard(callback)


class Wake:
    """Wakes one request's task when there may be something new for it.

    Enter it before the first look, call `clear` before each further look: then nothing is missed.
    `watch` is told whom to call when a job has changed, and returns the function that ends it. `is_over`
    says that nobody is left to answer: the client has gone or may no longer ask, or the service stops.
    """

    def __init__(self, watch: Watch, stop: StopSignal, receive: Receive) -> None:
        self._watch = watch
        self._stop = stop
        self._receive = receive
        self._event = asyncio.Event()
        self._gone = False
        self._job_changed = False
        self._tasks: list[asyncio.Task[None]] = []
        self._ends = ExitStack()

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._ends.enter_context(self._stop.calling(self._event.set))
        self._ends.callback(self._watch(self._on_job_event))
        self._start(self._await_disconnect())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def is_over(self) -> bool:
        return self._gone or self._stop.is_set

    def clear(self) -> bool:
        """Begin a new look; whether the job may have changed since the one before."""
        changed, self._job_changed = self._job_changed, False
        self._event.clear()
        return changed

    async def wait(self, timeout_s: float) -> bool:
        """Return when there may be something new (True) or time is up (False)."""
        if self.is_over:
            return True
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return False
        return True

    def also_on(self, watch: LogWatch) -> None:
        """Wake on what is appended to a log, too."""
        self._start(self._pump(watch))

    def only_while(self, is_allowed: Callable[[], Awaitable[bool]]) -> None:
        """Be over as soon as `is_allowed`, asked every few seconds, says no."""
        self._start(self._ask_again(is_allowed))

    def _start(self, work: Coroutine[object, object, None]) -> None:
        self._tasks.append(self._loop.create_task(work))

    async def _await_disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        self._event.set()

    async def _pump(self, watch: LogWatch) -> None:
        while True:
            await watch.changed(_IDLE_S)
            self._event.set()

    async def _ask_again(self, is_allowed: Callable[[], Awaitable[bool]]) -> None:
        while await is_allowed():  # noqa: ASYNC110 - nobody tells of a change elsewhere
            await asyncio.sleep(ALLOWED_AGAIN_S)
        self._gone = True
        self._event.set()

    def _on_job_event(self, _event: object) -> None:
        # Perhaps on the publisher's thread; a loop that has just closed has nobody left to wake.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._on_job_change)

    def _on_job_change(self) -> None:
        self._job_changed = True
        self._event.set()

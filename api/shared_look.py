"""One look for everybody who asks at the same time, so that asking often costs nobody else anything."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

from anyio import CapacityLimiter, to_thread

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class SharedLook(Generic[T]):
    """Answers each who asks by a look that began after they did.

    There is one look at a time, on a thread of its own, and those who come while it runs share the next one.
    It belongs to the event loop's thread.
    """

    def __init__(self, look: Callable[[], T]) -> None:
        self._look = look
        self._next: asyncio.Task[T] | None = None
        self._looking: asyncio.Lock | None = None
        self._thread: CapacityLimiter | None = None

    async def get(self) -> T:
        """What the look returns. Raises what it raises."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._look_once())
            self._next.add_done_callback(_seen)
        # Shielded: one client that goes away must not take the look from the others.
        return await asyncio.shield(self._next)

    async def _look_once(self) -> T:
        self._looking = self._looking or asyncio.Lock()
        self._thread = self._thread or CapacityLimiter(1)
        async with self._looking:
            self._next = None  # who comes from now on needs a later one
            return await to_thread.run_sync(self._look, limiter=self._thread)


def _seen(task: asyncio.Task[T]) -> None:
    """An error is for those who wait; when all of them have gone, nobody need hear of it."""
    if not task.cancelled():
        task.exception()

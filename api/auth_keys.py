"""Whether an API key is known and good, by what the store says now and never by what it said before."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from anyio import CapacityLimiter, to_thread

from runner.key_texts import is_secret, split_key_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runner.access import ApiKey
    from runner.access_store import AccessStore


class KeyRing:
    """All keys of the store, read again whenever it has changed, whichever process changed it.

    Every check is by a look at the store that began after the check did. Requests that come while a look
    runs share the next one, so that a thousand at once make two. A look never waits for other threads of
    the service. It belongs to the event loop's thread.
    """

    def __init__(
        self, store: AccessStore, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._store = store
        self._now = now
        self._version: int | None = None
        self._keys: Mapping[str, ApiKey] = {}
        self._next_look: asyncio.Task[None] | None = None
        self._looking: asyncio.Lock | None = None
        self._thread: CapacityLimiter | None = None

    async def find(self, text: str) -> ApiKey | None:
        """The key that `text` is, if it is good now. Raises StoreUnavailable: then nobody is let in."""
        parts = split_key_text(text)
        if parts is None:
            return None
        await self._look()
        prefix, secret = parts
        key = self._keys.get(prefix)
        # An unknown key and a wrong secret take the same path and the same time.
        is_right = is_secret(secret, None if key is None else key.secret_sha256)
        if key is None or not is_right or not key.is_usable(self._now()):
            return None
        return key

    async def _look(self) -> None:
        if self._next_look is None:
            self._next_look = asyncio.get_running_loop().create_task(self._look_once())
            self._next_look.add_done_callback(_seen)
        # Shielded: one client that goes away must not take the look from the others.
        await asyncio.shield(self._next_look)

    async def _look_once(self) -> None:
        self._looking = self._looking or asyncio.Lock()
        self._thread = self._thread or CapacityLimiter(1)
        async with self._looking:
            self._next_look = None  # who comes from now on needs a later one
            self._version, self._keys = await to_thread.run_sync(self._read, limiter=self._thread)

    def _read(self) -> tuple[int, Mapping[str, ApiKey]]:
        # The version first: keys that change between the two are read again by the next look.
        version = self._store.keys_version()
        if version == self._version:
            return version, self._keys
        return version, {key.prefix: key for key in self._store.keys()}  # noqa: SIM118 - no dict


def _seen(task: asyncio.Task[None]) -> None:
    """An error is for those who wait; when all of them have gone, nobody need hear of it."""
    if not task.cancelled():
        task.exception()

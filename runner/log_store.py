"""The interface to the logs of attempts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager


@dataclass(frozen=True, slots=True)
class Gap:
    """Bytes `[start, end)` of the stream that are no longer kept."""

    start: int
    end: int


class Log(Protocol):
    """The log of one attempt. Offsets count the bytes of the stream as written; they never change."""

    def size(self) -> int:
        """Bytes written so far, the skipped ones included."""

    def gap(self) -> Gap | None: ...

    def read(self, offset: int, limit: int) -> tuple[int, bytes]:
        """At most `limit` bytes from `offset` on, and the offset they really begin at.

        Bytes in the gap are passed over: the answer then begins behind it. At the end: (size, b"").
        """

    def tail_offset(self, lines: int) -> int:
        """Where the last `lines` lines begin; never inside the gap."""

    def watch(self) -> AbstractAsyncContextManager[LogWatch]:
        """Wakes an asyncio reader when something is appended."""


class LogWatch(Protocol):
    async def changed(self, timeout_s: float) -> None:
        """Return when something was written since the last call, or time is up."""


def end_of(log: Log, limit_bytes: int) -> bytes:
    """What was written last, so much of it at most."""
    return log.read(max(0, log.size() - limit_bytes), limit_bytes)[1]


class LogStore(Protocol):
    def open(self, job_id: str, attempt: int) -> Log:
        """An attempt that has written nothing yet has an empty log."""

"""Waking those who follow logs: one inotify instance for all followers in one event loop.

A directory is watched once, however many follow it. While an attempt's directory does not exist, the
deepest one above it that does is watched for the next name on the way. Where the kernel's limits on
inotify are used up, a follower looks for itself every 50 ms.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

import structlog
from asyncinotify import Inotify, Mask

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from asyncinotify import Event, Watch

    from runner.attempt_files import AttemptFiles

POLL_S: Final = 0.05
_LOG_MASK: Final = (
    Mask.MODIFY | Mask.CREATE | Mask.CLOSE_WRITE | Mask.MOVED_TO | Mask.ONLYDIR | Mask.DONT_FOLLOW
)
_ABOVE_MASK: Final = Mask.CREATE | Mask.MOVED_TO | Mask.ONLYDIR | Mask.DONT_FOLLOW
_ANY_SEGMENT: Final = ""  # what a follower of the attempt's own directory waits for: any `log.*`
_EVENTS_PER_TURN: Final = 256  # then others in the loop have theirs

_log = structlog.get_logger(__name__)


class LogWatchers:
    """All watches below one data directory; an inotify instance exists only while somebody waits."""

    def __init__(self, data_dir: str) -> None:
        self._data_dir = data_dir
        self._shared: dict[asyncio.AbstractEventLoop, _SharedInotify] = {}
        self._complained = False

    @asynccontextmanager
    async def watch(self, files: AttemptFiles, size: Callable[[], int]) -> AsyncIterator[Follower | Poller]:
        """A watch on the log of one attempt; `size` is asked only where inotify is not to be had."""
        loop = asyncio.get_running_loop()
        follower = self._follower(loop, files)
        if follower is None:
            yield Poller(size)
            return
        try:
            yield follower
        finally:
            follower.leave()
            self._close_if_idle(loop)

    def _follower(self, loop: asyncio.AbstractEventLoop, files: AttemptFiles) -> Follower | None:
        """None when the kernel has no inotify left to give; the first time it is logged."""
        try:
            if loop not in self._shared:
                self._shared[loop] = _SharedInotify(loop)
            follower = Follower(self._shared[loop], self._data_dir, files.directory)
            follower.settle()
        except OSError as error:
            self._close_if_idle(loop)
            if not self._complained:
                self._complained = True
                _log.warning("log_watch_polls", poll_s=POLL_S, error=os.strerror(error.errno or 0))
            return None
        return follower

    def _close_if_idle(self, loop: asyncio.AbstractEventLoop) -> None:
        shared = self._shared.get(loop)
        if shared is not None and shared.is_idle:
            del self._shared[loop]
            shared.close()


class Follower:
    """One reader's watch. It belongs to the event loop that made it."""

    def __init__(self, shared: _SharedInotify, data_dir: str, directory: str) -> None:
        self._shared = shared
        self._data_dir = data_dir
        self._names = os.path.relpath(directory, data_dir).split(os.sep)
        self._place: tuple[_Directory, str] | None = None
        self._written = asyncio.Event()

    async def changed(self, timeout_s: float) -> None:
        """Return when something was written since the last call, or time is up.

        A call may return early with nothing new: read again and wait again.
        """
        if self._place is not None:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._written.wait()
            except TimeoutError:
                return
        self._written.clear()
        if self._place is None:
            try:
                self.settle()
            except OSError:
                # Neither the log nor a directory above it can be watched now: the caller looks again.
                await asyncio.sleep(min(POLL_S, timeout_s))

    def wake(self) -> None:
        self._written.set()

    def move_on(self) -> None:
        """The next name on the way has appeared."""
        with suppress(OSError):  # `changed` tries again
            self.settle()
        self.wake()

    def settle(self) -> None:
        """Wait in the deepest directory there is on the way to the log.

        Raises OSError when not even the data directory can be watched.
        """
        self.leave()
        depth = len(self._names)
        while True:
            waits_for = self._names[depth] if depth < len(self._names) else _ANY_SEGMENT
            try:
                place = self._shared.enter(
                    os.path.join(self._data_dir, *self._names[:depth]), waits_for, self
                )
            except FileNotFoundError:
                if self._place is not None:
                    return  # what is below still does not exist
                if depth == 0:
                    raise
                depth -= 1
                continue
            except OSError:
                self.leave()
                raise
            self.leave()
            self._place = place
            if depth == len(self._names):
                return
            depth += 1  # it may have been made since we looked

    def leave(self) -> None:
        if self._place is not None:
            place, self._place = self._place, None
            self._shared.depart(*place, self)

    def lost(self) -> None:
        """The directory it waited in is gone."""
        self._place = None
        self.wake()


class Poller:
    """One reader's look at the size, for want of inotify."""

    def __init__(self, size: Callable[[], int]) -> None:
        self._size = size
        self._seen = size()

    async def changed(self, timeout_s: float) -> None:
        """Return when something was written since the last call, or time is up."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while (size := self._size()) == self._seen:
            left_s = deadline - loop.time()
            if left_s <= 0:
                return
            await asyncio.sleep(min(POLL_S, left_s))
        self._seen = size


class _Directory:
    """A watched directory and who waits for which name in it."""

    __slots__ = ("followers", "path", "watch")

    def __init__(self, path: str, watch: Watch) -> None:
        self.path = path
        self.watch = watch
        self.followers: dict[str, set[Follower]] = {}


class _SharedInotify:
    """One inotify instance, read by its loop. Raises OSError when the kernel has none left."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._inotify = Inotify(sync_timeout=0)
        self._loop = loop
        self._next_turn: asyncio.Handle | None = None
        self._by_path: dict[str, _Directory] = {}
        self._by_descriptor: dict[int, _Directory] = {}
        loop.add_reader(self._inotify.fd, self._read)

    @property
    def is_idle(self) -> bool:
        return not self._by_path

    def close(self) -> None:
        if self._next_turn is not None:
            self._next_turn.cancel()
        self._loop.remove_reader(self._inotify.fd)
        self._inotify.close()

    def enter(self, path: str, name: str, follower: Follower) -> tuple[_Directory, str]:
        """Let `follower` wait for `name` in the directory. Raises OSError, FileNotFoundError among them."""
        directory = self._by_path.get(path)
        if directory is None:
            mask = _LOG_MASK if name == _ANY_SEGMENT else _ABOVE_MASK
            directory = _Directory(path, self._inotify.add_watch(path, mask))
            self._by_path[path] = self._by_descriptor[directory.watch.wd] = directory
        directory.followers.setdefault(name, set()).add(follower)
        return directory, name

    def depart(self, directory: _Directory, name: str, follower: Follower) -> None:
        waiting = directory.followers[name]
        waiting.discard(follower)
        if not waiting:
            del directory.followers[name]
        if not directory.followers:
            self._forget(directory)
            with suppress(OSError):  # a deleted directory has taken its watch with it
                self._inotify.rm_watch(directory.watch)

    def _forget(self, directory: _Directory) -> None:
        del self._by_path[directory.path]
        del self._by_descriptor[directory.watch.wd]

    def _read(self) -> None:
        for _ in range(_EVENTS_PER_TURN):
            event = self._inotify.sync_get()
            if event is None:
                return
            self._tell(event)
        # What was read ahead of the last event told is no longer in the kernel to call us again.
        self._next_turn = self._loop.call_soon(self._read)

    def _tell(self, event: Event) -> None:
        if Mask.Q_OVERFLOW in event.mask:
            for each in list(self._by_path.values()):
                self._tell_all(each)
            return
        watch = event.watch
        directory = self._by_descriptor.get(watch.wd) if watch is not None else None
        if directory is None:
            return
        if Mask.IGNORED in event.mask:
            self._forget(directory)
            for followers in directory.followers.values():
                for follower in followers:
                    follower.lost()
            return
        if event.name is None:
            return
        name = event.name.name
        if name.startswith("log."):
            for follower in directory.followers.get(_ANY_SEGMENT, ()):
                follower.wake()
        for follower in list(directory.followers.get(name, ())):
            follower.move_on()

    def _tell_all(self, directory: _Directory) -> None:
        for name, followers in list(directory.followers.items()):
            for follower in list(followers):
                if name == _ANY_SEGMENT:
                    follower.wake()
                else:
                    follower.move_on()

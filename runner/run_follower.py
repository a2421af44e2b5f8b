"""Follows the events of all running attempts on one thread: what a run tells is seen some milliseconds later.

It reads in turns, a piece of each file that has changed, so that one which is written without end keeps no
other from being seen; and after each turn it rests for three times as long as that took.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import structlog

from runner.recurring_trouble import RecurringTrouble
from runner.run_watches import RunWatches
from runner.samples import Sample

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runner.attempt_files import AttemptFiles
    from runner.jobs import Progress
    from runner.ports import Handle, RunReader

    Chore = Callable[[], bool]
    """Does a piece of some work; whether there is more of it."""

_log = structlog.get_logger(__name__)

PIECE_BYTES: Final = 256 * 2**10
_EVERY_S: Final = 0.1
"""How often an attempt is read at most: what it tells in between is told at once."""
_PIECE_SHARE: Final = 20
_TURN_SHARE: Final = 3
_SHORTEST_REST_S: Final = 0.02
_LONGEST_REST_S: Final = 2.0
_LOOK_S: Final = 0.5
"""How often those are looked at that can't be watched."""


@dataclass(slots=True)
class _Followed:
    handle: Handle
    files: AttemptFiles
    reader: RunReader
    when_read: Callable[[RunReader], None] | None = None  # it has ended: called at the end of its file
    told: Progress | None = None
    is_up_to_date: bool = False  # it has been read to its end once
    due: float = 0.0
    reading: threading.Lock = field(default_factory=threading.Lock)


class RunFollower:
    """`add` and the other methods may be called by any thread."""

    def __init__(self, report: Callable[[Sequence[Sample]], None]) -> None:
        """`report` is called on the follower's thread with the progress that is new."""
        self._report = report
        self._watches = RunWatches()
        self._lock = threading.Lock()
        self._followed: dict[Handle, _Followed] = {}
        self._new: dict[Handle, _Followed] = {}
        self._left: deque[Handle] = deque()  # to be watched no more
        self._chores: deque[Chore] = deque()
        # The thread's own: those that may have something to tell, in the order of their turns.
        self._stirred: dict[Handle, None] = {}
        self._look_at = 0.0
        self._stopping = threading.Event()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="run-follower", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stopping.set()
        self._ring()
        if self._thread.is_alive():
            self._thread.join()
        self._watches.close()
        os.close(self._bell)

    def add(self, handle: Handle, files: AttemptFiles, reader: RunReader) -> None:
        """Follow an attempt from now on."""
        self._add(_Followed(handle, files, reader))

    def finish(self, handle: Handle) -> RunReader | None:
        """Follow it no more: the reader, now the caller's; None if it was not followed."""
        with self._lock:
            self._new.pop(handle, None)
            followed = self._followed.pop(handle, None)
            if followed is None:
                return None
            self._left.append(handle)
        with followed.reading:
            return followed.reader

    def read_out(
        self, handle: Handle, files: AttemptFiles, reader: RunReader, when_read: Callable[[RunReader], None]
    ) -> None:
        """Read an ended attempt's file to its end, in turns with the others, and call back then."""
        self._add(_Followed(handle, files, reader, when_read))

    def do_later(self, chore: Chore) -> None:
        """Do this in pieces, one each turn, after what else there is to do."""
        with self._lock:
            self._chores.append(chore)
        self._ring()

    def _add(self, followed: _Followed) -> None:
        with self._lock:
            self._followed[followed.handle] = self._new[followed.handle] = followed
            is_first = len(self._new) == 1
        if is_first:
            self._ring()

    def _ring(self) -> None:
        with suppress(OSError):
            os.eventfd_write(self._bell, 1)

    # ------------------------------------------------------------ on its thread

    def _run(self) -> None:
        failures = RecurringTrouble()
        poll = select.poll()
        poll.register(self._bell, select.POLLIN)
        if self._watches.fd is not None:
            poll.register(self._watches.fd, select.POLLIN)
        while not self._stopping.is_set():
            wait_s = self._next_in_s()
            rung = poll.poll(None if wait_s is None else wait_s * 1000)
            if any(fd == self._bell for fd, _ in rung):
                with suppress(OSError):
                    os.eventfd_read(self._bell)
                # Many an attempt is over before it is worth a watch.
                self._stopping.wait(_SHORTEST_REST_S)
            began = time.thread_time()
            try:
                self._turn()
            except Exception as error:  # noqa: BLE001 - a turn more or less, but the thread must live
                if times := failures.came(repr(error)):
                    _log.exception("run_follower.failed", times=times)
            rest_s = _TURN_SHARE * (time.thread_time() - began)
            self._stopping.wait(min(_LONGEST_REST_S, max(_SHORTEST_REST_S, rest_s)))

    def _next_in_s(self) -> float | None:
        """When there will be something to do without a word from anybody; None when there will not."""
        if self._chores:
            return 0.0
        now = time.monotonic()
        dues = [f.due for handle in self._stirred if (f := self._followed.get(handle)) is not None]
        if self._watches.unwatched:
            dues.append(self._look_at)
        return max(0.0, min(dues) - now) if dues else None

    def _turn(self) -> None:
        self._welcome()
        for handle in self._watches.changed():
            self._stirred[handle] = None
        now = time.monotonic()
        if self._watches.unwatched and now >= self._look_at:
            self._look_at = now + _LOOK_S
            for handle, files in list(self._watches.unwatched.items()):
                self._watches.watch(handle, files)
                self._stirred[handle] = None
        samples = []
        for handle in list(self._stirred):
            followed = self._followed.get(handle)
            if followed is None:
                del self._stirred[handle]
            elif followed.due <= now and (sample := self._read(followed)) is not None:
                samples.append(sample)
        if samples:
            self._report(samples)
        self._do_a_chore()

    def _welcome(self) -> None:
        with self._lock:
            new, self._new = self._new, {}
            left, self._left = self._left, deque()
        for handle in left:
            self._watches.forget(handle)
        for handle, followed in new.items():
            if followed.when_read is None:
                self._watches.watch(handle, followed.files)
            self._stirred[handle] = None

    def _read(self, followed: _Followed) -> Sample | None:
        began = time.thread_time()
        with followed.reading:
            if self._followed.get(followed.handle) is not followed:
                return None
            has_more, progress = _piece(followed)
        cost_s = time.thread_time() - began
        rest_s = max(_EVERY_S, _PIECE_SHARE * cost_s) if followed.when_read is None else 0.0
        followed.due = time.monotonic() + rest_s
        del self._stirred[followed.handle]
        if has_more:
            self._stirred[followed.handle] = None  # behind the others
        elif followed.when_read is not None:
            with self._lock:
                self._followed.pop(followed.handle, None)
            followed.when_read(followed.reader)
        followed.is_up_to_date |= not has_more
        if progress is None or progress == followed.told or followed.when_read is not None:
            return None
        if not followed.is_up_to_date:  # found again after a restart: the store knows more
            return None
        followed.told = progress
        return Sample(followed.handle, progress)

    def _do_a_chore(self) -> None:
        with self._lock:
            chore = self._chores.popleft() if self._chores else None
        if chore is not None and chore():
            with self._lock:
                self._chores.appendleft(chore)


def _piece(followed: _Followed) -> tuple[bool, Progress | None]:
    """Read a piece: whether there is more, and the progress by now."""
    try:
        return followed.reader.advance(PIECE_BYTES), followed.reader.progress
    except Exception:  # noqa: BLE001 - written by the job: whatever it is, the others are followed on
        handle = followed.handle
        _log.exception("run_follower.unreadable", job_id=handle.job_id, attempt=handle.attempt)
        return False, None

"""The talk with the launcher: which attempts it was asked for and has not answered yet."""

from __future__ import annotations

import math
import os
import select
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import structlog

from runner.backends.launcher_process import Forked, Gone, Ready, Refused, Unseen
from runner.errors import BackendUnavailable
from runner.recurring_trouble import RecurringTrouble

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.backends.launcher_choice import LauncherChoice
    from runner.backends.launcher_process import Answer, LauncherProcess
    from runner.histograms import Histogram
    from runner.ports import Handle

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Begun:
    """The shim of this attempt runs; the pidfd is the receiver's to close."""

    handle: Handle
    pid: int
    pidfd: int


@dataclass(frozen=True, slots=True)
class BegunUnseen:
    """The shim of this attempt runs, but there was no descriptor left to receive its pidfd."""

    handle: Handle


@dataclass(frozen=True, slots=True)
class NotBegun:
    """The attempt has no shim, and is not asked for any more."""

    handle: Handle


Heard = Begun | BegunUnseen | NotBegun


class _Asked(NamedTuple):
    handle: Handle
    at: float  # on the monotonic clock


class Launches:
    """One launcher at a time, replaced when it ends, hangs or does not fit any more.

    Not thread-safe: it belongs to the supervisor's thread, as the launchers do.
    """

    def __init__(
        self,
        choice: LauncherChoice,
        epoll: select.epoll,
        *,
        launcher_within_s: float,
        latency: Histogram,
        has_begun: Callable[[Handle], bool],
    ) -> None:
        """`launcher_within_s`: how long a launcher may be silent when asked before it is replaced.

        `has_begun` tells by an attempt's files whether a shim has taken it.
        """
        self._choice = choice
        self._epoll = epoll
        self._within_s = launcher_within_s
        self._latency = latency
        self._has_begun = has_begun
        self._refusals = RecurringTrouble()
        self.launcher: LauncherProcess | None = None
        self._asked: dict[str, _Asked] = {}  # by attempt directory

    def request(self, handle: Handle, directory: str) -> None:
        """Ask for the attempt's shim. Raises BackendUnavailable: nothing was asked."""
        launcher = self.launcher
        if not self._choice.fits(launcher) or launcher is None:
            launcher = self.new_launcher()
        self._asked[directory] = _Asked(handle, time.monotonic())
        launcher.request(directory)

    def new_launcher(self) -> LauncherProcess:
        """Raises BackendUnavailable. Requests the old one has not answered are asked again of the new one."""
        if self.launcher is not None:
            self._epoll.unregister(self.launcher.fileno())
            self.launcher.close()
            self.launcher = None
        self.launcher = launcher = self._choice.start()
        self._epoll.register(launcher.fileno(), select.EPOLLIN)
        for directory in self._asked:
            launcher.request(directory)
        return launcher

    def still_waits(self, directory: str) -> bool:
        """Whether the attempt was asked for and cannot run yet, for want of a launcher."""
        return self.launcher is not None and not self.launcher.is_ready and directory in self._asked

    def withdraw(self, directory: str) -> None:
        """One that `still_waits` is not asked for any more."""
        assert self.launcher is not None
        self.launcher.forget(directory)
        del self._asked[directory]

    # ------------------------------------------------------------ hearing

    def is_launcher(self, fd: int) -> bool:
        return self.launcher is not None and fd == self.launcher.fileno()

    def hear(self) -> list[Heard]:
        """What the launcher has answered, without waiting; it is replaced if it has ended."""
        assert self.launcher is not None
        launcher = self.launcher
        heard: list[Heard] = []
        for answer in launcher.receive():
            if isinstance(answer, Gone):
                heard.extend(self._replace(launcher, answer.unanswered))
            elif (each := self._understood(launcher, answer)) is not None:
                heard.append(each)
        return heard

    def _understood(self, launcher: LauncherProcess, answer: Answer) -> Heard | None:
        match answer:
            case Ready(obstacle):
                self._choice.was_ready()
                if obstacle is not None:
                    _log.warning("launcher.engine_runs_cold", python=launcher.spec.python, reason=obstacle)
            case Forked(directory, pid, pidfd):
                handle = self._answered(directory)
                if handle is not None:
                    return Begun(handle, pid, pidfd)
                os.close(pidfd)
            case Unseen(directory):
                handle = self._answered(directory)
                if handle is not None:
                    return BegunUnseen(handle)
            case Refused(directory, detail):
                asked = self._asked.pop(directory, None)
                handle = asked.handle if asked is not None else None
                job_id = handle.job_id if handle is not None else None
                if times := self._refusals.came(detail):
                    _log.warning(
                        "launcher.refused", job_id=job_id, directory=directory, detail=detail, times=times
                    )
                if handle is not None:
                    return NotBegun(handle)
            case Gone():
                pass
        return None

    def _answered(self, directory: str) -> Handle | None:
        """Whose process is there; None if nobody waits for it. How long it took is counted."""
        asked = self._asked.pop(directory, None)
        if asked is None:
            return None
        self._latency.observe(time.monotonic() - asked.at)
        return asked.handle

    def _replace(self, launcher: LauncherProcess, unanswered: tuple[str, ...]) -> list[Heard]:
        """It may have forked a shim without living to tell: look at each attempt before asking again."""
        _log.warning("launcher.ended", pid=launcher.pid, unanswered=len(unanswered))
        self._choice.has_ended(launcher)
        heard: list[Heard] = []
        for directory in unanswered:
            asked = self._asked.get(directory)
            if asked is not None and self._has_begun(asked.handle):
                self._answered(directory)
                heard.append(BegunUnseen(asked.handle))
        try:
            self.new_launcher()
        except BackendUnavailable as error:
            _log.error("launcher.unavailable", detail=str(error))
            heard.extend(NotBegun(asked.handle) for asked in self._asked.values())
            self._asked.clear()
        return heard

    # ------------------------------------------------------------ its silence

    def overdue_at(self) -> float:
        """When its silence means that it hangs, on the monotonic clock; infinite while nothing is asked."""
        return math.inf if self.launcher is None else self.launcher.overdue_at(self._within_s)

    def end_overdue(self, now: float) -> None:
        """Kill a launcher that hangs; its end is heard of as any other."""
        if self.launcher is not None and self.overdue_at() <= now:
            _log.warning("launcher.hangs", pid=self.launcher.pid)
            self.launcher.kill()

    def close(self) -> None:
        if self.launcher is not None:
            self.launcher.close()
            self.launcher = None

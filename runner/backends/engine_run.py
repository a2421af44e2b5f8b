"""Runs an attempt's commands for its shim, until the last process is gone. Standard library only."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.backends import job_folders, working_directory
from runner.backends.engine_process import EngineProcess, LaunchFailed
from runner.backends.output_pump import OutputPump
from runner.disk_trouble import PASSING
from runner.isolation.job_users import JobMembers
from runner.isolation.processes import kill_descendants, reap, signal_descendants

if TYPE_CHECKING:
    from runner.attempt_files import AttemptFiles, ShimSpec
    from runner.backends.log_segments import LogSegments
    from runner.isolation.confinement import Confinement
    from runner.isolation.job_users import JobUser
    from runner.isolation.processes import Group, ProcessTitle

LEFTOVER_GRACE_S = 2.0
"""What a job's forgotten background processes get between SIGTERM and SIGKILL once the engine has ended."""
KILL_WITHIN_S = 5.0
LONGEST_WAIT_MS = 2**31 - 1

FORK_AGAIN_S = 1.0
"""How long to wait for a process to become free before the next command's is asked for again."""

STOP = signal.SIGTERM
FORCE = signal.SIGUSR1
INTERRUPT = signal.SIGUSR2
STOPS = (STOP, FORCE, INTERRUPT)


class Stopped(Exception):
    """The attempt was stopped before the engine was started."""


class Unobserved(Exception):
    """The engine was started, and how it ended could not be seen: no result may be told."""


@dataclass
class Ending:
    """What is known so far of how the engine ended."""

    exit_code: int | None = None
    exit_signal: int | None = None
    launch_error: str | None = None
    stopped: str | None = None
    read_bytes: int = 0
    written_bytes: int = 0
    survivors: int = 0
    oom_kills: int = 0
    memory_peak_bytes: int = 0
    machine_oom_kills: int = 0


def as_root(user: JobUser | None) -> contextlib.AbstractContextManager[None]:
    """Where it matters: the job's processes are another user's, if the job has one of its own."""
    return contextlib.nullcontext() if user is None else user.as_root()


def _wake_up(_number: int, _frame: object) -> None:
    """The wake-up pipe has the news."""


def set_handlers() -> None:
    """Handle the shim's signals. Done once by the launcher: every fork of it inherits that.

    Stops are blocked until the fork listens: Python forgets what arrives while it forks.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    for number in (*STOPS, signal.SIGCHLD):
        signal.signal(number, _wake_up)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _listen_for_signals() -> int:
    """From here on signals arrive as bytes on this pipe, one per signal."""
    wake, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    return wake


class EngineRun:
    """The attempt's commands, one after the other, under one deadline."""

    def __init__(
        self,
        spec: ShimSpec,
        confinement: Confinement,
        user: JobUser | None,
        log: LogSegments,
        *,
        warm: bool,
        title: ProcessTitle,
    ) -> None:
        self._spec = spec
        self._confinement = confinement
        self._user = user
        self._members: Group | None = (
            confinement.group if user is None else JobMembers(user, confinement.group)
        )
        self._warm = warm
        self._title = title
        self._stop: str | None = None
        self._force = False
        self._signalled = False
        self._deadline = time.monotonic() + spec.timeout_s if spec.timeout_s is not None else None
        self._kill_at: float | None = None
        self.memory = confinement.memory_watch()
        # The first process is forked before anything else is done: every page of memory that is
        # written before a fork is written again, at a price, by both sides after it.
        self._waiting: EngineProcess | None = self._new_engine()
        self._wake = _listen_for_signals()
        self._pump = OutputPump(log)

    def make_places(self, files: AttemptFiles) -> None:
        """The job's home, working and temporary directory. Raises Stopped, OSError."""
        job_folders.make(files)
        working_directory.make(self._spec.work_dir, self._spec.source, self.raise_if_stopped)
        working_directory.take_in(files.attachments, f"{self._spec.work_dir}/input")
        if self._user is not None:
            self._user.give_files()
        self.raise_if_stopped()

    def all_steps(self) -> Ending:
        """Run every command. Raises Stopped, LaunchFailed, OSError, Unobserved."""
        ending = self._step(0)
        for step in range(1, len(self._spec.commands)):
            if ending.exit_code != 0:
                break
            self._waiting = self._another_engine()
            ending = self._step(step)
        return ending

    def close(self) -> None:
        """End the process that waits to become the engine, if there is one."""
        if self._waiting is not None:
            self._waiting.abandon()
            self._waiting = None

    def _new_engine(self) -> EngineProcess:
        uid = None if self._user is None else self._user.uid
        return EngineProcess(self._spec, self._confinement, uid=uid, warm=self._warm, title=self._title)

    def _another_engine(self) -> EngineProcess:
        """Asked for again while the machine has no process to give: an attempt that has started waits."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        while True:
            self.raise_if_stopped()
            try:
                return self._new_engine()
            except OSError as error:
                if error.errno not in PASSING:
                    raise
            poll.poll(FORK_AGAIN_S * 1000)

    def raise_if_stopped(self) -> None:
        """Raises Stopped when a stop was asked for or the time is up; no engine runs yet."""
        self._read_signals()
        self._check_deadline()
        if self._stop:
            raise Stopped(self._stop)

    def _step(self, step: int) -> Ending:
        self.raise_if_stopped()
        engine = self._waiting
        assert engine is not None
        try:
            engine.become(step)
            self._waiting = None
            self._until_ended(engine)
            ending = self._collect(engine)
            self._end_leftovers(engine.output, ending)
            self._pump.drain(engine.output)
        except BrokenPipeError as error:
            raise LaunchFailed("The engine's process was killed before it could start.") from error
        except OSError as error:
            raise Unobserved(str(error)) from error
        with contextlib.suppress(OSError):  # how it ended is known: descriptors do not matter any more
            engine.close()
        return ending

    def _until_ended(self, engine: EngineProcess) -> None:
        pidfd, output = engine.pidfd, engine.output
        poll = select.poll()
        for fd in (pidfd, output, self._wake):
            poll.register(fd, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll(self._timeout_ms())}
            if output in ready and self._pump.move(output) is None:
                poll.unregister(output)
            if pidfd in ready:
                return
            self._read_signals()
            self._check_deadline()
            if self._stop and not self._signalled and engine.has_ended():
                return  # it beat the signal: a poll whose time is up may not have told
            self._stop_descendants()
            if self._wake in ready:
                self._reap_orphans(engine.pid)

    def _collect(self, engine: EngineProcess) -> Ending:
        """How the engine ended, and its I/O while the kernel still has the account."""
        os.waitid(os.P_PID, engine.pid, os.WEXITED | os.WNOWAIT)
        with as_root(self._user):
            read_bytes, written_bytes = engine.io_bytes()
        _, status = os.waitpid(engine.pid, 0)
        status = engine.true_status(status)
        killed = os.WIFSIGNALED(status)
        return Ending(
            exit_code=None if killed else os.WEXITSTATUS(status),
            exit_signal=os.WTERMSIG(status) if killed else None,
            stopped=self._stop if self._signalled else None,
            read_bytes=read_bytes,
            written_bytes=written_bytes,
        )

    def _end_leftovers(self, output: int, ending: Ending) -> None:
        """End whatever the engine left behind: SIGTERM, a moment, SIGKILL until nothing is left."""
        if not reap():
            return
        if not self._force:
            grace = self._kill_at - time.monotonic() if self._kill_at is not None else LEFTOVER_GRACE_S
            deadline = time.monotonic() + min(max(grace, 0.0), LEFTOVER_GRACE_S)
            with as_root(self._user):
                signal_descendants(signal.SIGTERM)
            poll = select.poll()
            poll.register(self._wake, select.POLLIN)
            poll.register(output, select.POLLIN)
            while reap() and (left := deadline - time.monotonic()) > 0 and not self._force:
                ready = {fd for fd, _ in poll.poll(left * 1000)}
                if output in ready and self._pump.move(output) is None:
                    poll.unregister(output)
                self._read_signals()
        with as_root(self._user):
            ending.survivors = kill_descendants(within_s=KILL_WITHIN_S, group=self._members)

    # -- signals and time

    def _timeout_ms(self) -> float | None:
        until_stopped = (None, None) if self._stop else (self._deadline, self.memory.next_at)
        times = [at for at in (*until_stopped, self._kill_at) if at is not None]
        if not times:
            return None
        # poll(2) counts in an int: what is further away than it can say is asked about again.
        return min(max(0.0, (min(times) - time.monotonic()) * 1000) + 1, LONGEST_WAIT_MS)

    def _read_signals(self) -> None:
        try:
            received = os.read(self._wake, 4096)
        except BlockingIOError:
            return
        if INTERRUPT in received and not self._stop:
            self._stop = "interrupt"
        if STOP in received or FORCE in received:
            self._stop = self._stop or "cancel"
            self._force = self._force or FORCE in received

    def _check_deadline(self) -> None:
        if self._deadline is not None and not self._stop and time.monotonic() >= self._deadline:
            self._stop = "timeout"
        if not self._stop and self.memory.next_at is not None:
            with as_root(self._user):  # nobody else is told what the processes of a user share
                if self.memory.is_exceeded():
                    self._stop, self._force = "memory", True

    def _stop_descendants(self) -> None:
        """SIGTERM once; SIGKILL, again and again, when the grace is over or the stop is forced."""
        if not self._stop:
            return
        now = time.monotonic()
        if not self._signalled:
            self._signalled = True
            self._kill_at = now + self._spec.stop_grace_s
            if not self._force:
                with as_root(self._user):
                    signal_descendants(signal.SIGTERM)
        if self._force or (self._kill_at is not None and now >= self._kill_at):
            with as_root(self._user):
                if self._members is not None:
                    self._members.kill()
                signal_descendants(signal.SIGKILL)
            self._kill_at = now + 0.05

    @staticmethod
    def _reap_orphans(engine: int) -> None:
        """Collect descendants that became ours; the engine itself is for `_collect`."""
        while True:
            waiting = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if waiting is None or waiting.si_pid == engine:
                return
            os.waitpid(waiting.si_pid, 0)

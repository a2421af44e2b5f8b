"""The shim: one small process per attempt that owns the job. Standard library only.

It holds the attempt's lock, marks the start, runs the engine, writes its output to the log, keeps the
deadline and records how it ended. Neither the service nor the launcher is needed while it works.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import resource
import select
import signal
import time
from dataclasses import dataclass

from runner.attempt_files import AttemptFiles, ExitRecord, InvalidRecord, ShimSpec, try_lock
from runner.backends import working_directory
from runner.backends.attempt_marks import (
    PASSING,
    mark_started,
    reserve_record,
    sync_directory,
    write_record,
)
from runner.backends.engine_process import PIPE_BYTES, EngineProcess, LaunchFailed
from runner.backends.flood_pace import FloodPace
from runner.backends.log_segments import LogSegments
from runner.isolation.processes import (
    ProcessTitle,
    become_subreaper,
    kill_descendants,
    reap,
    signal_descendants,
)

NOT_OURS = 3  # exit code: the attempt belongs to another shim, or was started before
LEFTOVER_GRACE_S = 2.0
"""What a job's forgotten background processes get between SIGTERM and SIGKILL once the engine has ended."""
KILL_WITHIN_S = 5.0
_PIECE_BYTES = 2**16
"""Taken from the pipe at one go: small enough that the API, on the same cores, need not wait for it."""
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


def main(directory: str, *, warm: bool, title: ProcessTitle) -> int:
    """Run the attempt in `directory` to its end; the shim's own exit code.

    Called in a fresh single-threaded process, forked from one that has called `set_handlers`.
    """
    job_dir, attempts = os.path.split(os.path.dirname(directory))
    assert attempts == "attempts"
    files = AttemptFiles(job_dir, int(os.path.basename(directory)))
    title.set("snakeline-shim", f"snakeline: shim of job {os.path.basename(job_dir)}/{files.attempt}")
    become_subreaper()
    try:
        lock = try_lock(files.lock)
        if lock is None or os.path.exists(files.exit) or os.path.exists(files.started):
            return NOT_OURS
        with contextlib.suppress(OSError):
            os.unlink(files.crash)  # of a try that started nothing: its words are not this one's
        record_fd = reserve_record(files)
    except OSError as error:
        # Another shim would fare no better with anything else: lost, and not launched for ever.
        if error.errno not in PASSING and mark_started(files):
            sync_directory(files.directory)
        raise
    # Until the mark nothing of the job has run: what ails the machine alone ends this try, and another
    # may be made. So everything that needs room, descriptors or a process comes before it.
    started_at, started_monotonic = time.time(), time.monotonic()
    ending = Ending()
    log: LogSegments | None = None
    run: _Run | None = None
    marked = False
    try:
        spec = ShimSpec.load(_read(files.spec))
        log = LogSegments(files, spec.log_segment_bytes)
        run = _Run(spec, log, warm=warm and spec.warm_entry is not None, title=title)
        run.make_places(files)
        if not mark_started(files):
            return NOT_OURS
        marked = True
        sync_directory(files.directory)
        ending = run.all_steps()
    except Stopped as stop:
        ending.stopped = str(stop)
    except (InvalidRecord, LaunchFailed) as error:
        ending.launch_error = str(error)
    except OSError as error:
        if error.errno in PASSING and not marked:
            raise
        ending.launch_error = f"The job could not be set up: {error.strerror}{_about(error)}."
    except Exception as error:
        if marked or isinstance(error, MemoryError):
            raise
        ending.launch_error = f"The job could not be set up: {error!r}."  # not tried for ever
    finally:
        if run is not None:
            run.close()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    record = ExitRecord(
        exit_code=ending.exit_code,
        exit_signal=ending.exit_signal,
        launch_error=ending.launch_error,
        stopped=ending.stopped,
        started_at=started_at,
        ended_at=started_at + (time.monotonic() - started_monotonic),
        cpu_s=round(used.ru_utime + used.ru_stime, 6),
        max_rss_bytes=used.ru_maxrss * 1024,
        read_bytes=ending.read_bytes,
        written_bytes=ending.written_bytes,
        log_bytes=log.size if log else 0,
        survivors=ending.survivors,
    )
    write_record(files, record_fd, record.dump())
    return 0


def _read(path: str) -> bytes:
    """A small file, whole. Plain system calls: a file object costs more than the reading."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = b""
        while chunk := os.read(fd, 65536):
            content += chunk
        return content
    finally:
        os.close(fd)


def _make_home(files: AttemptFiles) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(files.home)


def _about(error: OSError) -> str:
    return f" ({error.filename})" if error.filename else ""


# ---------------------------------------------------------------- the run


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


class _Run:
    """The attempt's commands, one after the other, under one deadline."""

    def __init__(self, spec: ShimSpec, log: LogSegments, *, warm: bool, title: ProcessTitle) -> None:
        self._spec = spec
        self._log = log
        self._warm = warm
        self._title = title
        self._stop: str | None = None
        self._force = False
        self._signalled = False
        self._pace = FloodPace()
        self._deadline = time.monotonic() + spec.timeout_s if spec.timeout_s is not None else None
        self._kill_at: float | None = None
        # The first process is forked before anything else is done: every page of memory that is
        # written before a fork is written again, at a price, by both sides after it.
        self._waiting: EngineProcess | None = EngineProcess(spec, warm=warm, title=title)
        self._wake = _listen_for_signals()
        # Anonymous memory costs nothing until it is used: most jobs write little.
        self._buffer = mmap.mmap(-1, _PIECE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)

    def make_places(self, files: AttemptFiles) -> None:
        """The job's home and working directory. Raises Stopped, OSError."""
        _make_home(files)
        working_directory.make(self._spec.work_dir, self._spec.source, self.raise_if_stopped)
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

    def _another_engine(self) -> EngineProcess:
        """Asked for again while the machine has no process to give: an attempt that has started waits."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        while True:
            self.raise_if_stopped()
            try:
                return EngineProcess(self._spec, warm=self._warm, title=self._title)
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
            ending = self._collect(engine.pid)
            self._end_leftovers(engine.output, ending)
            self._drain(engine.output)
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
            if output in ready and self._pump(output) is None:
                poll.unregister(output)
            if pidfd in ready:
                return
            self._read_signals()
            self._check_deadline()
            if self._stop and not self._signalled and _has_ended(pidfd):
                return  # it beat the signal: a poll whose time is up may not have told
            self._stop_descendants()
            if self._wake in ready:
                self._reap_orphans(engine.pid)

    def _collect(self, pid: int) -> Ending:
        """How the engine ended, and its I/O while the kernel still has the account."""
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        read_bytes, written_bytes = _io_of(pid)
        _, status = os.waitpid(pid, 0)
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
            signal_descendants(signal.SIGTERM)
            poll = select.poll()
            poll.register(self._wake, select.POLLIN)
            poll.register(output, select.POLLIN)
            while reap() and (left := deadline - time.monotonic()) > 0 and not self._force:
                ready = {fd for fd, _ in poll.poll(left * 1000)}
                if output in ready and self._pump(output) is None:
                    poll.unregister(output)
                self._read_signals()
        ending.survivors = kill_descendants(within_s=KILL_WITHIN_S)

    # -- signals and time

    def _timeout_ms(self) -> float | None:
        times = [at for at in (self._deadline if not self._stop else None, self._kill_at) if at is not None]
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

    def _stop_descendants(self) -> None:
        """SIGTERM once; SIGKILL, again and again, when the grace is over or the stop is forced."""
        if not self._stop:
            return
        now = time.monotonic()
        if not self._signalled:
            self._signalled = True
            self._kill_at = now + self._spec.stop_grace_s
            if not self._force:
                signal_descendants(signal.SIGTERM)
        if self._force or (self._kill_at is not None and now >= self._kill_at):
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

    # -- output

    def _pump(self, output: int) -> int | None:
        """Move some of what is in the pipe to the log: how many bytes, None at its end."""
        try:
            count = os.readv(output, [self._buffer])
        except BlockingIOError:
            return 0
        self._log.write(memoryview(self._buffer)[:count])
        pause_s = self._pace.pause_s(count, time.monotonic())
        if pause_s:
            time.sleep(pause_s)  # noqa: TID251 - milliseconds, to leave the processor to others
        return count or None

    def _drain(self, output: int) -> None:
        """What is left in the pipe, without waiting and no more than it can hold.

        A process that could not be killed may keep it open and go on writing.
        """
        left = 2 * PIPE_BYTES
        while left > 0 and (count := self._pump(output)):
            left -= count


def _has_ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def _io_of(pid: int) -> tuple[int, int]:
    """Bytes of storage read and written by the process and the children it waited for (proc_pid_io(5))."""
    try:
        fields = dict(line.split(b": ") for line in _read(f"/proc/{pid}/io").splitlines())
        return int(fields[b"read_bytes"]), int(fields[b"write_bytes"])
    except (OSError, ValueError, KeyError):
        return 0, 0

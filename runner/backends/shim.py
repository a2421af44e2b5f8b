"""The shim: one small process per attempt that owns the job. Standard library only.

It holds the attempt's lock, marks the start, runs the engine, writes its output to the log, keeps the
deadline and records how it ended. Neither the service nor the launcher is needed while it works.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import resource
import select
import signal
import time
from dataclasses import dataclass

from runner.attempt_files import AttemptFiles, ExitRecord, InvalidRecord, ShimSpec, try_lock
from runner.backends import engine_process
from runner.backends.log_segments import LogSegments
from runner.isolation.processes import (
    ProcessTitle,
    become_subreaper,
    kill_descendants,
    reap,
    signal_descendants,
)

NOT_OURS = 3  # exit code: the attempt belongs to another shim, or was started before
RECORD_BYTES = 4096
PIPE_BYTES = 2**20
LEFTOVER_GRACE_S = 2.0
"""What a job's forgotten background processes get between SIGTERM and SIGKILL once the engine has ended."""
KILL_WITHIN_S = 5.0

STOP = signal.SIGTERM
FORCE = signal.SIGUSR1


class Stopped(Exception):
    """The attempt was stopped before the engine was started."""


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
    lock = try_lock(files.lock)
    if lock is None or os.path.exists(files.exit) or not _mark_started(files):
        return NOT_OURS
    started_at, started_monotonic = time.time(), time.monotonic()
    record_fd = _reserve_record(files)
    wake = _listen_for_signals()
    ending = Ending()
    log: LogSegments | None = None
    try:
        spec = ShimSpec.load(_read(files.spec))
        log = LogSegments(files, spec.log_segment_bytes)
        run = _Run(spec, log, wake, warm=warm and spec.warm_entry is not None, title=title)
        _prepare_directory(spec, files, run)
        ending = run.all_steps()
    except Stopped as stop:
        ending.stopped = str(stop)
    except (InvalidRecord, engine_process.LaunchFailed) as error:
        ending.launch_error = str(error)
    except OSError as error:
        ending.launch_error = f"The job could not be set up: {error.strerror}{_about(error)}."
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
    _write_record(files, record_fd, record.dump())
    return 0


# ---------------------------------------------------------------- the attempt's files


def _mark_started(files: AttemptFiles) -> bool:
    """Claim the attempt for ever: false when it was started before. Durable before the engine runs."""
    try:
        fd = os.open(files.started, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return False
    os.write(fd, f"{os.getpid()}\n".encode())
    os.close(fd)
    _sync_directory(files.directory)
    return True


def _reserve_record(files: AttemptFiles) -> int:
    """The temporary exit record with its space allocated: a disk that fills up cannot lose the result."""
    fd = os.open(files.exit + ".tmp", os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with contextlib.suppress(OSError):  # not every file system can; writing is then tried all the same
        os.posix_fallocate(fd, 0, RECORD_BYTES)
    return fd


def _write_record(files: AttemptFiles, fd: int, content: bytes) -> None:
    """Durable and all at once: content, fsync, rename, fsync of the directory."""
    os.pwrite(fd, content, 0)
    os.ftruncate(fd, len(content))
    os.fsync(fd)
    os.rename(files.exit + ".tmp", files.exit)
    _sync_directory(files.directory)
    os.close(fd)


def _sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _about(error: OSError) -> str:
    return f" ({error.filename})" if error.filename else ""


def _prepare_directory(spec: ShimSpec, files: AttemptFiles, run: _Run) -> None:
    """The working directory, with the workflow's folder copied into it for the first attempt.

    Copied beside it and renamed, so that a copy cut short is not taken for whole.
    """
    with contextlib.suppress(FileExistsError):
        os.mkdir(files.home)
    if os.path.isdir(spec.work_dir):
        return
    fresh = spec.work_dir + ".new"
    if os.path.lexists(fresh):  # an earlier attempt was cut short
        import shutil  # noqa: PLC0415 - rare, and its imports would make every fork dearer

        shutil.rmtree(fresh)
    if spec.source is None:
        os.mkdir(fresh)
    else:
        _copy_tree(spec.source, fresh, run)
    os.rename(fresh, spec.work_dir)


def _copy_tree(source: str, target: str, run: _Run) -> None:
    """Copy a folder without `.git` and `.snakemake`; links stay links, modes stay.

    Raises Stopped when the attempt is stopped meanwhile.
    """
    run.raise_if_stopped()
    os.mkdir(target)
    with os.scandir(source) as entries:
        for entry in entries:
            place = os.path.join(target, entry.name)
            if entry.is_symlink():
                os.symlink(os.readlink(entry.path), place)
            elif entry.is_dir():
                if entry.name not in (".git", ".snakemake", "__pycache__"):
                    _copy_tree(entry.path, place, run)
            elif entry.is_file():
                _copy_file(entry.path, place)
                run.raise_if_stopped()


_FICLONE = 0x40049409


def _copy_file(source: str, target: str) -> None:
    """Share the blocks where the file system can (ioctl_ficlone(2)), else let the kernel copy."""
    fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        about = os.fstat(fd)
        out = os.open(
            target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, about.st_mode & 0o777 | 0o600
        )
        try:
            if about.st_size > 65536:
                try:
                    fcntl.ioctl(out, _FICLONE, fd)
                except OSError:
                    _copy_bytes(fd, out)
            else:
                _copy_bytes(fd, out)
            os.utime(out, ns=(about.st_atime_ns, about.st_mtime_ns))
        finally:
            os.close(out)
    finally:
        os.close(fd)


def _copy_bytes(source: int, target: int) -> None:
    try:
        while os.copy_file_range(source, target, 2**30):
            pass
        return
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    while chunk := os.read(source, 2**20):
        os.write(target, chunk)


# ---------------------------------------------------------------- the run


def _wake_up(_number: int, _frame: object) -> None:
    """The wake-up pipe has the news."""


def set_handlers() -> None:
    """Handle the shim's signals. Done once by the launcher: every fork of it inherits that.

    Stops are blocked until the fork listens: Python forgets what arrives while it forks.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, (STOP, FORCE))
    for number in (STOP, FORCE, signal.SIGCHLD):
        signal.signal(number, _wake_up)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _listen_for_signals() -> int:
    """From here on signals arrive as bytes on this pipe, one per signal."""
    wake, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (STOP, FORCE))
    return wake


class _Run:
    """The attempt's commands, one after the other, under one deadline."""

    def __init__(
        self, spec: ShimSpec, log: LogSegments, wake: int, *, warm: bool, title: ProcessTitle
    ) -> None:
        self._spec = spec
        self._log = log
        self._wake = wake
        self._warm = warm
        self._title = title
        self._stop: str | None = None
        self._force = False
        self._signalled = False
        # Anonymous memory costs nothing until it is used: most jobs write little.
        self._buffer = mmap.mmap(-1, PIPE_BYTES)
        self._engine_pid = 0
        self._deadline = time.monotonic() + spec.timeout_s if spec.timeout_s is not None else None
        self._kill_at: float | None = None

    def all_steps(self) -> Ending:
        for argv in self._spec.prepare:
            ending = self._step(argv)
            if ending.exit_code != 0:
                return ending
        return self._step(self._spec.argv)

    def raise_if_stopped(self) -> None:
        """Raises Stopped when a stop was asked for or the time is up; no engine runs yet."""
        self._read_signals()
        self._check_deadline()
        if self._stop:
            raise Stopped(self._stop)

    def _step(self, argv: list[str]) -> Ending:
        self.raise_if_stopped()
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(writer, True)
        with contextlib.suppress(OSError):  # the user's share of large pipes may be used up (pipe(7))
            fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        try:
            pid = engine_process.start(self._spec, argv, writer, warm=self._warm, title=self._title)
            self._engine_pid = pid
        finally:
            os.close(writer)
        engine = os.pidfd_open(pid)
        try:
            self._until_engine_ends(engine, reader)
            ending = self._collect(pid)
            self._end_leftovers(reader, ending)
            self._drain(reader)
        finally:
            os.close(engine)
            os.close(reader)
        return ending

    def _until_engine_ends(self, engine: int, output: int) -> None:
        poll = select.poll()
        for fd in (engine, output, self._wake):
            poll.register(fd, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll(self._timeout_ms())}
            if output in ready and not self._pump(output):
                poll.unregister(output)
            if engine in ready:
                return
            self._read_signals()
            self._check_deadline()
            self._stop_descendants()
            if not ready & {engine, output}:
                self._reap_orphans()

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
                if output in ready and not self._pump(output):
                    poll.unregister(output)
                self._read_signals()
        ending.survivors = kill_descendants(within_s=KILL_WITHIN_S)

    # -- signals and time

    def _timeout_ms(self) -> float | None:
        times = [at for at in (self._deadline if not self._stop else None, self._kill_at) if at is not None]
        return max(0.0, (min(times) - time.monotonic()) * 1000) + 1 if times else None

    def _read_signals(self) -> None:
        try:
            received = os.read(self._wake, 4096)
        except BlockingIOError:
            return
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

    def _reap_orphans(self) -> None:
        """Collect descendants that became ours; the engine itself is for `_collect`."""
        while True:
            waiting = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if waiting is None or waiting.si_pid == self._engine_pid:
                return
            os.waitpid(waiting.si_pid, 0)

    # -- output

    def _pump(self, output: int) -> bool:
        """Move what is in the pipe to the log; false at its end."""
        try:
            count = os.readv(output, [self._buffer])
        except BlockingIOError:
            return True
        self._log.write(memoryview(self._buffer)[:count])
        return count > 0

    def _drain(self, output: int) -> None:
        """What is left in the pipe, without waiting and no more than it can hold.

        A process that could not be killed may keep it open and go on writing.
        """
        left = 2 * PIPE_BYTES
        while left > 0:
            before = self._log.size
            if not self._pump(output) or self._log.size == before:
                return
            left -= self._log.size - before


def _io_of(pid: int) -> tuple[int, int]:
    """Bytes of storage read and written by the process and the children it waited for (proc_pid_io(5))."""
    try:
        with open(f"/proc/{pid}/io", "rb") as file:
            fields = dict(line.split(b": ") for line in file.read().splitlines())
        return int(fields[b"read_bytes"]), int(fields[b"write_bytes"])
    except (OSError, ValueError, KeyError):
        return 0, 0

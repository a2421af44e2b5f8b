"""The shim: one small process per attempt that owns the job. Standard library only.

It holds the attempt's lock, marks the start, runs the engine, writes its output to the log, keeps the
deadline and records how it ended. Neither the service nor the launcher is needed while it works.
"""

from __future__ import annotations

import contextlib
import os
import resource
import time
from typing import TYPE_CHECKING

from runner.attempt_files import AttemptFiles, ExitRecord, InvalidRecord, ShimSpec, try_lock
from runner.backends import job_folders, survivors
from runner.backends.attempt_marks import (
    mark_started,
    reserve_record,
    sync_directory,
    write_record,
)
from runner.backends.engine_process import LaunchFailed
from runner.backends.engine_run import KILL_WITHIN_S, Ending, EngineRun, Stopped, as_root
from runner.backends.log_segments import LogSegments
from runner.disk_trouble import PASSING
from runner.isolation.job_users import JobMembers
from runner.isolation.processes import become_subreaper, kill_descendants, reap

if TYPE_CHECKING:
    from runner.isolation.confinement import Confinement, Measures
    from runner.isolation.job_users import JobUser, JobUsers
    from runner.isolation.processes import ProcessTitle

NOT_OURS = 3
"""Exit code: the attempt belongs to another shim, or was started before."""


class GroupUnavailable(Exception):
    """The attempt's control group could not be made; nothing of it has run."""


def main(
    directory: str, *, warm: bool, title: ProcessTitle, measures: Measures, users: JobUsers | None = None
) -> int:
    """Run the attempt in `directory` to its end, held to `measures`; the shim's own exit code.

    Called in a fresh single-threaded process, forked from one that has called `set_handlers`. With `users`
    that process is root; it works as the service's user from here on, and the attempt gets a user of its own.
    """
    job_dir, attempts = os.path.split(os.path.dirname(directory))
    assert attempts == "attempts"
    files = AttemptFiles(job_dir, int(os.path.basename(directory)))
    title.set("snakeline-shim", f"snakeline: shim of job {os.path.basename(job_dir)}/{files.attempt}")
    become_subreaper()
    if users is not None:
        users.work_as_service()
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
    attempt = _Attempt(files, measures, users)
    if not attempt.run(warm=warm, title=title):
        return NOT_OURS
    write_record(files, record_fd, attempt.record().dump())
    if attempt.ending.survivors:
        survivors.outlive(files, lock, attempt.try_to_end)
    job_folders.empty_tmp(files)
    return 0


class _Attempt:
    """What happens between the attempt's lock and its record."""

    def __init__(self, files: AttemptFiles, measures: Measures, users: JobUsers | None) -> None:
        self.ending = Ending()
        self._files = files
        self._measures = measures
        self._users = users
        self._started_at, self._started_after_boot_s = time.time(), time.clock_gettime(time.CLOCK_BOOTTIME)
        self._log: LogSegments | None = None
        self._run: EngineRun | None = None
        self._confinement: Confinement | None = None
        self._user: JobUser | None = None

    def run(self, *, warm: bool, title: ProcessTitle) -> bool:
        """Run it and give back what it was lent; false when another shim has marked its start.

        Until the mark nothing of the job has run: what ails the machine alone is raised and ends this try,
        and another may be made. So everything that needs room, descriptors or a process comes before it.
        """
        marked = False
        try:
            run = self._prepare(warm=warm, title=title)
            if not mark_started(self._files):
                return False
            marked = True
            sync_directory(self._files.directory)
            self.ending = run.all_steps()
        except Stopped as stop:
            self.ending.stopped = str(stop)
        except GroupUnavailable:
            raise  # tried again, with what can be had then
        except (InvalidRecord, LaunchFailed) as error:
            self.ending.launch_error = str(error)
        except OSError as error:
            if error.errno in PASSING and not marked:
                raise
            self.ending.launch_error = f"The job could not be set up: {error.strerror}{_about(error)}."
        except Exception as error:
            if marked or isinstance(error, MemoryError):
                raise
            self.ending.launch_error = f"The job could not be set up: {error!r}."  # not tried for ever
        finally:
            self._give_back()
        return True

    def _prepare(self, *, warm: bool, title: ProcessTitle) -> EngineRun:
        files = self._files
        spec = ShimSpec.load(_read(files.spec))
        self._log = LogSegments(files, spec.log_segment_bytes)
        self._confinement = job_folders.confinement(files, spec, self._measures)
        self._user = self._users.take_user(files) if self._users is not None else None
        with as_root(self._user):
            _make_group(self._confinement)
        warm = warm and spec.warm_entry is not None and not self._confinement.namespace
        self._run = EngineRun(spec, self._confinement, self._user, self._log, warm=warm, title=title)
        self._run.make_places(files)
        return self._run

    def _give_back(self) -> None:
        """What it was lent: its control group and its user."""
        ending = self.ending
        if self._run is not None:
            self._run.close()
            ending.memory_peak_bytes = self._run.memory.peak_bytes
            ending.machine_oom_kills = self._run.memory.machine_oom_kills() if ending.exit_code != 0 else 0
        if self._confinement is not None and (group := self._confinement.group) is not None:
            with as_root(self._user):  # the group is root's, and closed to others
                ending.oom_kills = group.oom_kills()
                ending.memory_peak_bytes = max(ending.memory_peak_bytes, group.memory_peak_bytes())
        if not ending.survivors:
            ending.survivors = self.try_to_end(KILL_WITHIN_S)
        elif self._user is not None:
            self._user.hand_back(survivors=ending.survivors)

    def try_to_end(self, within_s: float) -> int:
        """Kill what is left of the job, and give back what it was lent if nothing is; how much is left."""
        group = self._confinement.group if self._confinement is not None else None
        with as_root(self._user):
            if reap() or (group is not None and not group.remove(within_s=0)):
                members = group if self._user is None else JobMembers(self._user, group)
                if left := kill_descendants(within_s=within_s, group=members):
                    return left
                if group is not None:
                    group.remove(within_s=within_s)
        if self._user is not None:
            self._user.hand_back(survivors=0)
        return 0

    def record(self) -> ExitRecord:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        lasted_s = time.clock_gettime(time.CLOCK_BOOTTIME) - self._started_after_boot_s
        ending = self.ending
        return ExitRecord(
            exit_code=ending.exit_code,
            exit_signal=ending.exit_signal,
            launch_error=ending.launch_error,
            stopped=ending.stopped,
            started_at=self._started_at,
            ended_at=self._started_at + lasted_s,
            cpu_s=round(used.ru_utime + used.ru_stime, 6),
            max_rss_bytes=used.ru_maxrss * 1024,
            read_bytes=ending.read_bytes,
            written_bytes=ending.written_bytes,
            log_bytes=self._log.size if self._log else 0,
            survivors=ending.survivors,
            oom_kills=ending.oom_kills,
            memory_peak_bytes=ending.memory_peak_bytes,
            machine_oom_kills=ending.machine_oom_kills,
        )


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


def _make_group(confinement: Confinement) -> None:
    try:
        confinement.make_group()
    except OSError as error:
        raise GroupUnavailable(f"no control group could be made: {error.strerror}") from error


def _about(error: OSError) -> str:
    return f" ({error.filename})" if error.filename else ""

"""What jobs, disks and deaths do to the runner, and what it makes of it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from runner.jobs import JobSpec, JobStatus, Reason
from runner.ports import Ended, Lost
from tests.support.attempts import Attempts
from tests.support.runners import Hold, RunningRunner, settings_for
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runner.jobs import Job


@pytest.fixture(params=["warm", "cold"])
def attempts(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Attempts]:
    with contextlib.closing(Attempts(tmp_path, warm=request.param == "warm")) as attempts:
        yield attempts


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[RunningRunner]:
    with contextlib.closing(RunningRunner(settings_for(tmp_path / "data"))) as runner:
        yield runner


@pytest.fixture
def hold(tmp_path: Path) -> Hold:
    return Hold(tmp_path)


def shim_of(job: Job) -> psutil.Process:
    def found() -> psutil.Process | None:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if f"shim of job {job.id}/" in " ".join(process.cmdline()):
                    return process
        return None

    process = wait_until(found, what="the shim's process")
    assert process is not None
    return process


def the_launcher() -> psutil.Process:
    def found() -> psutil.Process | None:
        return next((c for c in psutil.Process().children() if c.name() == "snakeline-lnch"), None)

    process = wait_until(found, what="the launcher's process")
    assert process is not None
    return process


# ---------------------------------------------------------------- jobs against their shim


def test_a_job_that_kills_its_own_shim_is_lost_and_gone(attempts: Attempts) -> None:
    handle = attempts.launch_argv(("/bin/sh", "-c", "kill -9 $PPID; sleep 60"))
    assert isinstance(attempts.end(handle), Lost)
    work = attempts.files(handle).work

    def left() -> list[int]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.cwd() == work and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process.pid)
        return found

    wait_until(lambda: not left(), what="its processes are gone")


def test_a_job_that_terminates_its_own_shim_is_no_cancel(runner: RunningRunner, hold: Hold) -> None:
    job = runner.submit(hold=hold.path)
    wait_until(lambda: runner.log(job), what="its first output")
    shim_of(job).terminate()
    ended = runner.ended(job)
    assert (ended.status, ended.reason) == (JobStatus.FAILED, Reason.EXITED_NONZERO)
    assert ended.cancel_requested_at is None


def test_a_stopped_shim_can_still_be_cancelled(attempts: Attempts) -> None:
    handle = attempts.launch("out=ready", "sleep=60")
    shim = psutil.Process(attempts.until_running(handle))
    attempts.until_log(handle, b"ready")
    shim.suspend()
    attempts.backend.stop(handle, force=False)
    ended = attempts.end(handle)
    assert isinstance(ended, Ended)
    assert ended.record.stopped == "cancel"


def test_a_hundred_children_are_ended_with_their_job(attempts: Attempts) -> None:
    script = "for i in $(seq 100); do sleep 300 & done; echo ready; wait"
    handle = attempts.launch_argv(("/bin/sh", "-c", script))
    attempts.until_running(handle)
    attempts.until_log(handle, b"ready")
    attempts.backend.stop(handle, force=False)
    ended = attempts.end(handle)
    assert isinstance(ended, Ended)
    assert ended.record.survivors == 0


def test_a_workflow_folder_that_cannot_be_copied_is_a_launch_error_that_names_the_file(
    attempts: Attempts,
) -> None:
    (attempts.source / "reference").symlink_to("/nonexistent")  # a dangling link is copied as it is
    os.mkfifo(attempts.source / "fifo")  # neither file nor folder: left out
    (attempts.source / "kept.txt").write_text("x")
    handle = attempts.launch_argv(("/bin/ls", "-A"))
    assert isinstance(attempts.end(handle), Ended)
    assert attempts.log(handle) == b"kept.txt\nreference\n"
    attempts.source.rename(attempts.source.with_name("moved"))
    gone = attempts.launch_argv(("/bin/ls",), job_id="gone")
    ended = attempts.end(gone)
    assert isinstance(ended, Ended)
    assert ended.record.launch_error is not None
    assert "No such file or directory" in ended.record.launch_error
    assert str(attempts.source) in ended.record.launch_error


# ---------------------------------------------------------------- nothing leaks


def test_jobs_leave_no_descriptor_no_zombie_and_no_thread_behind(runner: RunningRunner) -> None:
    def run(count: int) -> None:
        for job in [runner.submit() for _ in range(count)]:
            runner.ended(job)

    me = psutil.Process()
    run(20)
    threads, descriptors = threading.active_count(), me.num_fds()
    run(60)
    launcher = the_launcher()
    wait_until(lambda: not launcher.children(), what="the launcher has no children left")
    # The store may open a few more readers meanwhile; a leak would be one for each job.
    assert me.num_fds() < descriptors + 30
    assert threading.active_count() <= threads
    assert launcher.num_fds() <= 8


def test_a_service_with_held_jobs_is_idle(runner: RunningRunner, tmp_path: Path) -> None:
    holds = [Hold(tmp_path, f"hold-{i}") for i in range(4)]
    jobs = [runner.submit(hold=hold.path) for hold in holds]
    for job in jobs:
        runner.wait_for(job, lambda j: j.progress is not None)
    # A busy loop would take all of the time; the sampler's looks take milliseconds.
    supervisor = next(t for t in threading.enumerate() if t.name == "supervisor")
    assert supervisor.native_id is not None
    began, cpu = time.monotonic(), _cpu_of_thread(supervisor.native_id)
    wait_until(lambda: time.monotonic() - began > 1.5, what="a second and a half")
    assert _cpu_of_thread(supervisor.native_id) - cpu < 0.3
    for hold, job in zip(holds, jobs, strict=True):
        hold.release()
        runner.ended(job)


def _cpu_of_thread(number: int) -> float:
    with open(f"/proc/self/task/{number}/stat", "rb") as stat:
        fields = stat.read().rsplit(b") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# ---------------------------------------------------------------- disks and restarts


def test_a_log_being_followed_may_be_deleted(runner: RunningRunner) -> None:
    job = runner.ended(runner.submit())
    _, _, log = runner.service.log(job.id)
    assert log.size() > 0
    runner.service.delete(job.id)
    size, data = log.read(0, 1000)
    assert data == b""
    assert size == 0


def test_fifty_running_jobs_are_found_again_at_once(tmp_path: Path) -> None:
    holds = [Hold(tmp_path, f"hold-{i}") for i in range(50)]
    runner = RunningRunner(settings_for(tmp_path / "data", max_cores=50))
    try:
        jobs = [runner.submit(hold=hold.path, exit_code=i) for i, hold in enumerate(holds)]
        for job in jobs:
            runner.wait_for(job, JobStatus.RUNNING)
        runner.restart()
        for hold in holds:
            hold.release()
        ended = [runner.ended(job) for job in jobs]
    finally:
        runner.close()
    assert [job.exit_code for job in ended] == list(range(50))
    assert {job.attempt for job in ended} == {1}


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts a small file system")
def test_a_full_disk_costs_log_and_files_but_not_the_result(tmp_path: Path) -> None:
    data = tmp_path / "small"
    data.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(data)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        with contextlib.closing(Attempts(data, warm=True, log_limit_bytes=2**26)) as attempts:
            flood = attempts.launch("bytes=8000000", "exit=42")
            ended = attempts.end(flood)
            assert isinstance(ended, Ended)
            assert ended.record.exit_code == 42
            assert ended.record.log_bytes < 4 * 2**20
    finally:
        subprocess.run(["umount", "-l", str(data)], check=True)


def test_a_signal_to_the_launcher_disturbs_nobody(runner: RunningRunner) -> None:
    launcher = the_launcher()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        launcher.send_signal(number)
    assert runner.ended(runner.submit(JobSpec())).status is JobStatus.COMPLETED
    assert launcher.is_running()

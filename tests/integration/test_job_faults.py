"""What jobs, disks and deaths do to the runner, and what it makes of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

import psutil
import pytest

import runner as runner_package
from runner.backends.local import LocalBackend
from runner.jobs import JobSpec, JobStatus, Reason
from runner.ports import Ended, Handle, Lost, NotStarted, WarmSpec
from tests.support.attempts import Attempts
from tests.support.runners import WORKFLOWS, Hold, RunningRunner, settings_for
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runner.jobs import Job


@pytest.fixture(params=["warm", "cold"])
def attempts(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Attempts]:
    with contextlib.closing(Attempts(tmp_path, warm=request.param == "warm")) as attempts:
        yield attempts


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
    attempts.backend.stop(handle, why="cancel")
    ended = attempts.end(handle)
    assert isinstance(ended, Ended)
    assert ended.record.stopped == "cancel"


def test_a_hundred_children_are_ended_with_their_job(attempts: Attempts) -> None:
    script = "for i in $(seq 100); do sleep 300 & done; echo ready; wait"
    handle = attempts.launch_argv(("/bin/sh", "-c", script))
    attempts.until_running(handle)
    attempts.until_log(handle, b"ready")
    attempts.backend.stop(handle, why="cancel")
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


def test_an_exit_that_beat_its_deadline_is_no_timeout_however_late_the_shim_looks(
    attempts: Attempts,
) -> None:
    handle = attempts.launch_argv(("/bin/sh", "-c", "sleep 0.1; kill -STOP $PPID"), timeout_s=0.5)
    shim = psutil.Process(attempts.until_running(handle))
    wait_until(lambda: shim.status() == psutil.STATUS_STOPPED, what="the shim is stopped")
    late = time.monotonic() + 0.6
    wait_until(lambda: time.monotonic() > late, what="the deadline has passed")
    shim.resume()
    ended = attempts.end(handle)
    assert isinstance(ended, Ended)
    assert (ended.record.exit_code, ended.record.stopped) == (0, None)


def test_a_stop_reaches_the_shim_that_runs_the_attempt_and_not_the_one_that_came_second(
    attempts: Attempts,
) -> None:
    handle = attempts.launch("out=ready", "sleep=60")
    attempts.until_running(handle)
    attempts.until_log(handle, b"ready")
    attempts.reopen()  # nothing is known of the first shim
    attempts.launch("sleep=60")
    attempts.backend.stop(handle, why="cancel")
    ended = attempts.end(handle)
    assert isinstance(ended, Ended)
    assert ended.record.stopped == "cancel"


def test_a_job_that_removes_its_attempt_is_lost_and_not_started_again(
    attempts: Attempts, tmp_path: Path
) -> None:
    script = f"echo x >> {tmp_path}/count; rm -rf ../attempts; exit 7"
    assert isinstance(attempts.end(attempts.launch_argv(("/bin/sh", "-c", script))), Lost)
    assert (tmp_path / "count").read_text() == "x\n"


@pytest.mark.parametrize("attempt", [1, 2])
def test_a_job_that_removes_its_attempts_is_not_started_again_by_the_next_service(
    attempts: Attempts, attempt: int
) -> None:
    for earlier in range(1, attempt):
        assert isinstance(attempts.end(attempts.launch("exit=1", attempt=earlier)), Ended)
    handle = attempts.launch("remove=../attempts", "sleep=60", attempt=attempt)
    shim = psutil.Process(attempts.until_running(handle))
    every_attempt = os.path.dirname(attempts.files(handle).directory)
    wait_until(lambda: not os.path.exists(every_attempt), what="its files are gone")
    attempts.reopen()
    job = shim.children()
    assert isinstance(attempts.observe(handle), Lost)
    wait_until(lambda: all(is_dead(process) for process in (shim, *job)), what="shim and job are dead")
    assert attempts.observe(attempts_never_written(attempts)) == NotStarted()


def is_dead(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def attempts_never_written(attempts: Attempts) -> Handle:
    """The next attempt of a job whose earlier one is there, claimed and not launched before a kill."""
    handle = attempts.launch("exit=1", job_id="other")
    attempts.end(handle)
    return Handle(handle.job_id, 2)


@pytest.mark.parametrize("spoilt_file", ["exit.json", "crash.txt", "lock"])
@pytest.mark.parametrize("moment", ["running", "restarting"])
def test_spoilt_files_cost_their_job_and_nothing_else(tmp_path: Path, spoilt_file: str, moment: str) -> None:
    holds = [Hold(tmp_path, f"hold-{i}") for i in range(2)]
    runner = RunningRunner(settings_for(tmp_path / "data"))
    spoilt, other = (runner.submit(hold=hold.path) for hold in holds)
    for job in (spoilt, other):
        runner.wait_for(job, lambda j: j.progress is not None)
    shim = shim_of(spoilt)
    if moment == "restarting":
        runner.close()
    path = runner.job_dir(spoilt) / "attempts" / "1" / spoilt_file
    path.unlink(missing_ok=True)
    if spoilt_file == "lock":
        path.mkdir()
    else:  # nested deeper than a parser goes, or cut short by a full disk
        path.write_bytes(b"[" * 60_000 if spoilt_file == "exit.json" else b"")
    shim.kill()
    if moment == "restarting":
        shim.wait(10)
        runner = RunningRunner(runner.settings)
    with contextlib.closing(runner):
        ended = runner.ended(spoilt)
        assert (ended.status, ended.reason, ended.exit_code) == (JobStatus.FAILED, Reason.LOST, None)
        holds[1].release()
        assert runner.ended(other).status is JobStatus.COMPLETED


# ---------------------------------------------------------------- launchers that are no use


def _with_engine(attempts: Attempts, tmp_path: Path, preload: str) -> None:
    """Give `attempts` a launcher that imports an engine of this text first."""
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "module.py").write_text(f"import os, time\ndef preload():\n    {preload}\n")
    attempts.backend.close()
    packages = {"runner": next(iter(runner_package.__path__)), "engine": str(tmp_path / "engine")}
    spec = WarmSpec(sys.executable, isolated=True, packages=packages, preload="engine.module:preload")
    attempts.backend = LocalBackend(
        data_dir=str(attempts.data_dir),
        python=sys.executable,
        warm=lambda: spec,
        log_limit_bytes=2**20,
        stop_grace_s=0.5,
        open_files=256,
    )
    attempts.backend.start()


def test_a_job_can_be_cancelled_while_the_engine_is_still_being_imported(
    attempts: Attempts, tmp_path: Path
) -> None:
    held = Hold(tmp_path, "import")
    _with_engine(attempts, tmp_path, f"open({held.path!r}).read()")
    handle = attempts.launch("exit=0")
    attempts.backend.stop(handle, why="cancel")
    ended = attempts.end(handle)
    assert isinstance(ended, Ended)
    assert (ended.record.exit_code, ended.record.stopped) == (None, "cancel")
    held.release()
    assert isinstance(attempts.end(attempts.launch("exit=0", job_id="next")), Ended)


def test_an_engine_that_cannot_be_imported_is_executed_instead(attempts: Attempts, tmp_path: Path) -> None:
    _with_engine(attempts, tmp_path, "os._exit(3)")
    ended = attempts.end(attempts.launch("exit=5"))
    assert isinstance(ended, Ended)
    assert ended.record.exit_code == 5


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


# ---------------------------------------------------------------- restarts and files


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


def test_the_data_may_be_inside_the_workflows_own_folder(tmp_path: Path) -> None:
    folder = tmp_path / "flows" / "mine"
    shutil.copytree(WORKFLOWS / "demo", folder)
    settings = settings_for(folder / ".snakeline", workflows_dir=folder.parent)
    with contextlib.closing(RunningRunner(settings)) as runner:
        job = runner.ended(runner.submit(JobSpec(workflow="mine")))
        assert job.status is JobStatus.COMPLETED
        assert not (runner.work_dir(job) / ".snakeline" / "jobs").exists()


def test_a_signal_to_the_launcher_disturbs_nobody(runner: RunningRunner) -> None:
    launcher = the_launcher()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        launcher.send_signal(number)
    assert runner.ended(runner.submit(JobSpec())).status is JobStatus.COMPLETED
    assert launcher.is_running()

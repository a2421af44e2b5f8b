"""What real jobs use of the machine is seen while they run, kept over a restart, and goes with them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil

from runner import sampler
from runner.attempt_files import AttemptFiles
from runner.jobs import JobSpec, JobStatus
from runner.ports import Handle
from runner.process_table import ProcessTable, started_after_boot_s
from runner.usage_samples import SIZE, UsageSample, add_sample
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from runner.jobs import Job
    from runner.samples import Sample
    from runner.usage_history import UsageHistory
    from tests.support.runners import Hold, RunningRunner

_MEMORY = 48 << 20
_FAMILY = f"""
import os, sys, time
taken = b"x" * {_MEMORY}
pid = os.fork()
if pid == 0 or "burn" in sys.argv:
    while time.process_time() < 0.25: pass
    os._exit(0)
os.waitpid(pid, 0)  # its account is ours now
if os.fork() == 0:
    os.setsid()
    os.read(0, 1)
    os._exit(0)
dead = os.fork()
if dead == 0:
    os._exit(0)
os.waitid(os.P_PID, dead, os.WEXITED | os.WNOWAIT)  # a zombie until we end
print("ready", flush=True)
os.read(0, 1)
"""


def history(runner: RunningRunner, job: Job) -> UsageHistory:
    return runner.service.runs.usage(job.id)


def test_a_tree_is_summed_up_with_those_that_have_ended_and_those_that_went_their_own_way() -> None:
    """Below a shell, as the engine is below its shim."""
    shell = subprocess.Popen(
        ["/bin/sh", "-c", '"$@" burn; "$@"; exit', "sh", sys.executable, "-I", "-S", "-c", _FAMILY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert shell.stdout is not None
        assert shell.stdout.readline() == b"ready\n"
        found = ProcessTable.now().tree_below(shell.pid)
        assert found is not None
        (top,) = psutil.Process(shell.pid).children()
        tree = [top, *top.children()]
        alive = [each for each in tree if each.status() != psutil.STATUS_ZOMBIE]
        assert (len(tree), len(alive), found.processes) == (3, 2, 2)
        rss_bytes = sum(each.memory_info().rss for each in alive)
        assert found.rss_bytes > _MEMORY
        assert abs(found.rss_bytes - rss_bytes) < 4 << 20
        assert 0.45 <= found.cpu_s < 5  # one was waited for by the shell, one below it
        started_s = started_after_boot_s(shell.pid)
        assert started_s is not None
        assert 0.2 <= time.clock_gettime(time.CLOCK_BOOTTIME) - started_s < 120
    finally:
        shell.communicate(b"gg")
    assert ProcessTable.now().tree_below(shell.pid) is None


def test_a_jobs_points_go_on_after_a_restart_and_end_with_the_job(runner: RunningRunner, hold: Hold) -> None:
    job = runner.submit(JobSpec(cores=2, memory_mb=900), hold=hold.path)
    wait_until(lambda: history(runner, job).points, what="a first point")
    before = history(runner, job)
    assert before.points[0].rss_bytes is not None
    assert before.points[0].rss_bytes > 2**20
    assert before.points[0].processes
    assert (before.cores, before.memory_bytes, before.ended_at) == (2, 900 << 20, None)
    runner.restart()
    wait_until(
        lambda: len(history(runner, job).points) > len(before.points), what="a point after the restart"
    )
    after = history(runner, job)
    assert after.points[: len(before.points)] == before.points
    times = [point.elapsed_s for point in after.points]
    assert times == sorted(times)
    # By the kernel's own account of when the attempt began, whoever watches it.
    assert times[-1] - times[0] >= 1.5
    hold.release()
    job = runner.ended(job)
    assert job.status is JobStatus.COMPLETED
    ended = history(runner, job)
    assert ended.usage == job.usage
    assert job.started_at is not None
    assert job.completed_at is not None
    lasted_s = (job.completed_at - job.started_at).total_seconds()
    assert abs(ended.points[-1].elapsed_s - lasted_s) < 0.01
    size = os.stat(AttemptFiles.of(runner.settings.data_dir, job.id, 1).usage).st_size
    assert size == (1 + len(times)) * SIZE
    runner.service.delete(job.id)
    wait_until(lambda: not runner.job_dir(job).exists(), what="its files to be gone")


def test_a_job_whose_file_cannot_be_kept_runs_on(runner: RunningRunner, hold: Hold) -> None:
    job = runner.submit(hold=hold.path)
    runner.wait_for(job, lambda j: j.progress is not None)
    usage = AttemptFiles.of(runner.settings.data_dir, job.id, 1).usage
    os.symlink("/dev/full", usage + ".link")
    os.rename(usage + ".link", usage)  # also over one that there is
    job = runner.wait_for(job, lambda j: j.usage is not None)
    assert history(runner, job).points == ()
    hold.release()
    job = runner.ended(job)
    assert job.status is JobStatus.COMPLETED
    assert len(history(runner, job).points) == 1


def test_whatever_one_job_does_the_others_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(files: AttemptFiles, *_: object, **__: object) -> float:
        if files.job_dir.endswith("bad"):
            raise ValueError("it has put something there")
        return 0.0

    monkeypatch.setattr(sampler, "add_sample", failing)
    monkeypatch.setattr(sampler, "_EARLIEST_S", 0.0)
    told: list[Sample] = []
    watching = sampler.Sampler(tmp_path, told.extend)
    child = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE)
    try:
        for job_id in ("bad", "good"):
            watching.add(Handle(job_id, 1), os.getpid)
        watching._look(watching._watched)
    finally:
        child.communicate()
    assert [each.handle.job_id for each in told] == ["good"]


def test_the_most_memory_that_an_earlier_service_saw_still_counts(runner: RunningRunner, hold: Hold) -> None:
    job = runner.submit(hold=hold.path)
    runner.wait_for(job, lambda j: j.progress is not None)
    files = AttemptFiles.of(runner.settings.data_dir, job.id, 1)
    add_sample(files, UsageSample(1e6, 0.0, 7 << 30, 1, 0, 0), started_at=0.0)
    runner.restart()
    runner.wait_for(job, lambda j: j.usage is not None and j.usage.max_rss_bytes == 7 << 30)
    hold.release()
    job = runner.ended(job)
    assert job.usage is not None
    assert job.usage.max_rss_bytes == 7 << 30

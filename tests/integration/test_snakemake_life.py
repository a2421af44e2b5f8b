"""Real Snakemake through the real runner: results, errors, cancel, resume; warm and cold."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from runner.jobs import JobSpec, JobStatus, Reason
from tests.support.engines import NEEDS_SNAKEMAKE, snakemake_command
from tests.support.runners import Hold, RunningRunner, settings_for
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

SNAKEMAKE = snakemake_command()
pytestmark = NEEDS_SNAKEMAKE

# `count` leaves a line per run, so that a rule that ran twice is seen; `gate` waits for a FIFO.
SNAKEFILE = """
rule all:
    input: "second.txt"

rule first:
    output: "first.txt"
    shell: "echo first >> starts.txt; echo 1 > {output}"

rule second:
    input: "first.txt"
    output: "second.txt"
    params: gate=config["gate"]
    shell: "echo second >> starts.txt; echo half > {output}; cat {params.gate:q}; echo 2 > {output}"
"""


@pytest.fixture(
    params=[pytest.param(True, id="warm"), pytest.param(False, id="cold", marks=pytest.mark.soak)]
)
def runner(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningRunner]:
    gated = tmp_path / "workflows" / "gated"
    gated.mkdir(parents=True)
    (gated / "Snakefile").write_text(SNAKEFILE)
    settings = settings_for(
        tmp_path / "data",
        engine="snakemake",
        snakemake=SNAKEMAKE or "",
        workflows_dir=tmp_path / "workflows",
        warm_start=request.param,
        stop_grace_s=5.0,
    )
    with contextlib.closing(RunningRunner(settings)) as runner:
        yield runner


def starts(runner: RunningRunner, job_id: str) -> list[str]:
    path = runner.settings.data_dir / "jobs" / job_id / "work" / "starts.txt"
    return path.read_text().split() if path.exists() else []


def test_a_cancelled_run_leaves_nothing_running_and_a_retry_runs_only_what_is_missing(
    runner: RunningRunner, hold: Hold
) -> None:
    job = runner.submit(JobSpec(workflow="gated", parameters={"gate": hold.path}))
    wait_until(
        lambda: starts(runner, job.id) == ["first", "second"], timeout_s=60, what="the second rule runs"
    )
    running = runner.wait_for(
        job, lambda j: j.progress is not None and (j.progress.done, j.progress.running) == (1, 1)
    )
    assert running.progress is not None
    assert running.progress.total == 3
    runner.service.cancel(job.id)
    cancelled = runner.ended(job)
    assert (cancelled.status, cancelled.reason) == (JobStatus.CANCELLED, Reason.CANCEL_REQUESTED)
    work = runner.work_dir(job)
    left = [p for p in psutil.process_iter() if _cwd(p).startswith(str(work))]
    assert left == []

    runner.service.retry(job.id)
    wait_until(lambda: len(starts(runner, job.id)) == 3, timeout_s=60, what="the second rule runs again")
    hold.release()
    again = runner.ended(job, timeout_s=60)
    assert (again.status, again.attempt) == (JobStatus.COMPLETED, 2)
    assert starts(runner, job.id) == ["first", "second", "second"]
    assert (work / "second.txt").read_text() == "2\n"


def test_a_run_whose_supervision_was_killed_is_lost_and_a_retry_resumes_it(
    runner: RunningRunner, hold: Hold
) -> None:
    job = runner.submit(JobSpec(workflow="gated", parameters={"gate": hold.path}))
    wait_until(
        lambda: starts(runner, job.id) == ["first", "second"], timeout_s=60, what="the second rule runs"
    )
    shim = next(p for p in psutil.process_iter() if f"shim of job {job.id}/" in " ".join(_cmdline(p)))
    shim.kill()
    lost = runner.ended(job)
    assert (lost.status, lost.reason) == (JobStatus.FAILED, Reason.LOST)
    assert (lost.exit_code, lost.exit_signal) == (None, None)
    work = runner.work_dir(job)
    wait_until(
        lambda: not [p for p in psutil.process_iter() if _cwd(p).startswith(str(work))],
        what="its processes are gone",
    )
    assert os.listdir(work / ".snakemake" / "locks")

    runner.service.retry(job.id)
    wait_until(lambda: len(starts(runner, job.id)) == 3, timeout_s=60, what="the second rule runs again")
    hold.release()
    again = runner.ended(job, timeout_s=60)
    assert (again.status, again.attempt) == (JobStatus.COMPLETED, 2)
    assert starts(runner, job.id) == ["first", "second", "second"]
    assert (work / "second.txt").read_text() == "2\n"


def _cwd(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        if process.status() != psutil.STATUS_ZOMBIE:
            return str(process.cwd())
    return ""


def _cmdline(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return list(process.cmdline())
    return []


def test_the_bundled_workflows_run_and_say_what_failed(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "data", engine="snakemake", snakemake=SNAKEMAKE or "")
    with contextlib.closing(RunningRunner(settings)) as runner:
        jobs = {name: runner.submit(JobSpec(workflow=name)) for name in ("demo", "wordcount", "failing")}
        ended = {name: runner.ended(job, timeout_s=60) for name, job in jobs.items()}
        assert ended["demo"].status is ended["wordcount"].status is JobStatus.COMPLETED
        table = (runner.work_dir(jobs["wordcount"]) / "results" / "words.tsv").read_text()
        assert len(table.splitlines()) > 5
        failed = ended["failing"]
        assert (failed.status, failed.exit_code) == (JobStatus.FAILED, 1)
        assert failed.error_message is not None
        assert "At least one job did not complete" not in failed.error_message
        assert failed.progress is not None
        assert failed.progress.failed == 1


def test_an_engine_installed_later_is_used_without_a_restart(tmp_path: Path) -> None:
    program = tmp_path / "snakemake"
    settings = settings_for(tmp_path / "data", engine="snakemake", snakemake=str(program))
    with contextlib.closing(RunningRunner(settings)) as runner:
        job = runner.ended(runner.submit())
        assert job.reason is Reason.LAUNCH_FAILED
        program.symlink_to(SNAKEMAKE or "")
        again = runner.ended(runner.service.retry(job.id), timeout_s=60)
        assert again.status is JobStatus.COMPLETED
        assert runner.service.readiness().ready


def test_a_new_version_of_the_engine_on_disk_gets_a_new_launcher(tmp_path: Path) -> None:
    program = tmp_path / "snakemake"
    content = Path(SNAKEMAKE or "").read_text()
    program.write_text(content)
    program.chmod(0o755)
    settings = settings_for(tmp_path / "data", engine="snakemake", snakemake=str(program))
    with contextlib.closing(RunningRunner(settings)) as runner:
        assert runner.ended(runner.submit(), timeout_s=60).status is JobStatus.COMPLETED
        before = _launchers()
        program.unlink()
        program.write_text(content)
        program.chmod(0o755)
        assert runner.ended(runner.submit(), timeout_s=60).status is JobStatus.COMPLETED
        after = _launchers()
        assert len(before) == len(after) == 1
        assert before != after


def _launchers() -> set[int]:
    return {child.pid for child in psutil.Process().children() if child.name() == "snakeline-lnch"}

"""The container is replaced: every process dies at once, the data directory stays."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import job_processes
from tests.support.engines import snakemake_command
from tests.support.planned_jobs import Plan, Starts, make_workflows
from tests.support.service_under_fire import ServiceUnderFire
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SNAKEMAKE = snakemake_command()

# Each rule leaves a line per run, so that one that ran twice is seen; `gate` waits for a FIFO.
SNAKEFILE = """
rule all:
    input: "third.txt"

rule first:
    output: "first.txt"
    shell: "echo first >> starts.txt; echo 1 > {output}"

rule second:
    input: "first.txt"
    output: "second.txt"
    shell: "echo second >> starts.txt; echo 2 > {output}"

rule third:
    input: "second.txt"
    output: "third.txt"
    params: gate=config["gate"]
    shell: "echo third >> starts.txt; echo half > {output}; cat {params.gate:q}; echo 3 > {output}"
"""


def replace_container(service: ServiceUnderFire, job_ids: Sequence[str]) -> None:
    """SIGKILL the service, the launcher, the shims and the jobs before any of them can tell another."""
    launcher = service.launcher_pid()
    job_processes.kill_family([service.process.pid, *([launcher] if launcher else [])], job_ids)
    service.until_killed()
    wait_until(lambda: not job_processes.by_job().keys() & set(job_ids), what="nothing to be left")


def release(hold: Path) -> None:
    def opened() -> bool:
        try:
            os.close(os.open(hold, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:  # nobody reads yet
            return False
        return True

    wait_until(opened, timeout_s=30, what=f"a reader of {hold}")


def test_running_jobs_are_lost_and_resume_where_they_may_and_the_others_are_as_they_were(
    tmp_path: Path,
) -> None:
    settings = {"MAX_CORES": "3", "STOP_GRACE_S": "1", "WORKFLOWS_DIR": str(make_workflows(tmp_path))}
    starts = Starts(tmp_path / "starts")
    holds = {name: tmp_path / name for name in ("plain", "counted", "resuming")}
    for hold in holds.values():
        os.mkfifo(hold)

    def plan(name: str | None = None, **more: Any) -> Plan:
        hold = holds[name] if name else None
        return Plan(exit_code=0, output_bytes=64, count=starts.path, hold=hold, **more)

    plans = {
        "done": plan(),
        "plain": plan("plain", children=2),
        "counted": plan("counted", max_retries=1),
        "resuming": plan("resuming", children=2, max_retries=1, retry_lost=True),
    }
    with ServiceUnderFire(tmp_path, settings) as service:
        service.start().until_up()
        jobs = {name: service.submit(plan.body).json()["id"] for name, plan in plans.items()}
        wait_until(lambda: len(starts.counted()) == 4, timeout_s=20, what="every job to have started")
        wait_until(lambda: service.job(jobs["done"])["status"] == "completed", what="the quick one to end")
        waiting = service.submit(plan().body).json()["id"]
        done = service.job(jobs["done"])
        work = service.data_dir / "jobs" / jobs["resuming"] / "work"
        (work / "result-so-far").write_text("kept")

        replace_container(service, [*jobs.values(), waiting])
        service.start().until_up()

        def has_ended(job_id: str) -> dict[str, Any]:
            job = service.job(job_id)
            return job if job["status"] in ("completed", "failed") else {}

        for name in ("plain", "counted"):
            lost = wait_until(partial(has_ended, jobs[name]), what="a lost job to be known as lost")
            assert (lost["status"], lost["reason"], lost["attempt"]) == ("failed", "lost", 1)
            assert (lost["exit_code"], lost["exit_signal"]) == (None, None)
        wait_until(lambda: starts.counted()[jobs["resuming"], 2], timeout_s=20, what="the second attempt")
        assert (work / "result-so-far").read_text() == "kept"
        release(holds["resuming"])
        resumed = wait_until(lambda: has_ended(jobs["resuming"]), timeout_s=20, what="its end")
        assert (resumed["status"], resumed["exit_code"], resumed["attempt"]) == ("completed", 0, 2)
        assert plans["resuming"].log_is_exact(service.log_of(jobs["resuming"], 2))
        assert plans["resuming"].log_is_cut(service.log_of(jobs["resuming"], 1))
        assert wait_until(lambda: has_ended(waiting), timeout_s=20, what="the queued one")["exit_code"] == 0
        assert service.job(jobs["done"]) == done
        assert set(starts.counted().values()) == {1}
        assert service.stop() == 0


@pytest.mark.snakemake
@pytest.mark.skipif(SNAKEMAKE is None, reason="real Snakemake is not installed: make snakemake-env")
def test_real_snakemake_goes_on_from_the_finished_rules(tmp_path: Path) -> None:
    folder = tmp_path / "workflows" / "gated"
    folder.mkdir(parents=True)
    (folder / "Snakefile").write_text(SNAKEFILE)
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    settings = {
        "ENGINE": "snakemake",
        "SNAKEMAKE": SNAKEMAKE or "",
        "WORKFLOWS_DIR": str(folder.parent),
        "STOP_GRACE_S": "1",
    }
    with ServiceUnderFire(tmp_path, settings) as service:
        service.start().until_up()
        body = {
            "workflow": "gated",
            "parameters": {"gate": str(gate)},
            "max_retries": 1,
            "retry_lost": True,
        }
        job_id = service.submit(body).json()["id"]
        work = service.data_dir / "jobs" / job_id / "work"

        def ran() -> list[str]:
            path = work / "starts.txt"
            return path.read_text().split() if path.exists() else []

        until_third = ["first", "second", "third"]
        wait_until(lambda: ran() == until_third, timeout_s=60, what="the third rule to run")
        # Snakemake may mark an output as incomplete a moment after its command has begun.
        incomplete = work / ".snakemake" / "incomplete"
        wait_until(lambda: os.listdir(incomplete), timeout_s=60, what="the third rule's output to be marked")
        replace_container(service, [job_id])
        assert os.listdir(work / ".snakemake" / "locks")

        service.start().until_up()
        wait_until(lambda: ran() == [*until_third, "third"], timeout_s=60, what="the third rule to run again")
        release(gate)
        (job,) = service.until_all_ended()
        assert (job["status"], job["exit_code"], job["attempt"]) == ("completed", 0, 2)
        assert ran() == [*until_third, "third"]
        assert (work / "third.txt").read_text() == "3\n"
        assert service.stop() == 0

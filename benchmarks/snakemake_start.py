"""Real Snakemake through the service, cold and warm, against the bare command; memory per running job."""

from __future__ import annotations

import statistics
import subprocess
import time
from typing import TYPE_CHECKING, Final

from benchmarks.load import json_body, requests
from benchmarks.load import run as run_loop
from benchmarks.processes import end_tree, pss_bytes, shim_pids, tree
from benchmarks.rows import Row, absent, compared
from benchmarks.service import Service, environment, pause

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.rows import Options

_ONE: Final = """
rule one:
    output: "done.txt"
    shell: "echo done > {output}"
"""
_HUNDRED: Final = """
rule all:
    input: expand("done/{n}.txt", n=range(99))

rule one:
    output: "done/{n}.txt"
    shell: "echo done > {output}"
"""
_HOLD: Final = """
rule hold:
    output: "done.txt"
    shell: "echo held >> started.txt; sleep 600; echo done > {output}"
"""
_TIME_LIMIT_S: Final = 120.0
_AT_ONCE: Final = 20
_CORES: Final = 2
_SETTLE_S: Final = 1.0


def run(options: Options) -> list[Row]:
    if not options.snakemake.exists():
        return [absent("real Snakemake", "make snakemake-env")]
    workflows = options.directory / "workflows"
    for name, snakefile in (("one", _ONE), ("hundred", _HUNDRED), ("hold", _HOLD)):
        (workflows / name).mkdir(parents=True)
        (workflows / name / "Snakefile").write_text(snakefile)
    rounds = 2 if options.quick else 5
    bare_start = _Bare(options, workflows)
    settings = {
        "ENGINE": "snakemake",
        "SNAKEMAKE": str(options.snakemake),
        "WORKFLOWS_DIR": str(workflows),
        "MAX_CORES": str(_AT_ONCE * _CORES),
    }
    times: dict[tuple[str, str], list[float]] = {}
    memory: dict[str, float] = {}
    with (
        Service(options.directory / "cold", **settings, WARM_START="false") as cold,
        Service(options.directory / "warm", **settings) as warm,
    ):
        _submit_and_wait(warm, "one")  # until then the launcher may still be importing
        for workflow in ("one", "hundred"):
            for _ in range(rounds):
                times.setdefault((workflow, "bare"), []).append(bare_start.seconds(workflow))
                times.setdefault((workflow, "cold"), []).append(_submit_and_wait(cold, workflow))
                times.setdefault((workflow, "warm"), []).append(_submit_and_wait(warm, workflow))
        memory["cold"] = _memory(cold)
        memory["warm"] = _memory(warm)
    memory["bare"] = bare_start.memory()
    s = {key: statistics.median(values) for key, values in times.items()}
    against = "the bare command, cold"
    return [
        compared("one rule, warm", s["one", "warm"], "s", against, s["one", "bare"], at_most=0.1),
        compared("one rule, WARM_START=false", s["one", "cold"], "s", against, s["one", "bare"]),
        compared("100 jobs, warm", s["hundred", "warm"], "s", against, s["hundred", "bare"], at_most=0.6),
        compared("100 jobs, WARM_START=false", s["hundred", "cold"], "s", against, s["hundred", "bare"]),
        compared(
            f"memory per job, {_AT_ONCE} at once, PSS, warm",
            memory["warm"] / 1e6,
            "MB",
            "the bare command",
            memory["bare"] / 1e6,
            at_most=0.4,
        ),
        compared(
            f"memory per job, {_AT_ONCE} at once, PSS, WARM_START=false",
            memory["cold"] / 1e6,
            "MB",
            "the bare command",
            memory["bare"] / 1e6,
        ),
    ]


class _Bare:
    """The command as a person would type it, each time in a fresh directory."""

    def __init__(self, options: Options, workflows: Path) -> None:
        self._snakemake = options.snakemake
        self._workflows = workflows
        self._directory = options.directory / "bare"
        self._directory.mkdir()
        self._runs = 0

    def seconds(self, workflow: str) -> float:
        begun = time.perf_counter()
        process = self._start(workflow)
        if process.wait(_TIME_LIMIT_S) != 0:
            raise RuntimeError(f"bare snakemake ended with {process.returncode}")
        return time.perf_counter() - begun

    def memory(self) -> float:
        """PSS of the whole tree of each, with as many at once as through the service."""
        processes = [self._start("hold") for _ in range(_AT_ONCE)]
        try:
            _wait_for_held(self._directory, _AT_ONCE)
            return pss_bytes(pid for process in processes for pid in tree(process.pid)) / _AT_ONCE
        finally:
            for process in processes:
                end_tree(process.pid)
                process.wait(_TIME_LIMIT_S)

    def _start(self, workflow: str) -> subprocess.Popen[bytes]:
        self._runs += 1
        directory = self._directory / str(self._runs)
        directory.mkdir()
        snakefile = str(self._workflows / workflow / "Snakefile")
        return subprocess.Popen(
            [self._snakemake, "--snakefile", snakefile, "--directory", directory, "--cores", str(_CORES)],
            env=environment({}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def _submit_and_wait(service: Service, workflow: str) -> float:
    with service.client() as client:
        begun = time.perf_counter()
        job = client.submit(workflow, cores=_CORES)
        job = client.wait(job.id, timeout_s=_TIME_LIMIT_S)
        seconds = time.perf_counter() - begun
    if job.status != "completed":
        raise RuntimeError(f"{workflow} {job.status}: {job.error_message}")
    return seconds


def _memory(service: Service) -> float:
    """PSS of the job with its shim, with `_AT_ONCE` of them running."""
    body = json_body(workflow="hold", cores=_CORES)
    run_loop(requests(service.address, "POST", "/jobs", connections=4, total=_AT_ONCE, body=lambda _: body))
    _wait_for_held(service.data_dir / "jobs", _AT_ONCE)
    used = pss_bytes(pid for shim in shim_pids(service.data_dir) for pid in tree(shim)) / _AT_ONCE
    with service.client() as client:
        for job in client.list(status=("running",), limit=500).items:
            client.cancel(job.id)
            client.wait(job.id, timeout_s=_TIME_LIMIT_S)
    return used


def _wait_for_held(directory: Path, count: int) -> None:
    """Until so many rules run."""
    deadline = time.monotonic() + _TIME_LIMIT_S
    while time.monotonic() < deadline:
        if sum(1 for _ in directory.rglob("started.txt")) >= count:
            pause(_SETTLE_S)
            return
        pause(0.1)
    raise RuntimeError("the rules did not start")

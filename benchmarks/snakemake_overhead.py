"""What the service adds to real Snakemake: time and CPU of each of tests/workflows, warm and cold."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from benchmarks.processes import cpu_s
from benchmarks.rows import Row, absent, compared
from benchmarks.service import Service
from tests.support import workflow_cases

if TYPE_CHECKING:
    from benchmarks.rows import Options
    from tests.support.workflow_cases import Case

_TIME_LIMIT_S: Final = 300.0
_AGAINST: Final = "the bare command"


@dataclass(frozen=True, slots=True)
class _Cost:
    """Of one run, from the call to its end; CPU of the run's processes and of the service together."""

    wall_s: float
    cpu_s: float


def run(options: Options) -> list[Row]:
    if not options.snakemake.exists():
        return [absent("real Snakemake", "make snakemake-env")]
    cases = [case for case in workflow_cases.cases() if not case.is_long]
    if options.quick:
        cases = cases[::5]
    rounds = 1 if options.quick else 3
    settings = {
        "ENGINE": "snakemake",
        "SNAKEMAKE": str(options.snakemake),
        "WORKFLOWS_DIR": str(workflow_cases.FOLDER),
        "MAX_CORES": "4",
    }
    costs: dict[str, dict[str, _Cost]] = {"bare": {}, "warm": {}, "cold": {}}
    with (
        Service(options.directory / "cold", **settings, WARM_START="false") as cold,
        Service(options.directory / "warm", **settings) as warm,
    ):
        _served(warm, cases[0])  # until then the launcher may still be importing
        for case in cases:
            runs = [(_bare(options, case), _served(warm, case), _served(cold, case)) for _ in range(rounds)]
            for how, of_it in zip(costs, zip(*runs, strict=True), strict=True):
                costs[how][case.name] = _middle(of_it)
    return [
        *(row for case in cases for row in _case_rows(case.name, costs)),
        *(row for how in ("warm", "cold") for row in _all_rows(how, costs)),
    ]


def _case_rows(name: str, costs: dict[str, dict[str, _Cost]]) -> list[Row]:
    bare, warm = costs["bare"][name], costs["warm"][name]
    return [
        compared(f"{name}, time", warm.wall_s, "s", _AGAINST, bare.wall_s),
        compared(f"{name}, CPU", warm.cpu_s, "s", _AGAINST, bare.cpu_s),
    ]


def _all_rows(how: str, costs: dict[str, dict[str, _Cost]]) -> list[Row]:
    """All together, and the worst: a run through the service may not cost more than without."""
    title = how if how == "warm" else "WARM_START=false"
    bare, ours = costs["bare"], costs[how]
    wall, cpu = sum(cost.wall_s for cost in ours.values()), sum(cost.cpu_s for cost in ours.values())
    bare_wall, bare_cpu = (
        sum(cost.wall_s for cost in bare.values()),
        sum(cost.cpu_s for cost in bare.values()),
    )
    worst = max(ours, key=lambda name: ours[name].cpu_s / bare[name].cpu_s)
    most = 1.0 if how == "warm" else 1.3
    return [
        compared(f"all {len(ours)}, time, {title}", wall, "s", _AGAINST, bare_wall, at_most=most),
        compared(f"all {len(ours)}, CPU, {title}", cpu, "s", _AGAINST, bare_cpu, at_most=most),
        compared(f"the worst, {worst}, CPU, {title}", ours[worst].cpu_s, "s", _AGAINST, bare[worst].cpu_s),
    ]


def _middle(of_runs: tuple[_Cost, ...]) -> _Cost:
    return _Cost(
        statistics.median(cost.wall_s for cost in of_runs), statistics.median(cost.cpu_s for cost in of_runs)
    )


def _bare(options: Options, case: Case) -> _Cost:
    directory = options.directory / f"bare-{time.monotonic_ns()}"
    directory.mkdir()
    command, work, environment = workflow_cases.bare_command(case, directory)
    begun = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=work,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    _expect(case, process.returncode)
    return _Cost(time.perf_counter() - begun, used.ru_utime + used.ru_stime)


def _served(service: Service, case: Case) -> _Cost:
    with service.client() as client:
        before = cpu_s(service.pid)
        begun = time.perf_counter()
        job = client.wait(client.submit(**case.body).id, timeout_s=_TIME_LIMIT_S)
        wall_s = time.perf_counter() - begun
        own = cpu_s(service.pid) - before
    _expect(case, job.exit_code)
    return _Cost(wall_s, own + job.raw["usage"]["cpu_s"])


def _expect(case: Case, exit_code: int | None) -> None:
    if exit_code != case.expected["exit_code"]:
        raise RuntimeError(f"{case.name} ended with {exit_code}")

"""Jobs from submission to result, per second: ours over HTTP, durable and logged, against peers.

Ours is the stand-in at zero seconds on a workflow of one rule: a Python program that writes its output, its
events and its log. The peers run a Python program that does nothing.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.load import Connection, json_body, requests
from benchmarks.load import run as run_loop
from benchmarks.peers import limit_loop, peers
from benchmarks.rows import Row, compared, limited
from benchmarks.service import Service, pause

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.rows import Options

TARGET: Final = 300.0
TIMES_THE_FASTEST_PEER: Final = 2.0
_CONNECTIONS: Final = 32
_TIME_LIMIT_S: Final = 120.0
_ONE_RULE: Final = """
rule one:
    output: "done.txt"
    shell: "echo done > {output}"
"""
_LOOK_S: Final = 0.02


def run(options: Options) -> list[Row]:
    rows = []
    for at_once in (8, 64):
        rows += _rows(options, at_once)
    return rows


def _rows(options: Options, at_once: int) -> list[Row]:
    rounds = 1 if options.quick else 3
    jobs = 200 if options.quick else 1000
    missing: list[Row] = []
    runners: dict[str, Callable[[Path, int, int], float]] = {
        "": _ours,
        "bare Python loop (limit)": limit_loop,
    }
    for name, peer in peers(options).items():
        if isinstance(peer, Row):
            missing.append(peer)
        else:
            runners[name] = peer
    figures: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(rounds):  # taken in turns, so that a slow moment of the machine meets all
        for name, runner in runners.items():
            # Left until the end: ext4 without a journal makes files far more slowly for minutes after
            # many were deleted (it does not use their inodes again so soon, and looks at each).
            directory = Path(tempfile.mkdtemp(dir=options.directory))
            figures[name].append(runner(directory, at_once, jobs))
    medians = {name: statistics.median(values) for name, values in figures.items()}
    ours = medians.pop("")
    limit = medians.pop("bare Python loop (limit)")
    what = f"{at_once} at once"
    rows = [
        limited(what, ours, "jobs/s", at_least=TARGET),
        compared(what, ours, "jobs/s", "bare Python posix_spawn loop (limit)", limit),
    ]
    fastest = max(medians, key=lambda name: medians[name], default=None)
    for name, other in sorted(medians.items(), key=lambda item: -item[1]):
        target = TIMES_THE_FASTEST_PEER if name == fastest else None
        rows.append(compared(what, ours, "jobs/s", name, other, at_least=target))
    return rows + missing


def _ours(directory: Path, at_once: int, jobs: int) -> float:
    workflow = directory / "workflows/one"
    workflow.mkdir(parents=True)
    (workflow / "Snakefile").write_text(_ONE_RULE)
    with Service(directory, MAX_CORES=str(at_once), WORKFLOWS_DIR=str(workflow.parent)) as service:
        run_loop(_until_done(service.address, at_once, done_before=0))  # what is only slow once
        return run_loop(_until_done(service.address, jobs, done_before=at_once))


async def _until_done(address: tuple[str, int], jobs: int, *, done_before: int) -> float:
    body = json_body(workflow="one", parameters={"mock": {"seconds": 0}})
    begun = time.perf_counter()
    await requests(
        address,
        "POST",
        "/jobs",
        connections=_CONNECTIONS,
        total=jobs,
        body=lambda _: body,
        time_limit_s=_TIME_LIMIT_S,
    )
    async with Connection(address) as connection:
        while time.perf_counter() - begun < _TIME_LIMIT_S:
            counted = await _count(connection, "completed")
            if counted >= done_before + jobs:
                return jobs / (time.perf_counter() - begun)
            pause(_LOOK_S)
        counts = {status: await _count(connection, status) for status in ("pending", "running", "failed")}
    raise RuntimeError(f"{counted - done_before} of {jobs} jobs completed; the others: {counts}")


async def _count(connection: Connection, status: str) -> int:
    _, answer = await connection.request("GET", f"/jobs?status={status}&limit=1")
    return int(json.loads(answer)["total"])

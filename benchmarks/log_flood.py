"""A job that floods its log beside the API: latencies with the flood against those without, in pairs."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import time
from collections import defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from benchmarks.load import Connection, json_body, percentile
from benchmarks.load import run as run_loop
from benchmarks.rows import Row, compared, limited
from benchmarks.service import Service

if TYPE_CHECKING:
    from benchmarks.rows import Options

_LIMIT_MB: Final = 64
_TIME_LIMIT_S: Final = 60.0
_PAUSE_S: Final = 0.002
_LOOK_S: Final = 0.005
_FLOOD: Final = """#!/usr/bin/env -S {python} -I -S
import json, os, sys, time
if sys.argv[1:] == ["--version"]:
    print("9.0.0")
    sys.exit()
with open(sys.argv[sys.argv.index("--configfile") + 1]) as file:
    wanted = json.load(file)
block = b"." * 2**20
end = time.monotonic() + wanted["flood_s"]
while time.monotonic() < end:
    os.write(1, block)
time.sleep(wanted["rest_s"])
"""
REQUESTS: Final = ("GET /healthz", "GET /jobs/{id}", "POST /jobs")


def run(options: Options) -> list[Row]:
    rounds, seconds = (2, 3.0) if options.quick else (6, 5.0)
    latencies: dict[tuple[str, bool], list[float]] = defaultdict(list)
    rates, most = [], []
    program = options.directory / "snakemake"
    program.write_text(_FLOOD.format(python=sys.executable))
    program.chmod(0o700)
    workflow = options.directory / "workflows/flood"
    workflow.mkdir(parents=True)
    (workflow / "Snakefile").write_text("")
    with Service(
        options.directory / "service",
        ENGINE="snakemake",
        SNAKEMAKE=str(program),
        WORKFLOWS_DIR=str(workflow.parent),
        LOG_LIMIT_MB=str(_LIMIT_MB),
        MAX_CORES="1",  # the job below has it: what is posted meanwhile waits
        MAX_PENDING="1000000",
    ) as service:
        for number in range(rounds + 1):
            for flooding in (False, True):
                phase = run_loop(_phase(service, seconds, flooding=flooding))
                if number == 0:
                    continue  # the first pair warms up
                for what, values in phase.latencies_s.items():
                    latencies[what, flooding].append(percentile(values, 95) * 1000)
                if flooding:
                    rates.append(phase.log_bytes / seconds)
                    most.append(phase.most_bytes)
    rows = [
        limited("a job's flood, taken in", statistics.median(rates) / 1e6, "MB/s"),
        limited("most of its log on disk", max(most) / 2**20, "MiB", at_most=_LIMIT_MB),
    ]
    for what in REQUESTS:
        idle, flood = latencies[what, False], latencies[what, True]
        print(f"  {what}: p95 idle {_told(idle)} ms, in the flood {_told(flood)} ms", flush=True)
        rows.append(
            compared(
                f"{what}, p95 in the flood",
                statistics.median(flood),
                "ms",
                "the same without the flood",
                statistics.median(idle),
                at_most=2,
            )
        )
    return rows


def _told(values: list[float]) -> str:
    return " ".join(f"{value:.2f}" for value in values)


class _Phase:
    def __init__(self) -> None:
        self.latencies_s: dict[str, list[float]] = defaultdict(list)
        self.log_bytes = 0
        self.most_bytes = 0


async def _phase(service: Service, seconds: float, *, flooding: bool) -> _Phase:
    """Ask one thing after the other while a job runs that floods its log, or rests."""
    phase = _Phase()
    async with Connection(service.address) as connection, asyncio.timeout(_TIME_LIMIT_S):
        parameters = (
            {"flood_s": seconds + 1, "rest_s": 0} if flooding else {"flood_s": 0, "rest_s": seconds + 1}
        )
        _, answer = await connection.request(
            "POST", "/jobs", json_body(workflow="flood", parameters=parameters, priority=1)
        )
        path = f"/jobs/{json.loads(answer)['id']}"
        _, fields, answer = await connection.exchange("GET", path)
        while json.loads(answer)["status"] == "pending":
            etag = {"If-None-Match": fields[b"etag"].decode()}
            _, fields, answer = await connection.exchange("GET", f"{path}?wait=30", headers=etag)
        looking = asyncio.create_task(_look(os.fspath(service.data_dir / path[1:] / "attempts/1"), phase))
        begun_bytes, begun = await _size(connection, path), time.perf_counter()
        body = json_body(workflow="flood", parameters={"flood_s": 0, "rest_s": 0})
        while time.perf_counter() - begun < seconds:
            asking = (("GET", "/healthz", b""), ("GET", path, b""), ("POST", "/jobs", body))
            for what, sent in zip(REQUESTS, asking, strict=True):
                asked = time.perf_counter()
                status, answer = await connection.request(*sent)
                phase.latencies_s[what].append(time.perf_counter() - asked)
                if not 200 <= status < 300:
                    raise RuntimeError(f"{what}: {status} {answer[:500]!r}")
                await asyncio.sleep(_PAUSE_S)
        phase.log_bytes = await _size(connection, path) - begun_bytes
        looking.cancel()
        while json.loads((await connection.request("GET", f"{path}?wait=5"))[1])["completed_at"] is None:
            pass
    return phase


async def _size(connection: Connection, path: str) -> int:
    _, fields = await connection.head("HEAD", f"{path}/logs")
    return int(fields[b"x-log-size"])


async def _look(attempt: str, phase: _Phase) -> None:
    while True:
        names = os.listdir(attempt)
        with suppress(FileNotFoundError):
            sizes = [os.stat(f"{attempt}/{name}").st_size for name in names if name.startswith("log.")]
            if os.listdir(attempt) == names:  # else what was dropped is counted beside what replaced it
                phase.most_bytes = max(phase.most_bytes, sum(sizes))
        await asyncio.sleep(_LOOK_S)

"""How soon a client that waits sees what a run has told, and what following many runs costs the service."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any, Final

from benchmarks.load import Connection, json_body, percentile
from benchmarks.load import run as run_loop
from benchmarks.processes import cpu_s
from benchmarks.rows import Row, limited
from benchmarks.service import Service

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.rows import Options

_RULES: Final = 40
_RULE: Final = """
rule step{number}:
    input: "{before}"
    output: "step{number}.txt"
    shell: "cp {{input}} {{output}}"
"""
_TIME_LIMIT_S: Final = 180.0


def run(options: Options) -> list[Row]:
    jobs, seconds = ((1, 10), 5.0) if options.quick else ((1, 50, 100), 20.0)
    folder = options.directory / "workflows/steps"
    folder.mkdir(parents=True)
    names = ["Snakefile", *(f"step{number}.txt" for number in range(_RULES))]
    rules = [_RULE.format(number=number, before=names[number]) for number in reversed(range(_RULES))]
    (folder / "Snakefile").write_text("".join(rules))
    rows = []
    with Service(
        options.directory / "data",
        WORKFLOWS_DIR=str(options.directory / "workflows"),
        MAX_CORES="1000",
        MOCK_SEED="1",
    ) as service:
        for count in jobs:
            used_s, begun = cpu_s(service.pid), time.perf_counter()
            latencies = run_loop(_watch_all(service.address, service.data_dir, count, seconds))
            share = (cpu_s(service.pid) - used_s) / (time.perf_counter() - begun)
            what = f"a task's end seen by a long poll, {count} running"
            rows.append(Row(f"{what}: p50", percentile(latencies, 50) * 1000, "ms"))
            rows.append(limited(f"{what}: p99", percentile(latencies, 99) * 1000, "ms", at_most=200))
            rows.append(
                Row(f"CPU of the service, {count} such runs and as many clients", share * 100, "% of a core")
            )
    return rows


async def _watch_all(address: tuple[str, int], data_dir: Path, jobs: int, seconds: float) -> list[float]:
    """The latencies of all ends since the last of the jobs has begun."""
    async with asyncio.timeout(_TIME_LIMIT_S):
        watched = await asyncio.gather(*(_watch(address, seconds) for _ in range(jobs)))
    runs = [
        (_events(data_dir / "jobs" / job_id / "attempts/1/events.jsonl"), seen) for job_id, seen in watched
    ]
    all_run_at = max(events[0]["t"] for events, _ in runs)
    return [
        next(at for done, at in seen if done >= number) - ended_at
        for events, seen in runs
        for number, ended_at in enumerate((e["t"] for e in events if e["event"] == "job_finished"), 1)
        if ended_at > all_run_at
    ]


async def _watch(address: tuple[str, int], seconds: float) -> tuple[str, list[tuple[int, float]]]:
    """The id of a new job, and when so many tasks were first seen to be done."""
    seen: list[tuple[int, float]] = []
    async with Connection(address) as connection:
        body = json_body(workflow="steps", parameters={"mock": {"seconds": seconds}})
        _, fields, answer = await connection.exchange("POST", "/jobs", body)
        job, etag = json.loads(answer), fields[b"etag"].decode()
        while job["completed_at"] is None:
            status, fields, answer = await connection.exchange(
                "GET", f"/jobs/{job['id']}?wait=30", headers={"If-None-Match": etag}
            )
            now = time.time()
            if status == 200:
                job, etag = json.loads(answer), fields[b"etag"].decode()
                done = (job["progress"] or {}).get("done", 0)
                if done > (seen[-1][0] if seen else 0):
                    seen.append((done, now))
        if job["status"] != "completed":
            raise RuntimeError(f"a job {job['status']}: {job['error_message']}")
    return job["id"], seen


def _events(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]

"""A thousand running jobs: how soon an end is seen, what they cost, how soon a restart has them again."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import datetime
from typing import TYPE_CHECKING, Final

from benchmarks.load import Connection, Load, json_body, percentile, requests
from benchmarks.load import run as run_loop
from benchmarks.processes import cpu_s, pss_bytes, shim_pids, tree
from benchmarks.rows import Row, limited
from benchmarks.service import Service, pause

if TYPE_CHECKING:
    from benchmarks.rows import Options

_START_S: Final = 120.0
_HOLD_S: Final = 3600  # longer than the benchmark takes: these are ended with the service
_SPREAD_S: Final = 10.0  # over which the watched jobs end, one by one


def run(options: Options) -> list[Row]:
    jobs, watched, idle_s = (100, 20, 5.0) if options.quick else (1000, 200, 30.0)
    with Service(options.directory, MAX_CORES=str(jobs + watched + 100)) as service:
        empty_start_s = _restart(service)
        begun = time.perf_counter()
        _start_jobs(service, jobs)
        started_per_s = jobs / (time.perf_counter() - begun)
        pause(2.0)
        launcher = [pid for pid in tree(service.pid) if pid != service.pid]
        cpu, begun = sum(map(cpu_s, (service.pid, *launcher))), time.perf_counter()
        pause(idle_s)
        idle = (sum(map(cpu_s, (service.pid, *launcher))) - cpu) / (time.perf_counter() - begun)
        shims = shim_pids(service.data_dir)
        memory = pss_bytes(shims) / len(shims)
        latencies = run_loop(_watch_ends(service.address, watched))
        recovered_s = _restart(service)
        with service.client() as client:
            running = client.list(status=("running",), limit=1).total
        if running < jobs:
            raise RuntimeError(f"{running} of {jobs} jobs were running after the restart")
    return [
        limited(f"CPU of the service, {jobs} running, idle", idle * 100, "% of a core", at_most=1),
        limited("memory per job beyond the job (its shim, PSS)", memory / 1e6, "MB", at_most=2),
        Row(f"an end seen by a long poll, {jobs} running: p50", percentile(latencies, 50) * 1000, "ms"),
        Row(f"an end seen by a long poll, {jobs} running: p99", percentile(latencies, 99) * 1000, "ms"),
        limited(
            f"start with {jobs} running jobs, beyond an empty start",
            recovered_s - empty_start_s,
            "s",
            at_most=1,
        ),
        Row(f"starting {jobs} jobs", started_per_s, "jobs/s"),
    ]


def _restart(service: Service) -> float:
    """Kill the service and start it again: the seconds until it is ready and has asked after every job."""
    service.kill()
    begun = time.perf_counter()
    service.start()
    # A job submitted now runs when the supervisor's loop has begun, behind the recovery.
    body = json_body(workflow="demo", parameters={"mock": {"seconds": 0}})
    load = _submit(service, 1, body)
    job_id = json.loads(load.bodies[0])["id"]
    with service.client() as client:
        client.wait(job_id, timeout_s=_START_S)
    return time.perf_counter() - begun


def _submit(service: Service, total: int, body: bytes) -> Load:
    return run_loop(
        requests(
            service.address,
            "POST",
            "/jobs",
            connections=min(total, 32),
            total=total,
            body=lambda _: body,
            keep_bodies=True,
        )
    )


def _start_jobs(service: Service, jobs: int) -> None:
    _submit(service, jobs, json_body(workflow="demo", parameters={"mock": {"seconds": _HOLD_S}}))
    deadline = time.monotonic() + _START_S
    with service.client() as client:
        while time.monotonic() < deadline:
            counted = client.list(status=("running",), limit=1).total
            if counted >= jobs and len(shim_pids(service.data_dir)) >= jobs:
                return
            pause(0.1)
    raise RuntimeError(f"{counted} of {jobs} jobs are running")


async def _watch_ends(address: tuple[str, int], watched: int) -> list[float]:
    """How much later than it happened a client that waits learns of a job's end."""
    latencies: list[float] = []

    async def one(number: int) -> None:
        seconds = 2.0 + _SPREAD_S * number / watched
        async with Connection(address) as connection:
            body = json_body(workflow="demo", parameters={"mock": {"seconds": seconds}})
            _, fields, answer = await connection.exchange("POST", "/jobs", body)
            job, etag = json.loads(answer), fields[b"etag"].decode()
            deadline = time.monotonic() + _START_S
            while job["completed_at"] is None and time.monotonic() < deadline:
                status, fields, answer = await connection.exchange(
                    "GET", f"/jobs/{job['id']}?wait=30", headers={"If-None-Match": etag}
                )
                seen_at = time.time()
                if status == 200:
                    job, etag = json.loads(answer), fields[b"etag"].decode()
            latencies.append(seen_at - datetime.fromisoformat(job["completed_at"]).timestamp())

    async with asyncio.TaskGroup() as group:
        for number in range(watched):
            group.create_task(one(number))
    return latencies

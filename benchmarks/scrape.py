"""`GET /metrics` with a million jobs in the store, and with as much to tell as there ever is."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Final

import httpx2
import psutil

from api.client_limits import Connections, OpenStreams
from api.metrics import Counted, exposition
from api.metrics_labels import MOST_WORKFLOWS, WorkflowLabels
from api.request_counts import RequestCounts
from benchmarks.rows import Row, limited
from benchmarks.service import Service, pause
from benchmarks.store_pages import fill
from runner.health import DiskRoom, Figures, Readiness
from runner.isolation.probe import IsolationLevel
from runner.jobs import JobStatus, Reason
from runner.measurements import Measurements
from runner.stores.sql import SqlStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.rows import Options

LIMIT_MS: Final = 50.0
_FEW: Final = 10_000
_SETTLED_S: Final = 60.0
_ROUTES: Final = 60


def run(options: Options) -> list[Row]:
    many = 100_000 if options.quick else 1_000_000
    rounds = 30 if options.quick else 100
    few_times, _ = _of_service(options, _FEW, rounds)
    times, cpu_ms = _of_service(options, many, rounds)
    fullest = _timed(lambda: len(_fullest()), rounds, clock=time.process_time)
    return [
        limited(
            f"a scrape, {many:,} jobs, all cores taken: median",
            statistics.median(times),
            "ms",
            at_most=LIMIT_MS,
        ),
        limited("the same: p95", statistics.quantiles(times, n=20)[-1], "ms", at_most=LIMIT_MS),
        limited("the same: CPU of the service", cpu_ms, "ms", at_most=LIMIT_MS),
        Row(f"the same, {_FEW:,} jobs: median", statistics.median(few_times), "ms"),
        limited(
            f"writing it down with {MOST_WORKFLOWS} workflows and {_ROUTES} routes: median of CPU",
            statistics.median(fullest),
            "ms",
            at_most=LIMIT_MS,
        ),
    ]


def _of_service(options: Options, jobs: int, rounds: int) -> tuple[list[float], float]:
    """Each scrape's time over HTTP, and the service's CPU for one, in ms; all cores are taken, jobs wait."""
    directory = options.directory / f"jobs-{jobs}"
    data_dir = directory / "data"
    data_dir.mkdir(parents=True)
    SqlStore.open(f"sqlite:///{data_dir}/snakeline.db").close()
    fill(data_dir / "snakeline.db", jobs)
    with (
        Service(directory, MAX_CORES="2", MOCK_MIN_S="3600", MOCK_MAX_S="3600") as service,
        httpx2.Client(base_url=service.url, timeout=60) as client,
    ):
        _settle(client)
        process = psutil.Process(service.pid)
        before = process.cpu_times()
        times = _timed(lambda: client.get("/metrics").raise_for_status(), rounds)
        after = process.cpu_times()
        used_s = after.user + after.system - before.user - before.system
        return times, used_s / rounds * 1000


def _settle(client: httpx2.Client) -> None:
    """Until every core is taken: jobs of workflows that are registered run, those of others fail at once."""
    deadline = time.monotonic() + _SETTLED_S
    before = -1
    while True:
        active = client.get("/jobs?status=pending&status=running&limit=1").json()["total"]
        if active == before:
            return
        if time.monotonic() > deadline:
            raise RuntimeError("the queue does not come to rest")
        before = active
        pause(2.0)


def _timed(
    call: Callable[[], object], rounds: int, *, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """In ms."""
    times = []
    for _ in range(rounds):
        begun = clock()
        call()
        times.append((clock() - begun) * 1000)
    return times


def _fullest() -> bytes:
    names = [f"workflow-{number}" for number in range(MOST_WORKFLOWS)]
    measurements = Measurements()
    requests = RequestCounts()
    for name in names:
        measurements.run_time.observe(name, 1.0)
        for reason in Reason:
            measurements.requeued.add((name, reason))
    for number in range(_ROUTES):
        requests.durations.observe((f"/route/{number}", "GET"), 0.001)
        for status in ("200", "401", "404", "503"):
            requests.requests.add((f"/route/{number}", "GET", status))
    figures = Figures(
        jobs={(name, status): 1 for name in names for status in JobStatus},
        pending_for_s=1.0,
        launches_postponed=0,
        cores=2,
        used_cores=1,
        files_bytes=1,
        disk=DiskRoom(1, 1, 1, 1),
        least_free_bytes=1,
    )
    connections = Connections(1, 1)
    counted = Counted(
        measurements=measurements,
        workflows=WorkflowLabels(lambda: names),
        requests=requests,
        connections=connections,
        streams=OpenStreams(1, connections.refused),
    )
    level = IsolationLevel("none", (), "", certain=False)
    return exposition(Readiness(ready=True, checks=(), engine=None, isolation=level), figures, counted)

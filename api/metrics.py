"""What `/metrics` tells: put together when asked for, from what is counted where it happens."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from api.client_limits import WHY_REFUSED
from api.metrics_jobs import JobsCollector, add_distribution
from api.problems import KINDS
from runner.isolation.probe import PROTECTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

    from api.client_limits import Connections, OpenStreams
    from api.metrics_labels import WorkflowLabels
    from api.request_counts import RequestCounts
    from runner.health import Check, DiskRoom, Figures, Readiness
    from runner.isolation.probe import IsolationLevel
    from runner.measurements import Measurements
    from runner.ports import EngineInfo
    from runner.service import JobService

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Counted:
    """What is counted between scrapes. `workflows` is not thread-safe: there is one scrape at a time."""

    measurements: Measurements
    workflows: WorkflowLabels
    requests: RequestCounts
    connections: Connections
    streams: OpenStreams


class ServiceCollector(Collector):
    """Whether the service can work, and with what. Every label has a bounded set of values."""

    def __init__(self, readiness: Readiness, figures: Figures) -> None:
        self._readiness = readiness
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        yield _build(self._readiness.engine)
        yield GaugeMetricFamily(
            "snakeline_ready", "Whether a job submitted now would be accepted and run.", self._readiness.ready
        )
        yield _checks(self._readiness.checks)
        yield _isolation(self._readiness.isolation)
        if self._figures.disk is not None:
            yield from _disk(self._figures.disk, self._figures.least_free_bytes)
        if self._figures.files_bytes is not None:
            yield GaugeMetricFamily(
                "snakeline_job_files_bytes", "What all jobs' files take on disk.", self._figures.files_bytes
            )


class ClientsCollector(Collector):
    """Requests, what was answered to them, and who is connected."""

    def __init__(self, counted: Counted) -> None:
        self._counted = counted

    def collect(self) -> Iterator[Metric]:
        counted = self._counted
        requests = CounterMetricFamily(
            "snakeline_http_requests",
            "Requests that were answered, or whose client went away (status none).",
            labels=["route", "method", "status"],
        )
        for labels, number in sorted(counted.requests.requests.read().items()):
            requests.add_metric(labels, number)
        yield requests
        durations = HistogramMetricFamily(
            "snakeline_http_request_seconds",
            "From a request until its answer begins; without those that are kept open.",
            labels=["route", "method"],
        )
        for (route, method), distribution in sorted(counted.requests.durations.read().items()):
            add_distribution(durations, [route, method], distribution)
        yield durations
        problems = CounterMetricFamily(
            "snakeline_http_problems", "Requests answered with a problem, by its type.", labels=["type"]
        )
        answered = counted.requests.problems.read()
        for slug in sorted({kind.slug for kind in KINDS.values()} | answered.keys()):
            problems.add_metric([slug], answered.get(slug, 0))
        yield problems
        following = counted.streams.by_route()
        yield GaugeMetricFamily(
            "snakeline_http_connections", "Connections that are open.", len(counted.connections)
        )
        yield GaugeMetricFamily(
            "snakeline_http_streams",
            "Followed logs, long-polls, event streams, archives and checksums.",
            sum(following.values()),
        )
        followers = GaugeMetricFamily(
            "snakeline_followers", "The same by route: who follows what.", labels=["route"]
        )
        for path, number in sorted(following.items()):
            followers.add_metric([path], number)
        yield followers
        refused = CounterMetricFamily(
            "snakeline_http_refused", "What was refused or cut off before it got anywhere.", labels=["why"]
        )
        for why in WHY_REFUSED:
            refused.add_metric([why], counted.connections.refused[why])
        yield refused


@cache
def _version() -> str:
    return version("snakeline")


def _build(engine: EngineInfo | None) -> Metric:
    family = GaugeMetricFamily(
        "snakeline_build_info",
        "What runs here: always 1; the labels tell.",
        labels=["version", "python", "engine", "engine_version"],
    )
    of_engine = ["", ""] if engine is None else [engine.name, engine.version]
    family.add_metric([_version(), platform.python_version(), *of_engine], 1)
    return family


def _checks(checks: tuple[Check, ...]) -> Metric:
    family = GaugeMetricFamily(
        "snakeline_check_ok", "What the service needs, and whether it is there.", labels=["check"]
    )
    for check in checks:
        family.add_metric([check.name], check.ok)
    return family


def _isolation(level: IsolationLevel) -> Metric:
    family = GaugeMetricFamily(
        "snakeline_isolation_info",
        "How jobs are kept apart: always 1; the labels tell.",
        labels=["level", "certain", *PROTECTIONS],
    )
    protections = (str(name in level.protections).lower() for name in PROTECTIONS)
    family.add_metric([level.name, str(level.certain).lower(), *protections], 1)
    return family


def _disk(room: DiskRoom, least_free_bytes: int) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "snakeline_disk_free_bytes", "Free space of the data directory's file system.", room.free_bytes
    )
    yield GaugeMetricFamily(
        "snakeline_disk_size_bytes", "Size of the data directory's file system.", room.size_bytes
    )
    yield GaugeMetricFamily(
        "snakeline_disk_least_free_bytes", "With less free space no job is accepted.", least_free_bytes
    )
    if room.inodes:  # some file systems have no fixed number
        yield GaugeMetricFamily(
            "snakeline_disk_free_inodes", "Free inodes of the data directory's file system.", room.free_inodes
        )
        yield GaugeMetricFamily(
            "snakeline_disk_inodes", "Inodes of the data directory's file system.", room.inodes
        )


def exposition(readiness: Readiness, figures: Figures, counted: Counted) -> bytes:
    """The metrics in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(ServiceCollector(readiness, figures))
    registry.register(JobsCollector(figures, counted.measurements, counted.workflows))
    registry.register(ClientsCollector(counted))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


def scrape(service: JobService, counted: Counted) -> bytes:
    """What `/metrics` answers now. Waits for the disk; takes no scan, and some milliseconds."""
    return exposition(service.readiness(), service.figures(), counted)

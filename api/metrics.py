"""What `/metrics` tells: read when asked for, so that counting costs the service nothing meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from api.client_limits import WHY_REFUSED
from api.problems import KINDS
from runner.isolation.probe import PROTECTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client.metrics_core import Metric

    from api.client_limits import Connections, OpenStreams
    from runner.health import Check, Figures, Readiness
    from runner.isolation.probe import IsolationLevel

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class ServiceCollector(Collector):
    """One look at the service. Every label has a fixed set of values."""

    def __init__(
        self,
        readiness: Readiness,
        figures: Figures,
        problems: Mapping[str, int],
        connections: Connections,
        streams: OpenStreams,
    ) -> None:
        self._connections = connections
        self._streams = streams
        self._readiness = readiness
        self._figures = figures
        self._problems = problems

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "snakeline_ready", "Whether a job submitted now would be accepted and run.", self._readiness.ready
        )
        yield _checks(self._readiness.checks)
        yield _isolation(self._readiness.isolation)
        if self._figures.jobs is not None:
            jobs = GaugeMetricFamily("snakeline_jobs", "Jobs in the store.", labels=["status"])
            for status, count in self._figures.jobs.items():
                jobs.add_metric([status.value], count)
            yield jobs
        yield GaugeMetricFamily(
            "snakeline_launches_postponed",
            "Claimed jobs that could not be started yet and are tried again.",
            self._figures.launches_postponed,
        )
        if self._figures.free_bytes is not None:
            yield GaugeMetricFamily(
                "snakeline_disk_free_bytes",
                "Free space of the data directory's file system.",
                self._figures.free_bytes,
            )
        if self._figures.files_bytes is not None:
            yield GaugeMetricFamily(
                "snakeline_job_files_bytes", "What all jobs' files take on disk.", self._figures.files_bytes
            )
        problems = CounterMetricFamily(
            "snakeline_http_problems", "Requests answered with a problem, by its type.", labels=["type"]
        )
        for kind in KINDS.values():
            problems.add_metric([kind.slug], self._problems.get(kind.slug, 0))
        yield problems
        yield from self._clients()

    def _clients(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "snakeline_http_connections", "Connections that are open.", len(self._connections)
        )
        yield GaugeMetricFamily(
            "snakeline_http_streams",
            "Followed logs, long-polls, event streams, archives and checksums.",
            len(self._streams),
        )
        refused = CounterMetricFamily(
            "snakeline_http_refused", "What was refused or cut off before it got anywhere.", labels=["why"]
        )
        for why in WHY_REFUSED:
            refused.add_metric([why], self._connections.refused[why])
        yield refused


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


def exposition(
    readiness: Readiness,
    figures: Figures,
    problems: Mapping[str, int],
    connections: Connections,
    streams: OpenStreams,
) -> bytes:
    """The metrics in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(ServiceCollector(readiness, figures, problems, connections, streams))
    return generate_latest(registry)

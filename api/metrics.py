"""What `/metrics` tells: read when asked for, so that counting costs the service nothing meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from api.problems import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client.metrics_core import Metric

    from runner.service import Check, Figures, Readiness

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class ServiceCollector(Collector):
    """One look at the service. Every label has a fixed set of values."""

    def __init__(self, readiness: Readiness, figures: Figures, problems: Mapping[str, int]) -> None:
        self._readiness = readiness
        self._figures = figures
        self._problems = problems

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "snakeline_ready", "Whether a job submitted now would be accepted and run.", self._readiness.ready
        )
        yield _checks(self._readiness.checks)
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


def _checks(checks: tuple[Check, ...]) -> Metric:
    family = GaugeMetricFamily(
        "snakeline_check_ok", "What the service needs, and whether it is there.", labels=["check"]
    )
    for check in checks:
        family.add_metric([check.name], check.ok)
    return family


def exposition(readiness: Readiness, figures: Figures, problems: Mapping[str, int]) -> bytes:
    """The metrics in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(ServiceCollector(readiness, figures, problems))
    return generate_latest(registry)

"""Metrics of jobs, their attempts, and the store."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from runner.histograms import merged
from runner.jobs import STATUS_OF, JobStatus, Reason
from runner.measurements import LAUNCH_RESULTS, STORE_TROUBLES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client.metrics_core import Metric

    from api.metrics_labels import WorkflowLabels
    from runner.health import Figures
    from runner.histograms import Distribution
    from runner.measurements import Measurements, StoreMeasurements

K = TypeVar("K")


class JobsCollector(Collector):
    """What is in the store now, and what this process has seen happen since its start."""

    def __init__(self, figures: Figures, measurements: Measurements, workflows: WorkflowLabels) -> None:
        self._figures = figures
        self._measured = measurements
        self._workflows = workflows

    def collect(self) -> Iterator[Metric]:
        self._workflows.refresh()
        yield from self._stored()
        yield from self._since_the_start()
        yield from self._launches()
        yield from self._cores()
        yield from _store(self._measured.store)

    def _stored(self) -> Iterator[Metric]:
        if self._figures.jobs is not None:
            by_status = dict.fromkeys(JobStatus, 0)
            by_workflow: Counter[tuple[str, JobStatus]] = Counter()
            for (workflow, status), jobs in self._figures.jobs.items():
                by_status[status] += jobs
                by_workflow[self._workflows.of(workflow), status] += jobs
            family = GaugeMetricFamily("snakeline_jobs", "Jobs in the store.", labels=["status"])
            for status, jobs in by_status.items():
                family.add_metric([status.value], jobs)
            yield family
            family = GaugeMetricFamily(
                "snakeline_workflow_jobs", "Jobs in the store, by workflow.", labels=["workflow", "status"]
            )
            for (workflow, status), jobs in sorted(by_workflow.items()):
                family.add_metric([workflow, status.value], jobs)
            yield family
        if self._figures.pending_for_s is not None:
            yield GaugeMetricFamily(
                "snakeline_oldest_pending_seconds",
                "How long the pending job that has waited longest has been pending; 0 when none is.",
                self._figures.pending_for_s,
            )

    def _since_the_start(self) -> Iterator[Metric]:
        measured, every = self._measured, self._workflows.every()
        submitted = CounterMetricFamily(
            "snakeline_jobs_submitted", "Jobs that were accepted.", labels=["workflow"]
        )
        sums = self._by_label(measured.submitted.read())
        for workflow in every:
            submitted.add_metric([workflow], sums[workflow])
        yield submitted
        ended = CounterMetricFamily(
            "snakeline_jobs_ended",
            "Jobs that have ended; the reason says why.",
            labels=["workflow", "status", "reason"],
        )
        requeued = CounterMetricFamily(
            "snakeline_attempts_requeued",
            "Attempts that have ended, and that another one of the same job follows by itself.",
            labels=["workflow", "reason"],
        )
        ends = self._by_label_and_reason(measured.ended.read())
        requeues = self._by_label_and_reason(measured.requeued.read())
        # All of them from the first scrape on: a rate needs to have seen a counter at 0.
        for workflow in every:
            for reason in Reason:
                ended.add_metric([workflow, STATUS_OF[reason].value, reason.value], ends[workflow, reason])
        for (workflow, reason), attempts in sorted(requeues.items()):
            requeued.add_metric([workflow, reason.value], attempts)
        yield ended
        yield requeued
        log_bytes = CounterMetricFamily(
            "snakeline_log_bytes", "What ended attempts have written to their logs.", labels=["workflow"]
        )
        sums = self._by_label(measured.log_bytes.read())
        for workflow in every:
            log_bytes.add_metric([workflow], sums[workflow])
        yield log_bytes
        yield self._run_times()

    def _run_times(self) -> Metric:
        found: dict[str, Distribution] = {}
        for name, distribution in self._measured.run_time.read().items():
            label = self._workflows.of(name)
            found[label] = merged(found[label], distribution) if label in found else distribution
        family = HistogramMetricFamily(
            "snakeline_run_seconds", "How long attempts ran, by the shim's clock.", labels=["workflow"]
        )
        for label, distribution in sorted(found.items()):
            add_distribution(family, [label], distribution)
        return family

    def _launches(self) -> Iterator[Metric]:
        measured = self._measured
        yield histogram(
            "snakeline_queue_wait_seconds",
            "How long jobs were pending before they were claimed.",
            measured.queue_wait.read(),
        )
        launches = CounterMetricFamily(
            "snakeline_launches", "Tries to launch an attempt, by what came of them.", labels=["result"]
        )
        results = measured.launches.read()
        for result in LAUNCH_RESULTS:
            launches.add_metric([result], results.get(result, 0))
        yield launches
        yield GaugeMetricFamily(
            "snakeline_launches_postponed",
            "Claimed jobs that could not be started yet and are tried again.",
            self._figures.launches_postponed,
        )
        yield histogram(
            "snakeline_launch_latency_seconds",
            "From asking for an attempt's process until it is there.",
            measured.launch_latency.read(),
        )
        yield histogram(
            "snakeline_exit_detection_seconds",
            "From an attempt's end until the service has seen it.",
            measured.exit_detection.read(),
        )

    def _cores(self) -> Iterator[Metric]:
        cores, used = self._figures.cores, self._figures.used_cores
        yield GaugeMetricFamily("snakeline_cores", "Cores that running jobs may take together.", cores)
        yield GaugeMetricFamily("snakeline_cores_used", "Cores that running jobs take.", used)
        # After a restart with fewer cores more may be taken than there are.
        yield GaugeMetricFamily(
            "snakeline_cores_free", "Cores that are left for pending jobs.", max(0, cores - used)
        )

    def _by_label(self, sums: Mapping[str, int]) -> Counter[str]:
        found: Counter[str] = Counter()
        for name, number in sums.items():
            found[self._workflows.of(name)] += number
        return found

    def _by_label_and_reason(self, sums: Mapping[tuple[str, Reason], int]) -> Counter[tuple[str, Reason]]:
        found: Counter[tuple[str, Reason]] = Counter()
        for (name, reason), number in sums.items():
            found[self._workflows.of(name), reason] += number
        return found


def _store(measured: StoreMeasurements) -> Iterator[Metric]:
    yield histogram(
        "snakeline_store_commit_seconds",
        "How long transactions took that write; many changes share one.",
        measured.commits.read(),
    )
    yield histogram(
        "snakeline_store_read_seconds", "How long looks into the store took.", measured.reads.read()
    )
    yield CounterMetricFamily(
        "snakeline_store_writes",
        "Changes that were committed.",
        measured.writes.read().get(None, 0),
    )
    failures = CounterMetricFamily(
        "snakeline_store_failures", "Reads and transactions that the store could not do.", labels=["kind"]
    )
    sums = measured.failures.read()
    for kind in STORE_TROUBLES:
        failures.add_metric([kind], sums.get(kind, 0))
    yield failures


def histogram(name: str, documentation: str, distribution: Distribution) -> Metric:
    """One without labels."""
    family = HistogramMetricFamily(name, documentation, labels=[])
    add_distribution(family, [], distribution)
    return family


def add_distribution(family: HistogramMetricFamily, labels: list[str], distribution: Distribution) -> None:
    buckets = [
        (repr(bound), count) for bound, count in zip(distribution.bounds_s, distribution.at_most, strict=True)
    ]
    family.add_metric(labels, [*buckets, ("+Inf", distribution.count)], distribution.sum_s)

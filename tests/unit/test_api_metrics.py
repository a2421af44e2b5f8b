"""The text of `/metrics` from what was counted, and that no label has values without end."""

from __future__ import annotations

import asyncio
from collections import Counter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from api.client_limits import Connections, OpenStreams
from api.metrics import Counted, exposition
from api.metrics_labels import WorkflowLabels
from api.request_counts import CountedRequests, RequestCounts
from runner.health import DiskRoom, Figures, Readiness
from runner.isolation.probe import IsolationLevel
from runner.jobs import JobStatus, Reason
from runner.measurements import Measurements

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import Receive, Scope, Send


class Told:
    """A service as far as `/metrics` tells of it; `samples` are read from the text."""

    def __init__(self, registered: Iterable[str] = ("demo",), most: int = 50) -> None:
        self.measurements = Measurements()
        self.requests = RequestCounts()
        connections = Connections(1, 1)
        self._counted = Counted(
            measurements=self.measurements,
            workflows=WorkflowLabels(lambda: registered, most),
            requests=self.requests,
            connections=connections,
            streams=OpenStreams(1, connections.refused),
        )

    def samples(self, **figures: Any) -> dict[tuple[str, ...], float]:
        values: dict[str, Any] = {
            "jobs": {},
            "pending_for_s": 0.0,
            "launches_postponed": 0,
            "cores": 4,
            "used_cores": 1,
            "files_bytes": None,
            "disk": DiskRoom(100, 60, 10, 5),
            "least_free_bytes": 1,
        }
        level = IsolationLevel("none", (), "", certain=False)
        readiness = Readiness(ready=True, checks=(), engine=None, isolation=level)
        text = exposition(readiness, Figures(**{**values, **figures}), self._counted).decode()
        return {
            (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }


def test_a_workflow_that_nobody_has_registered_is_told_as_another() -> None:
    told = Told(["demo"])
    jobs = {
        ("demo", JobStatus.FAILED): 2,
        ("gone", JobStatus.FAILED): 3,
        ("gone too", JobStatus.FAILED): 4,
        ("uploaded", JobStatus.RUNNING): 5,
    }
    told.measurements.ended.add(("gone", Reason.LOST), 3)
    told.measurements.ended.add(("gone too", Reason.LOST))
    told.measurements.run_time.observe("gone", 2.0)
    told.measurements.run_time.observe("gone too", 20.0)
    samples = told.samples(jobs=jobs)
    assert samples["snakeline_jobs", "failed"] == 9
    assert samples["snakeline_workflow_jobs", "failed", "demo"] == 2
    assert samples["snakeline_workflow_jobs", "failed", "other"] == 7
    assert samples["snakeline_workflow_jobs", "running", "uploaded"] == 5
    assert samples["snakeline_jobs_ended_total", "lost", "failed", "other"] == 4
    assert samples["snakeline_run_seconds_count", "other"] == 2
    assert samples["snakeline_run_seconds_bucket", "5.0", "other"] == 1
    assert not [labels for labels in samples if "gone" in labels or "gone too" in labels]


def test_workflows_beyond_the_most_are_told_together() -> None:
    names = [f"w{number:03}" for number in range(500)]
    told = Told(names, most=50)
    samples = told.samples(jobs={(name, JobStatus.COMPLETED): 1 for name in names})
    by_workflow = {key[-1]: value for key, value in samples.items() if key[0] == "snakeline_workflow_jobs"}
    assert len(by_workflow) == 51
    assert by_workflow["other"] == 450


def test_a_counter_keeps_its_label_whatever_is_registered_later() -> None:
    registered = ["demo"]
    told = Told(registered)
    told.measurements.submitted.add("late", 3)
    assert told.samples()["snakeline_jobs_submitted_total", "other"] == 3
    registered.append("late")
    registered.remove("demo")
    told.measurements.submitted.add("demo")
    samples = told.samples()
    assert samples["snakeline_jobs_submitted_total", "other"] == 3
    assert samples["snakeline_jobs_submitted_total", "demo"] == 1
    assert ("snakeline_jobs_submitted_total", "late") not in samples


def test_every_reason_of_every_workflow_is_there_before_it_happens() -> None:
    """A rate cannot see the first one otherwise: it would begin at 1."""
    samples = Told(["demo", "idle"]).samples()
    for workflow in ("demo", "idle", "uploaded", "other"):
        told = {key[1] for key in samples if key[0] == "snakeline_jobs_ended_total" and key[-1] == workflow}
        assert told == {reason.value for reason in Reason}


def test_what_cannot_be_told_is_left_out_and_the_rest_is_there() -> None:
    samples = Told().samples(jobs=None, pending_for_s=None, disk=None)
    names = {key[0] for key in samples}
    assert not names & {
        "snakeline_jobs",
        "snakeline_workflow_jobs",
        "snakeline_oldest_pending_seconds",
        "snakeline_disk_free_bytes",
        "snakeline_job_files_bytes",
    }
    assert samples["snakeline_cores_free",] == 3
    assert "snakeline_store_commit_seconds_count" in names


def test_more_cores_taken_than_there_are_leave_none_free() -> None:
    samples = Told().samples(cores=2, used_cores=5)
    assert (samples["snakeline_cores_used",], samples["snakeline_cores_free",]) == (5, 0)


def test_a_file_system_without_a_number_of_inodes_tells_none() -> None:
    names = {key[0] for key in Told().samples(disk=DiskRoom(100, 60, 0, 0))}
    assert "snakeline_disk_size_bytes" in names
    assert not names & {"snakeline_disk_inodes", "snakeline_disk_free_inodes"}


# ---------------------------------------------------------------- requests


async def _send(_message: Any) -> None:
    pass


def answered(
    counts: RequestCounts, *, path: str | None, method: str, status: int | None, **scope: Any
) -> None:
    """One request to a route, answered with this status or not at all."""

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        if path is not None:
            scope["route"] = SimpleNamespace(path=path)
        if status is None:
            raise ConnectionError
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> Any:
        raise AssertionError

    async def ask() -> None:
        await CountedRequests(app, counts)({"type": "http", "method": method, **scope}, receive, _send)

    asyncio.run(ask())


def test_requests_are_counted_by_route_and_never_by_what_callers_make_up() -> None:
    counts = RequestCounts()
    for number in range(20):
        answered(counts, path="/jobs/{job_id}", method="GET", status=404)
        answered(counts, path=None, method="GET", status=404)
        answered(counts, path="/jobs", method=f"MADE-UP-{number}" if number % 2 else "PATCH", status=405)
    answered(counts, path="/jobs", method="GET", status=200, **{"snakeline.method": "HEAD"})
    assert counts.requests.read() == {
        ("/jobs/{job_id}", "GET", "404"): 20,
        ("other", "GET", "404"): 20,
        ("/jobs", "other", "405"): 20,
        ("/jobs", "HEAD", "200"): 1,
    }
    assert {key: found.count for key, found in counts.durations.read().items()} == {
        ("/jobs/{job_id}", "GET"): 20,
        ("other", "GET"): 20,
        ("/jobs", "other"): 20,
        ("/jobs", "HEAD"): 1,
    }


def test_a_request_that_nobody_answered_is_counted_and_not_timed() -> None:
    counts = RequestCounts()
    with pytest.raises(ConnectionError):
        answered(counts, path="/jobs", method="GET", status=None)
    assert (counts.requests.read(), counts.durations.read()) == ({("/jobs", "GET", "none"): 1}, {})


def test_a_request_that_is_kept_open_is_counted_and_not_timed() -> None:
    counts = RequestCounts()
    streams = OpenStreams(5, Counter())

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        scope["route"] = SimpleNamespace(path="/events")
        with streams.open(scope):
            assert streams.by_route() == {"/events": 1}
            await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive() -> Any:
        raise AssertionError

    asyncio.run(CountedRequests(app, counts)({"type": "http", "method": "GET"}, receive, _send))
    assert (counts.requests.read(), counts.durations.read()) == ({("/events", "GET", "200"): 1}, {})
    assert (streams.by_route(), len(streams)) == ({"/events": 0}, 0)

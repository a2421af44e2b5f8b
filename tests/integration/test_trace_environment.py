"""What the tools of a job are told of its trace, so that they can go on with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from runner.access import OPERATOR
from runner.jobs import JobSpec, JobStatus
from runner.trace_context import TraceContext, span_id_of, trace_id_of
from tests.support.engines import snakemake_command
from tests.support.otlp import receiver
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.support.runners import Hold, RunningRunner

CALLER = TraceContext("ab" * 16, "cd" * 8, 1, "vendor=value")
SNAKEMAKE = snakemake_command()
SNAKEFILE = """
rule all:
    shell: "env | grep -E '^(TRACE|BAGGAGE)' | sort > told.txt"
"""


@pytest.fixture(params=[True, False], ids=["warm", "cold"])
def warm_start(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def environment_of_a_child(job_id: str) -> Mapping[str, str]:
    """Of something that the engine has started."""
    marker = {"SNAKELINE_JOB_ID": job_id}

    def look() -> Mapping[str, str] | None:
        for process in psutil.process_iter(["name"]):
            if process.info["name"] == "sleep":
                try:
                    environment = process.environ()
                except psutil.Error:
                    continue
                if marker.items() <= environment.items():
                    return environment
        return None

    found = wait_until(look, timeout_s=20, what="a child of the job")
    assert found is not None
    return found


def told_of(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(("TRACE", "BAGGAGE"))}


@pytest.mark.parametrize("traces", ["off", "otlp"])
def test_what_the_stand_in_starts_knows_the_trace(
    open_runner: Callable[..., RunningRunner],
    hold: Hold,
    traces: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    warm_start: bool,
) -> None:
    with receiver() as told:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", told.url)
        monkeypatch.setenv("TRACEPARENT", "00-of-the-service-itself")
        runner = open_runner(traces=traces, warm_start=warm_start)
        spec = JobSpec(parameters={"mock": {"hold": hold.path, "spawn_children": 1}})
        job = runner.service.submit(spec, caller=replace(OPERATOR, trace=CALLER)).result(10).job
        own = span_id_of(job.id, 1, "run")
        assert told_of(environment_of_a_child(job.id)) == {
            "TRACEPARENT": f"00-{CALLER.trace_id}-{own if traces == 'otlp' else CALLER.span_id}-01",
            "TRACESTATE": "vendor=value",
        }
        hold.release()
        assert runner.ended(job).status is JobStatus.COMPLETED
        if traces == "otlp":
            wait_until(lambda: "run" in told.of_trace(CALLER.trace_id), timeout_s=20, what="the span")
            assert told.of_trace(CALLER.trace_id)["run"][0].span_id == own


def test_without_a_trace_there_is_nothing_to_know(
    open_runner: Callable[..., RunningRunner],
    hold: Hold,
    monkeypatch: pytest.MonkeyPatch,
    *,
    warm_start: bool,
) -> None:
    monkeypatch.setenv("TRACEPARENT", "00-of-the-service-itself")
    runner = open_runner(warm_start=warm_start)
    job = runner.submit(hold=hold.path, spawn_children=1)
    assert told_of(environment_of_a_child(job.id)) == {}
    hold.release()
    runner.ended(job)


@pytest.mark.snakemake
@pytest.mark.skipif(SNAKEMAKE is None, reason="real Snakemake is not installed: make snakemake-env")
def test_a_rule_of_real_snakemake_knows_the_trace(
    open_runner: Callable[..., RunningRunner],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    warm_start: bool,
) -> None:
    workflow = tmp_path / "workflows" / "told"
    workflow.mkdir(parents=True)
    (workflow / "Snakefile").write_text(SNAKEFILE)
    with receiver() as told:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", told.url)
        runner = open_runner(
            engine="snakemake",
            snakemake=SNAKEMAKE,
            workflows_dir=tmp_path / "workflows",
            warm_start=warm_start,
            traces="otlp",
        )
        job = runner.ended(runner.submit(JobSpec(workflow="told")), timeout_s=60)
        assert job.status is JobStatus.COMPLETED, job.error_message
        lines = (runner.work_dir(job) / "told.txt").read_text().splitlines()
        own = span_id_of(job.id, 1, "run")
        assert lines == [f"TRACEPARENT=00-{trace_id_of(job.id)}-{own}-03"]
        wait_until(lambda: "run" in told.of_trace(trace_id_of(job.id)), timeout_s=20, what="the span")
        assert told.of_trace(trace_id_of(job.id))["run"][0].span_id == own

"""Traces of jobs, from a runner to a receiver: what arrives, and what a receiver that is away costs."""

from __future__ import annotations

import os
import random
import socket
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog

from runner.access import OPERATOR
from runner.checkup import check
from runner.errors import TracesUnavailable
from runner.job_traces import FILE, OFFERED_FOR_S
from runner.jobs import JobSpec, JobStatus
from runner.trace_context import TraceContext, trace_id_of
from runner.tracing import exporter_of
from tests.support.otlp import Receiver, receiver
from tests.support.runners import settings_for
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runner.health import Check
    from runner.jobs import Job
    from tests.support.otlp import ToldSpan
    from tests.support.runners import RunningRunner

ALL = {"submit", "job demo", "queue", "launch", "run", "exit"}


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with receiver() as made:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", made.url)
        yield made


@pytest.fixture
def runner(told: Receiver, open_runner: Callable[..., RunningRunner]) -> RunningRunner:
    return open_runner(traces="otlp")


def spans_of(told: Receiver, job: Job, names: set[str] = ALL) -> dict[str, list[ToldSpan]]:
    trace_id = trace_id_of(job.id)

    def complete() -> dict[str, list[ToldSpan]] | None:
        found = told.of_trace(trace_id)
        return found if names <= set(found) else None

    found = wait_until(complete, timeout_s=20, what=f"the spans {names} of {job.id}")
    assert found is not None
    return found


def note(runner: RunningRunner) -> int:
    return int((runner.settings.data_dir / FILE).read_text())


def closed_port() -> int:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_a_job_arrives_as_one_trace_and_nothing_of_its_parameters(
    runner: RunningRunner, told: Receiver
) -> None:
    job = runner.ended(
        runner.submit(
            JobSpec(parameters={"greeting": "hunter2", "mock": {"exit_code": 3}}, name="secret-name")
        )
    )
    found = spans_of(told, job)
    assert {name: len(spans) for name, spans in found.items()} == dict.fromkeys(ALL, 1)
    (submit,), (attempt,), (run,) = found["submit"], found["job demo"], found["run"]
    assert (submit.parent_id, attempt.parent_id, run.parent_id) == ("", submit.span_id, attempt.span_id)
    assert (run.is_error, run.message, submit.is_error) == (True, "exited_nonzero", False)
    assert run.attributes["snakeline.job.exit_code"] == 3
    assert run.resource["service.name"] == "snakeline"
    assert not [raw for raw in told.raw if b"hunter2" in raw or b"secret-name" in raw]
    assert set(told.paths) == {"/v1/traces"}


def test_a_retry_is_another_attempt_of_the_same_trace(runner: RunningRunner, told: Receiver) -> None:
    job = runner.ended(runner.submit(JobSpec(max_retries=1), exit_code=1))
    assert job.attempt == 2
    runner.service.retry(job.id)
    runner.wait_for(job, lambda now: now.attempt >= 3 and now.status.is_terminal)

    def attempts() -> bool:
        runs = told.of_trace(trace_id_of(job.id)).get("run", [])
        return [run.attributes["snakeline.job.attempt"] for run in runs][:3] == [1, 2, 3]

    wait_until(attempts, timeout_s=20, what="the runs of three attempts")
    assert len(told.of_trace(trace_id_of(job.id))["submit"]) == 1


def test_who_asks_with_a_trace_gets_the_job_in_it(runner: RunningRunner, told: Receiver) -> None:
    caller = replace(OPERATOR, trace=TraceContext("ab" * 16, "cd" * 8, 1))
    unsampled = replace(OPERATOR, trace=TraceContext("ef" * 16, "cd" * 8, 0))
    quiet = runner.service.submit(JobSpec(), caller=unsampled).result(10).job
    job = runner.service.submit(JobSpec(), caller=caller).result(10).job
    runner.ended(quiet)
    runner.ended(job)
    wait_until(lambda: set(told.of_trace("ab" * 16)) >= ALL, timeout_s=20, what="the spans")
    assert [span.parent_id for span in told.of_trace("ab" * 16)["submit"]] == ["cd" * 8]
    wait_until(lambda: note(runner) == runner.service.news.newest(), timeout_s=20, what="all to be looked at")
    assert told.of_trace("ef" * 16) == {}  # its caller does not tell it either


def test_spans_that_nobody_took_are_sent_by_the_next_service_and_once(
    told: Receiver, open_runner: Callable[..., RunningRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{closed_port()}/token-in-the-path")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2.5")
    with structlog.testing.capture_logs() as logs:
        runner = open_runner(traces="otlp")
        job = runner.ended(runner.submit())
        wait_until(
            lambda: "traces.not_sent" in [line["event"] for line in logs], timeout_s=20, what="the line"
        )
        began = time.monotonic()
        runner.restart(traces="off")
        assert time.monotonic() - began < 3
    (line,) = [line for line in logs if line["event"] == "traces.not_sent"]
    assert "Connection refused" in line["detail"]
    assert "token-in-the-path" not in str(logs)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", told.url)
    runner.restart(traces="otlp")
    spans_of(told, job)
    runner.restart()
    other = runner.ended(runner.submit())
    spans_of(told, other)
    assert {len(spans) for spans in told.of_trace(trace_id_of(job.id)).values()} == {1}


def test_a_receiver_that_never_answers_holds_up_neither_a_job_nor_the_end(
    open_runner: Callable[..., RunningRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(socket.socket()) as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen(8)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{mute.getsockname()[1]}")
        runner = open_runner(traces="otlp")
        for _ in range(3):
            assert runner.ended(runner.submit()).status is JobStatus.COMPLETED
        connection, _ = mute.accept()  # it is being sent
        began = time.monotonic()
        runner.restart(traces="off")
        assert time.monotonic() - began < 4
        connection.close()


def test_what_is_answered_with_trouble_is_sent_again_and_what_is_refused_is_not(
    runner: RunningRunner, told: Receiver
) -> None:
    told.answers = [503, 503]
    job = runner.ended(runner.submit())
    spans_of(told, job)
    told.answers = [400]
    with structlog.testing.capture_logs() as logs:
        runner.ended(runner.submit())
        wait_until(lambda: "traces.refused" in str(logs), timeout_s=20, what="the line")
    later = runner.ended(runner.submit())
    spans_of(told, later)


def test_each_time_that_a_receiver_is_away_is_told_once(runner: RunningRunner, told: Receiver) -> None:
    def lines(*events: str) -> list[str]:
        return [line["event"] for line in logs if line["event"] in events]

    with structlog.testing.capture_logs() as logs:
        told.answers = [401, 401, 400]  # away, then back and not content
        runner.ended(runner.submit())
        wait_until(lambda: lines("traces.refused"), timeout_s=20, what="the line")
        told.answers = [401]
        spans_of(told, runner.ended(runner.submit()))
        wait_until(lambda: lines("traces.sent_again"), timeout_s=20, what="the line")
    told_of = lines("traces.not_sent", "traces.refused", "traces.sent_again")
    assert told_of == ["traces.not_sent", "traces.refused", "traces.not_sent", "traces.sent_again"]


def test_what_is_older_than_an_hour_is_not_offered_any_more(
    told: Receiver, open_runner: Callable[..., RunningRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{closed_port()}")
    runner = open_runner(traces="otlp")
    old = runner.ended(runner.submit())
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", told.url)
    now = time.time
    monkeypatch.setattr("runner.job_traces.time.time", lambda: now() + OFFERED_FOR_S + 60)
    runner.restart()
    wait_until(lambda: note(runner) == runner.service.news.newest(), timeout_s=20, what="all to be looked at")
    assert told.of_trace(trace_id_of(old.id)) == {}


def test_jobs_from_before_the_first_start_with_traces_are_left_alone(
    told: Receiver, open_runner: Callable[..., RunningRunner]
) -> None:
    runner = open_runner()
    before = runner.ended(runner.submit())
    assert before.trace is None
    runner.restart(traces="otlp")
    job = runner.ended(runner.submit())
    spans_of(told, job)
    assert {span.trace_id for span in told.spans} == {trace_id_of(job.id)}


def test_the_usual_variables_say_where_to_with_what_and_who(
    told: Receiver, open_runner: Callable[..., RunningRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{told.url}/here")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=k1")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "pipelines")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
    runner = open_runner(traces="otlp")
    spans = spans_of(told, runner.ended(runner.submit()))
    assert set(told.paths) == {"/here"}
    assert {headers["api-key"] for headers in told.headers} == {"k1"}
    resource = spans["run"][0].resource
    assert (resource["service.name"], resource["deployment.environment"]) == ("pipelines", "test")


def test_the_usual_sampler_decides_which_jobs_are_told(
    told: Receiver, open_runner: Callable[..., RunningRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    runner = open_runner(traces="otlp")
    job = runner.ended(runner.submit())
    assert job.trace is not None
    assert not job.trace.is_told
    wait_until(lambda: note(runner) == runner.service.news.newest(), timeout_s=20, what="all to be looked at")
    assert told.spans == []


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_of_a_share_of_jobs_as_many_are_told(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though an id that begins with a time has fewer random digits than a sampler looks at."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", str(share))
    exporter = exporter_of(settings_for(Path("/nowhere"), traces="otlp"))
    assert exporter is not None
    made = random.Random(7)
    ids = [f"01a21ed18f5e7{made.randrange(16**3):03x}{8 + made.randrange(4):x}" for _ in range(1000)]
    ids = [f"{begin}{made.randrange(16**15):015x}" for begin in ids]  # as a UUIDv7 is made
    with closing(exporter):
        told = [exporter.is_sampled(each, None, "submit") for each in ids]
        assert told == [exporter.is_sampled(each, None, "submit") for each in ids]
    assert abs(told.count(True) / len(ids) - share) < 0.05


def test_the_usual_switch_turns_it_off(
    told: Receiver, open_runner: Callable[..., RunningRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert exporter_of(settings_for(Path("/nowhere"), traces="otlp")) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "soon"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318/hunter2"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://collector/hunter2"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http:///hunter2"),
    ],
)
def test_variables_that_cannot_be_used_are_told_in_one_line(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(TracesUnavailable, match="OTEL_") as caught:
        exporter_of(settings_for(Path("/nowhere"), traces="otlp"))
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_without_the_extra_the_start_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "runner.otlp_export", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(TracesUnavailable, match=r"pip install 'snakeline\[server,otel\]'"):
        exporter_of(settings_for(Path("/nowhere"), traces="otlp"))


def test_a_full_disk_costs_the_note_and_nothing_else(
    runner: RunningRunner, told: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.unlink(runner.settings.data_dir / FILE)
    os.mkdir(runner.settings.data_dir / FILE)
    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            spans_of(told, runner.ended(runner.submit()))
    assert [line["event"] for line in logs].count("traces.not_noted") == 1


def test_the_check_says_whether_traces_can_be_sent(
    told: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def checked(**changes: str) -> list[Check]:
        return [each for each in check(settings_for(tmp_path / "data", **changes)) if each.name == "traces"]

    assert checked() == []
    assert [each.ok for each in checked(traces="otlp")] == [True]
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "hunter2")
    (bad,) = checked(traces="otlp")
    assert not bad.ok
    assert "hunter2" not in bad.detail
    assert told.spans == []

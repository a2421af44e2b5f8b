"""Traces of the whole service: over HTTP, through a kill -9, and with the secrets of those who call."""

from __future__ import annotations

import secrets
import subprocess
import sys
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from runner.trace_context import trace_id_of
from tests.support.otlp import Receiver, receiver
from tests.support.runners import Hold
from tests.support.server import LiveServer, running_server, service_environment
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CALLER = {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01", "tracestate": "vendor=value"}
ALL = ["submit", "job demo", "queue", "launch", "run", "exit"]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with receiver() as made:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", made.url)
        yield made


def submit(server: LiveServer, mock: dict[str, Any], **headers: str) -> str:
    answer = server.client.post("/jobs", json={"parameters": {"mock": mock}}, headers=headers)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def arrived(told: Receiver, trace_id: str) -> None:
    wait_until(lambda: set(told.of_trace(trace_id)) >= set(ALL), timeout_s=20, what=f"trace {trace_id}")


def test_a_trace_goes_on_through_a_kill_9_of_the_service(tmp_path: Path, told: Receiver) -> None:
    in_run, in_queue = Hold(tmp_path, "run"), Hold(tmp_path, "queue")
    first = LiveServer(tmp_path, {"TRACES": "otlp", "MAX_CORES": "1"})
    running = submit(first, {"hold": in_run.path}, **CALLER)
    waiting = submit(first, {"hold": in_queue.path})
    log = first.data_dir / "jobs" / running / "attempts/1/log.0"
    wait_until(lambda: log.exists() and log.stat().st_size, timeout_s=30, what="the engine to run")
    first.process.kill()
    first.process.wait(10)
    first.client.close()
    in_run.release()  # it ends while there is no service
    assert told.spans == []
    with running_server(tmp_path, TRACES="otlp", MAX_CORES="1") as second:
        second.client.wait_for(running, "completed")
        in_queue.release()
        second.client.wait_for(waiting, "completed")
        for trace_id, parent in (("ab" * 16, "cd" * 8), (trace_id_of(waiting), "")):
            arrived(told, trace_id)
            spans = {name: one for name, (one,) in told.of_trace(trace_id).items()}  # each is told once
            assert set(spans) == set(ALL)
            assert spans["submit"].parent_id == parent
            assert spans["job demo"].parent_id == spans["submit"].span_id
            assert {spans[name].parent_id for name in ALL[2:]} == {spans["job demo"].span_id}
            for earlier, later in pairwise(ALL[2:]):
                assert spans[earlier].end == spans[later].start
            assert spans["run"].attributes["snakeline.job.exit_code"] == 0
        assert told.of_trace("ab" * 16)["exit"][0].state == "vendor=value"


def test_nothing_but_jobs_is_told_and_nothing_that_is_secret(
    tmp_path: Path, told: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")  # the framework's own, which tells of queries
    planted = {
        name: f"planted{secrets.token_hex(12)}" for name in ("value", "query", "header", "name", "baggage")
    }
    with running_server(tmp_path, TRACES="otlp", LOG_LEVEL="debug") as server:
        job = server.client.post(
            "/jobs",
            json={"name": planted["name"], "parameters": {"greeting": planted["value"]}},
            headers={"Authorization": planted["header"], "baggage": f"k={planted['baggage']}", **CALLER},
        ).json()
        server.client.get(f"/jobs/{job['id']}?access_token={planted['query']}")
        server.client.get(f"/jobs?q={planted['query']}")
        server.client.wait_for(job["id"], "completed")
        arrived(told, "ab" * 16)
    assert server.process.returncode == 0
    sent = b"".join(told.raw)
    assert [name for name, secret in planted.items() if secret.encode() in sent or secret in server.log] == []
    assert set(told.paths) == {"/v1/traces"}
    assert {span.name for span in told.spans} == set(ALL)


def test_without_traces_nothing_of_the_extra_is_imported() -> None:
    look = (
        "import sys, api.server, runner.bootstrap;"
        "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', "
        "'opentelemetry.exporter', 'google.protobuf', 'requests'))], 'runner.otlp_export' in sys.modules)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", look], env=service_environment({}), capture_output=True, text=True, check=True
    )
    assert ended.stdout == "[] False\n"


def test_a_service_without_the_extra_says_what_to_install(tmp_path: Path) -> None:
    start = (
        "import sys; sys.modules['opentelemetry.exporter.otlp.proto.http.trace_exporter'] = None;"
        "sys.argv[1:] = ['serve']; from snakeline.cli import main; main()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", start],
        env=service_environment({"TRACES": "otlp", "PORT": "0", "DATA_DIR": str(tmp_path / "data")}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith("snakeline: SNAKELINE_TRACES=otlp needs the extra")

"""The lines of requests, as the settings want them."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

from api.settings import load_settings
from tests.integration.test_api_errors import UNKNOWN_ID
from tests.support.server import running_server
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.server import LiveServer


def ask(server: LiveServer, path: str, name: str) -> None:
    server.client.get(path, headers={"X-Request-ID": name})


def requests(server: LiveServer) -> dict[str, dict[str, Any]]:
    lines = [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]
    return {line["request_id"]: line for line in lines if line["event"] == "request"}


def test_of_polls_that_go_well_none_need_be_logged_and_what_fails_is(tmp_path: Path) -> None:
    with running_server(tmp_path, ACCESS_LOG_SHARE="0", ACCESS_LOG_SLOW_S="60") as server:
        ask(server, "/jobs", "well")
        ask(server, f"/jobs/{UNKNOWN_ID}", "missing")
        wait_until(lambda: "missing" in requests(server), what="the line")
        job = server.client.run()
        ask(server, f"/jobs/{job['id']}", "ended already")
        server.client.get(
            f"/jobs/{job['id']}/logs", headers={"Range": "bytes=9999999-", "X-Request-ID": "beyond"}
        )
        wait_until(lambda: "beyond" in requests(server), what="the line")
        assert set(requests(server)) == {"missing", "beyond"}
        line = requests(server)["missing"]
        assert (line["job_id"], line["route"], line["status"]) == (UNKNOWN_ID, "/jobs/{job_id}", 404)


def test_a_slow_answer_is_logged_and_what_is_slow_can_be_said(tmp_path: Path) -> None:
    with running_server(tmp_path, ACCESS_LOG_SHARE="0", ACCESS_LOG_SLOW_S="0.4", MAX_CORES="1") as server:
        server.client.submit(parameters={"mock": {"seconds": 30}})
        job = server.client.submit()  # waits, and nothing changes
        etag = server.client.get(f"/jobs/{job['id']}").headers["ETag"]
        server.client.get(
            f"/jobs/{job['id']}?wait=1", headers={"If-None-Match": etag, "X-Request-ID": "waited"}
        )
        wait_until(lambda: "waited" in requests(server), what="the line")
        assert requests(server)["waited"]["ms"] >= 400


def test_a_request_that_was_sent_behind_another_one_has_nothing_of_it_on_its_line(tmp_path: Path) -> None:
    first = f"GET /jobs/{UNKNOWN_ID} HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: first\r\n"
    first += f"traceparent: 00-{'ab' * 16}-{'cd' * 8}-01\r\n\r\n"
    second = "GET /workflows HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: second\r\n\r\n"
    with running_server(tmp_path) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall((first + second).encode())
            wait_until(lambda: "second" in requests(server), what="both lines")
        lines = requests(server)
        assert (lines["first"]["job_id"], lines["first"]["trace_id"]) == (UNKNOWN_ID, "ab" * 16)
        assert not {"job_id", "trace_id"} & lines["second"].keys()


def test_the_settings_of_the_log_are_taken_in_any_case() -> None:
    settings = load_settings({"SNAKELINE_LOG_FORMAT": "JSON", "SNAKELINE_TRACES": "OTLP"})
    assert (settings.log_format, settings.traces, settings.runner().traces) == ("json", "otlp", "otlp")
    assert (settings.access_log_share, settings.access_log_slow_s) == (1, 1)

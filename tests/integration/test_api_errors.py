"""Every error over HTTP is a problem document, whoever raises it."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from api.settings import load_settings
from runner.bootstrap import build_runner
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from api.settings import ServiceSettings
    from runner.bootstrap import Runner
    from tests.support.client import ContractClient
    from tests.support.server import LiveServer

MIB = 2**20
UNKNOWN_ID = "01a20caf-bf68-7481-9aa6-3e49ab222ca6"
JSON = {"Content-Type": "application/json"}


def exchange(url: str, *parts: bytes) -> bytes:
    """Send bytes as they are; everything that comes back until the server closes."""
    address = urlsplit(url)
    with socket.create_connection((str(address.hostname), address.port), timeout=20) as connection:
        for part in parts:
            connection.sendall(part)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return answer


@pytest.mark.parametrize(
    ("method", "path", "status", "slug"),
    [
        ("GET", "/nope", 404, "not-found"),
        ("GET", "/jobs/", 404, "not-found"),
        ("GET", "/docs/../app.py", 404, "not-found"),
        ("DELETE", "/jobs", 405, "method-not-allowed"),
        ("PUT", "/jobs/x", 405, "method-not-allowed"),
        ("PATCH", "/healthz", 405, "method-not-allowed"),
        ("OPTIONS", "/jobs", 405, "method-not-allowed"),
        ("GET", "/jobs/01a20caf-bf68-7481-9aa6-3e49ab222ca6", 404, "job-not-found"),
        ("GET", "/workflows/nope", 404, "workflow-not-found"),
        ("GET", "/jobs?cursor=x", 400, "invalid-cursor"),
        ("GET", "/jobs?limit=x", 422, "invalid-request"),
    ],
)
def test_an_error_of_the_framework_is_a_problem_document(
    client: ContractClient, method: str, path: str, status: int, slug: str
) -> None:
    answer = client.request(method, path)
    problem = answer.json()
    assert (answer.status_code, problem["type"], problem["status"]) == (status, slug, status)
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("/jobs", "GET, HEAD, POST"),
        ("/jobs/x", "DELETE, GET, HEAD"),
        ("/jobs/x/cancel", "POST"),
        ("/docs", "GET, HEAD"),
    ],
)
def test_a_method_that_is_not_allowed_is_told_which_are(
    client: ContractClient, path: str, allow: str
) -> None:
    answer = client.request("PUT", path)
    assert answer.headers["allow"] == allow
    assert allow in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/jobs", "/workflows", "/docs", "/openapi.json"])
def test_head_answers_where_get_does(client: ContractClient, path: str) -> None:
    head, get = client.head(path), client.get(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == get.headers["content-length"]


def test_the_body_of_a_get_is_ignored(client: ContractClient) -> None:
    assert client.request("GET", "/healthz", content=b"{" * 2 * MIB).status_code == 200


class TestUnknownParameters:
    @pytest.mark.parametrize(
        ("method", "path", "name"),
        [
            ("POST", "/jobs?dry_run=true", "dry_run"),
            ("POST", f"/jobs/{UNKNOWN_ID}/cancel?force=1", "force"),
            ("POST", f"/jobs/{UNKNOWN_ID}/retry?x=", "x"),
            ("DELETE", f"/jobs/{UNKNOWN_ID}?force=1", "force"),
            ("GET", f"/jobs/{UNKNOWN_ID}?fields=id", "fields"),
            ("GET", f"/jobs/{UNKNOWN_ID}/logs?lines=3", "lines"),
            ("GET", "/workflows?limit=1", "limit"),
            ("GET", "/workflows/demo?x=1", "x"),
            ("GET", "/jobs?limit=1&limit=2", "limit"),
            ("GET", "/jobs?workflow=demo&workflow=failing", "workflow"),
            ("GET", f"/jobs/{UNKNOWN_ID}?wait=1&wait=2", "wait"),
            ("GET", f"/jobs/{UNKNOWN_ID}/logs?tail=1&tail=2", "tail"),
        ],
    )
    def test_one_that_would_be_ignored_is_422_and_named(
        self, client: ContractClient, method: str, path: str, name: str
    ) -> None:
        answer = client.request(method, path, json={} if path.startswith("/jobs?dry") else None)
        assert (answer.status_code, answer.json()["type"]) == (422, "invalid-request")
        assert [error["parameter"] for error in answer.json()["errors"]] == [name]

    def test_the_repeatable_ones_are_taken(self, client: ContractClient) -> None:
        answer = client.get("/jobs?status=failed&status=running&label=a:1&label=b:2&limit=1")
        assert answer.status_code == 200

    @pytest.mark.parametrize("path", ["/healthz?now=1", "/readyz?now=1"])
    def test_probes_may_send_what_they_like(self, client: ContractClient, path: str) -> None:
        assert client.get(path).status_code == 200


class TestSubmission:
    @pytest.mark.parametrize("encoding", ["gzip", "br", "x"])
    def test_an_encoded_body_is_415(self, client: ContractClient, encoding: str) -> None:
        answer = client.post("/jobs", content=b"{}", headers={**JSON, "Content-Encoding": encoding})
        assert (answer.status_code, answer.json()["type"]) == (415, "unsupported-media-type")
        assert answer.headers["accept-encoding"] == "identity"

    def test_a_body_that_says_it_is_not_encoded_is_taken(self, client: ContractClient) -> None:
        headers = {**JSON, "Content-Encoding": "identity"}
        assert client.post("/jobs", content=b"{}", headers=headers).status_code == 201

    def test_a_client_that_breaks_off_is_no_error_of_ours(self, server: LiveServer) -> None:
        address, name = urlsplit(server.url), uuid4().hex
        with socket.create_connection((str(address.hostname), address.port)) as half:
            half.sendall(
                b"POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n"
                b"X-Request-ID: %b\r\n\r\n{" % name.encode()
            )
        wait_until(lambda: name in server.log, what="the request's line")
        [line] = [line for line in server.log.splitlines() if name in line]
        assert (json.loads(line)["level"], json.loads(line)["status"]) == ("info", 400)

    @pytest.mark.parametrize("body", ["[]", "null", '"x"', "1"])
    def test_what_is_no_object_is_told_so_in_words_of_json(self, client: ContractClient, body: str) -> None:
        answer = client.post("/jobs", content=body, headers=JSON)
        assert answer.json()["errors"] == [{"pointer": "", "detail": "must be a JSON object"}]

    @pytest.mark.parametrize(
        "content_type", ["text/plain", "application/x-www-form-urlencoded", "", "json", None]
    )
    def test_another_content_type_is_415(self, client: ContractClient, content_type: str | None) -> None:
        headers = {} if content_type is None else {"Content-Type": content_type}
        answer = client.post("/jobs", content=b"{}", headers=headers)
        assert (answer.status_code, answer.json()["type"]) == (415, "unsupported-media-type")

    @pytest.mark.parametrize(
        "content_type", ["application/json; charset=utf-8", "Application/JSON", "application/vnd.x+json"]
    )
    def test_json_by_any_of_its_names_is_taken(self, client: ContractClient, content_type: str) -> None:
        assert client.post("/jobs", content=b"{}", headers={"Content-Type": content_type}).status_code == 201

    @pytest.mark.parametrize("body", [b"", b"{", b"{} x", b'{"parameters": {"a": NaN}}', b'{"a": "\\ud800"}'])
    def test_what_is_not_json_is_400(self, client: ContractClient, body: bytes) -> None:
        answer = client.post("/jobs", content=body, headers=JSON)
        assert (answer.status_code, answer.json()["type"]) == (400, "malformed-json")

    @pytest.mark.parametrize(
        ("body", "pointer"),
        [
            ({"workflow": "nope"}, "/workflow"),
            ({"workflow": "../demo"}, "/workflow"),
            ({"parameters": {"nope": 1}}, "/parameters/nope"),
            ({"parameters": {"count": "7"}}, "/parameters/count"),
            ({"parameters": {"mock": {"seconds": "x"}}}, "/parameters/mock/seconds"),
            ({"targets": ["--snakefile=/etc/passwd"]}, "/targets/0"),
            ({"targets": ["results/../../x"]}, "/targets/0"),
            ({"targets": ["a;b"]}, "/targets/0"),
            ({"options": {"jobscript": "x"}}, "/options/jobscript"),
            ({"cores": 1000}, "/cores"),
            ({"cores": "1"}, "/cores"),
            ({"priority": True}, "/priority"),
            ({"surprise": 1}, "/surprise"),
            ({"name": "a\0b"}, "/name"),
        ],
    )
    def test_what_cannot_be_run_is_422_with_a_pointer(
        self, client: ContractClient, body: dict[str, object], pointer: str
    ) -> None:
        answer = client.post("/jobs", json=body)
        assert answer.status_code == 422, answer.text
        assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]

    def test_a_body_of_a_mebibyte_is_read_and_one_byte_more_is_413(self, client: ContractClient) -> None:
        most = b'{"name": "' + b"x" * (MIB - 12) + b'"}'
        assert len(most) == MIB
        assert client.post("/jobs", content=most, headers=JSON).status_code == 422
        answer = client.post("/jobs", content=most + b" ", headers=JSON)
        assert (answer.status_code, answer.json()["type"]) == (413, "body-too-large")

    def test_a_body_in_chunks_is_counted(self, client: ContractClient) -> None:
        answer = client.post("/jobs", content=iter([b" " * 2**16] * 17), headers=JSON)
        assert (answer.status_code, answer.json()["type"]) == (413, "body-too-large")

    def test_a_body_announced_too_large_is_refused_before_it_is_sent(self, server: LiveServer) -> None:
        answer = exchange(
            server.url,
            b"POST /jobs HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
            b"Content-Length: 1000000000\r\n\r\n",
        )
        assert answer.startswith(b"HTTP/1.1 413 ")


class TestRequestId:
    def test_a_sane_one_is_kept(self, client: ContractClient) -> None:
        answer = client.get("/healthz", headers={"X-Request-ID": "trace-1.2_A"})
        assert answer.headers["x-request-id"] == "trace-1.2_A"

    @pytest.mark.parametrize("given", ["", "x" * 129, "a b", "a\tb", '"; drop', "é"])
    def test_any_other_is_replaced(self, client: ContractClient, given: str) -> None:
        answer = client.get("/nope", headers={b"X-Request-ID": given.encode()})
        assert len(answer.headers["x-request-id"]) == 32

    def test_the_log_has_it_with_the_route_and_without_the_query(self, server: LiveServer) -> None:
        server.client.get("/jobs?q=hush", headers={"X-Request-ID": "find-me"})
        found = wait_until(lambda: server.log if "find-me" in server.log else "", what="the line")
        lines = [json.loads(line) for line in found.splitlines() if "find-me" in line]
        assert [(line["route"], line["method"], line["status"]) for line in lines] == [("/jobs", "GET", 200)]
        assert "hush" not in server.log


class TestUnparsableRequests:
    @pytest.mark.parametrize(
        "request_", [b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"GET /\x00 HTTP/1.1\r\n\r\n", b"NOPE\r\n\r\n"]
    )
    def test_what_is_not_http_is_a_problem_document_too(self, server: LiveServer, request_: bytes) -> None:
        answer = exchange(server.url, request_)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"application/problem+json" in answer
        name = answer.partition(b"\r\nx-request-id: ")[2].partition(b"\r\n")[0].decode()
        assert name
        wait_until(lambda: name in server.log, what="the log to have it, too")

    def test_a_head_that_does_not_end_is_431(self, server: LiveServer) -> None:
        answer = exchange(server.url, b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: ", b"x" * 70_000)
        assert answer.startswith(b"HTTP/1.1 431 ")
        assert b"head-too-large" in answer


@pytest.fixture
def in_memory(tmp_path: Path) -> ServiceSettings:
    return load_settings(
        {"SNAKELINE_DATA_DIR": str(tmp_path / "data"), "SNAKELINE_DATABASE_URL": "memory://"}
    )


@pytest.fixture
def wired(in_memory: ServiceSettings) -> Iterator[Runner]:
    runner = build_runner(in_memory.runner())
    yield runner
    runner.close()


@pytest.fixture
def broken(wired: Runner, in_memory: ServiceSettings) -> Iterator[TestClient]:
    """The application in this process, with a route that fails as no route should."""
    app = create_app(wired, in_memory)

    @app.get("/broken")
    async def broken_route() -> None:
        raise RuntimeError("the secret is hunter2")

    with TestClient(app) as client:
        yield client


def test_an_unexpected_error_is_500_and_tells_nothing(broken: TestClient) -> None:
    answer = broken.get("/broken", headers={"X-Request-ID": "abc"})
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "abc"
    assert answer.json()["type"] == "internal-error"
    assert "hunter2" not in answer.text


def test_a_stopping_service_takes_no_jobs_and_is_not_ready(broken: TestClient, wired: Runner) -> None:
    broken.app.stop.set()  # type: ignore[attr-defined]
    wired.service.drain()
    answer = broken.post("/jobs", json={})
    assert (answer.status_code, answer.json()["type"]) == (503, "shutting-down")
    assert int(answer.headers["retry-after"]) > 0
    ready = broken.get("/readyz")
    assert (ready.status_code, ready.json()["type"]) == (503, "not-ready")
    assert {check["name"] for check in ready.json()["checks"] if not check["ok"]} >= {"accepting"}
    assert ready.json()["engine"]["is_mock"] is True


def test_a_disk_without_room_is_507_and_accepts_nothing(tmp_path: Path) -> None:
    settings = load_settings(
        {"SNAKELINE_DATA_DIR": str(tmp_path / "data"), "SNAKELINE_DATABASE_URL": "memory://"}
    )
    runner = build_runner(settings.runner().model_copy(update={"min_free_bytes": 2**62}))
    with TestClient(create_app(runner, settings)) as client:
        answer = client.post("/jobs", json={})
        assert (answer.status_code, answer.json()["type"]) == (507, "storage-full")
        assert client.get("/jobs").json()["total"] == 0
    runner.close()

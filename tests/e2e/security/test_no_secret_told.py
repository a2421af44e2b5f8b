"""What callers send in confidence is told to nobody: not in the log, not in an answer, not at debug level."""

from __future__ import annotations

import json
import secrets
from itertools import product
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from api.settings import SettingsError, load_settings
from tests.integration.test_api_errors import UNKNOWN_ID, exchange
from tests.support.command import snakeline_with
from tests.support.keys import keyed_server
from tests.support.server import service_environment
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.keys import KeyedServer

# In `%s` there is a secret; the same one is never used in two places.
HEADERS = (
    {"Authorization": "Bearer %s"},
    {"Authorization": "Bearer snk_abcdefghij.%s"},
    {"Authorization": "Basic %s"},
    {"Authorization": "%s"},
    {"X-API-Key": "%s"},
    {"Cookie": "session=%s"},
    {"Proxy-Authorization": "Basic %s"},
    {"Idempotency-Key": "%s\x7f"},
    {"If-None-Match": "%s"},
    {"Content-Type": "text/%s"},
    {"X-Request-ID": "not sane: %s"},
    {"Host": "%s"},
)
REQUESTS = (
    ("GET", "/jobs"),
    ("POST", "/jobs"),
    ("GET", "/readyz"),
    ("GET", f"/jobs/{UNKNOWN_ID}/logs"),
    ("PUT", "/nope"),
)
ADDRESSES = (
    "/jobs?api_key=%s",
    "/jobs?access_token=%s",
    "/jobs?q=%s",
    "/jobs?limit=%s",
    "/jobs?cursor=%s",
    "/jobs?%s=1",
    "/jobs/%s",
    "/jobs/%s/logs",
    "/workflows/%s",
    "/docs/%s",
    "/%s",
)
BODIES = (
    '{"parameters": {"mock": "%s"}}',
    '{"workflow": "wordcount", "parameters": {"min_length": "%s"}}',
    '{"cores": "%s"}',
    '{"priority": ["%s"]}',
    '{"timeout_s": {"password": "%s"}}',
    '{"name": "%s", "labels": {"a": 1}}',
    '{"labels": {"a": "%s", "b": null}}',
    '["%s"]',
    '"%s"',
    '{"a": "%s"',
    "%s",
)
NO_HTTP = (
    b"%b\r\n\r\n",
    b"GET /%b\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX-A: %b\x00\r\n\r\n",
    b"GET http://user:%b@x/jobs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
)


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeyedServer]:
    with keyed_server(tmp_path_factory.mktemp("told"), LOG_LEVEL="debug") as running:
        yield running


class Planted:
    """Secrets of one test, and everything that was answered to them."""

    def __init__(self, url: str) -> None:
        self.client = httpx2.Client(base_url=url, trust_env=False, verify=False)
        self.places: dict[str, object] = {}
        self.answers: list[str] = []

    def secret(self, place: object) -> str:
        text = f"planted{secrets.token_hex(12)}"
        self.places[text] = place
        return text

    def keep(self, answer: httpx2.Response) -> None:
        self.answers.append(f"{answer.headers} {answer.text}")

    def found_in(self, *texts: str) -> list[object]:
        everything = "\n".join([*self.answers, *texts])
        return [place for secret, place in self.places.items() if secret in everything]


def send(keyed: KeyedServer, planted: Planted, method: str, path: str, **more: object) -> None:
    """With the operator's key, where the request brings none of its own."""
    headers = dict(more.pop("headers", {}))  # type: ignore[call-overload]
    if not {"Authorization", "X-API-Key"} & headers.keys():
        headers["Authorization"] = f"Bearer {keyed.first_key}"
    planted.keep(planted.client.request(method, path, headers=headers, **more))  # type: ignore[arg-type]


def by_headers(keyed: KeyedServer, planted: Planted) -> None:
    for (method, path), template in product(REQUESTS, HEADERS):
        headers = {name: value % planted.secret((path, name)) for name, value in template.items()}
        send(keyed, planted, method, path, headers=headers)


def by_addresses(keyed: KeyedServer, planted: Planted) -> None:
    for template in ADDRESSES:
        send(keyed, planted, "GET", template % planted.secret(template))


def by_bodies(keyed: KeyedServer, planted: Planted) -> None:
    for template in BODIES:
        content = template % planted.secret(template)
        send(keyed, planted, "POST", "/jobs", content=content, headers={"Content-Type": "application/json"})


def by_what_is_no_http(keyed: KeyedServer, planted: Planted) -> None:
    for template in NO_HTTP:
        planted.answers.append(
            exchange(keyed.server.url, template % planted.secret(template).encode()).decode("latin-1")
        )


# Where an answer repeats it to who has sent it, and nobody else sees it.
REPEATED = {"/jobs?%s=1", "/jobs/%s", "/jobs/%s/logs", "/workflows/%s"}


@pytest.mark.parametrize("way", [by_headers, by_addresses, by_bodies, by_what_is_no_http])
def test_a_secret_in_a_request_is_not_told(
    keyed: KeyedServer, way: Callable[[KeyedServer, Planted], None]
) -> None:
    planted = Planted(keyed.server.url)
    with planted.client:
        way(keyed, planted)
    pages = [
        keyed.admin.get(path).text for path in ("/metrics", "/readyz", "/audit?limit=500", "/keys", "/jobs")
    ]
    assert planted.found_in() == [place for place in planted.places.values() if place in REPEATED]
    planted.answers.clear()
    assert planted.found_in(keyed.server.log, *pages) == []


def test_the_keys_in_use_are_not_told(keyed: KeyedServer) -> None:
    key = keyed.key("read", "submit")
    client = keyed.client(key)
    job = client.run()
    answers = [
        client.get(path) for path in ("/jobs", f"/jobs/{job['id']}", f"/jobs/{job['id']}/logs", "/readyz")
    ]
    told = " ".join(
        [keyed.server.log.replace(keyed.first_key, "", 1), *[f"{a.headers}{a.text}" for a in answers]]
    )
    for secret in (key, keyed.first_key):
        assert secret.partition(".")[2] not in told
    lines = [json.loads(line) for line in keyed.server.log.splitlines() if line.startswith("{")]
    assert lines
    assert not [line for line in lines if {"path", "query", "headers", "url"} & line.keys()]


def run_with_password(directory: Path, command: list[str], url: str) -> tuple[str, str]:
    """The password in the store's address, and all that the command writes."""
    secret = f"planted{secrets.token_hex(12)}"
    (directory / "data").mkdir(parents=True)
    environment = service_environment(
        {"DATA_DIR": str(directory / "data"), "DATABASE_URL": url % secret, "PORT": "0", "LOG_LEVEL": "debug"}
    )
    ended = snakeline_with(environment, *command, cwd=directory)
    assert ended.returncode != 0
    assert ended.stdout + ended.stderr
    return secret, ended.stdout + ended.stderr


def test_the_password_of_the_store_is_not_told(tmp_path: Path) -> None:
    tried = [
        (["serve"], "postgresql+psycopg://snakeline:%s@127.0.0.1:1/snakeline"),
        (["check"], "postgresql+psycopg://127.0.0.1/snakeline?password=%s"),
        (["backup", "copy"], "postgresql+psycopg://snakeline:%s@[::1:1/snakeline"),
    ]
    for command, url in tried:
        secret, told = run_with_password(tmp_path / command[0], command, url)
        assert secret not in told


@pytest.mark.parametrize("url", ["mysql://root:%s@localhost/snakeline", "%s", "postgresql://snakeline:%s@db"])
def test_an_address_that_cannot_be_used_is_not_repeated(url: str) -> None:
    secret = f"planted{secrets.token_hex(12)}"
    with pytest.raises(SettingsError, match="SNAKELINE_DATABASE_URL") as caught:
        load_settings({"SNAKELINE_DATABASE_URL": url % secret})
    assert secret not in str(caught.value)


MOCK = (
    {"mock": {"exit_code": 0}},
    {"mock": {"exit_code": 3}},
    {"mock": {"signal": 9}},
)


def test_what_a_job_is_given_is_not_told_however_it_ends(keyed: KeyedServer) -> None:
    """Accepted, run, failed, timed out, cancelled, retried, planned, refused, with files: at debug level."""
    planted = Planted(keyed.server.url)
    client = keyed.client(keyed.key("read", "submit"))
    made: list[str] = []

    def job(place: str, **body: object) -> str:
        given = dict(body.pop("parameters", {}))  # type: ignore[call-overload]
        answer = client.post(
            "/jobs",
            json={
                "workflow": "demo",
                "name": planted.secret((place, "name")),
                "labels": {"key": planted.secret((place, "label"))},
                "targets": [planted.secret((place, "target"))],
                **body,
                "parameters": {"greeting": planted.secret((place, "parameter")), **given},
            },
            headers={
                "Idempotency-Key": planted.secret((place, "idempotency key")),
                "X-Custom": planted.secret((place, "header")),
                "Cookie": planted.secret((place, "cookie")),
                "tracestate": f"a={planted.secret((place, 'trace state'))}",
                "traceparent": f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01",
            },
        )
        assert answer.status_code == 201, answer.text
        made.append(answer.json()["id"])
        return made[-1]

    with planted.client:
        for parameters in MOCK:
            job(str(parameters), parameters=parameters, max_retries=1)
        job("timed out", parameters={"mock": {"seconds": 60}}, timeout_s=0.2)
        cancelled = job("cancelled", parameters={"mock": {"seconds": 60}})
        client.post(f"/jobs/{cancelled}/cancel")
        for each in made:
            client.wait_for(each, "completed", "failed", "cancelled")
        for query in ("logs?tail=5", "tasks", "outputs", "events", "graph"):
            client.get(f"/jobs/{made[0]}/{query}", headers={"Last-Event-ID": planted.secret(query)})
        client.post(f"/jobs/{made[1]}/retry")
        client.wait_for(made[1], "completed", "failed")
        body = {"workflow": "demo", "parameters": {"greeting": planted.secret("plan")}}
        client.post("/workflows/demo/plan", json=body)
        client.post(f"/jobs/{made[0]}/report")
        client.delete(f"/jobs/{made[2]}")

    def lines_of(event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in keyed.server.log.splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    def all_told() -> bool:
        ran = set(made) - {cancelled}
        last = any(line.get("method") == "DELETE" for line in lines_of("request"))  # told after its answer
        return last and ran <= {line["job_id"] for line in lines_of("job.ended")}

    wait_until(all_told, what="the lines of all jobs")
    asked = [line for line in lines_of("request") if line.get("job_id") in made]
    assert {(line["route"], line["method"]) for line in asked} >= {
        ("/jobs", "POST"),
        ("/jobs/{job_id}/cancel", "POST"),
        ("/jobs/{job_id}/logs", "GET"),
        ("/jobs/{job_id}", "DELETE"),
    }
    assert all(line["request_id"] and line["trace_id"] for line in asked if line["route"] == "/jobs")
    assert len(planted.places) > 40
    planted.answers.clear()
    assert planted.found_in(keyed.server.log) == []

"""A job's tasks, their logs and its graph over HTTP."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest

from api.graph_svg import CONTENT_POLICY, SVG
from api.representations import JSON

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.client import ContractClient
    from tests.support.server import LiveServer

RULES = ["all", "numbers", "shuffle", "checksum", "report"]


@pytest.fixture(scope="module")
def job(server: LiveServer) -> dict[str, Any]:
    """It has failed twice; the second attempt had only to do what the first one had left."""
    job = server.client.run(workflow="demo", parameters={"mock": {"fail_rule": "report"}}, max_retries=1)
    assert (job["status"], job["attempt"]) == ("failed", 2)
    return job


@pytest.fixture(scope="module")
def tasks(server: LiveServer, job: dict[str, Any]) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = server.client.get(f"{job['links']['tasks']}?attempt=1").json()["items"]
    return items


@pytest.fixture(scope="module")
def logging(tasks: list[dict[str, Any]]) -> dict[str, Any]:
    """A task with a log file."""
    return next(task for task in tasks if task["log"])


@pytest.fixture(scope="module")
def file(server: LiveServer, job: dict[str, Any], logging: dict[str, Any]) -> Path:
    """That file, which the stand-in does not write."""
    path: Path = server.data_dir / "jobs" / job["id"] / "work" / logging["log"][0]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"one\ntwo\n\xffthree")
    return path


def numbers(page: dict[str, Any]) -> list[int]:
    return [task["number"] for task in page["items"]]


def test_the_page_tells_every_task_and_counts_them(
    client: ContractClient, job: dict[str, Any], tasks: list[dict[str, Any]]
) -> None:
    page = client.get(f"{job['links']['tasks']}?attempt=1").json()
    assert {task["rule"] for task in tasks} == set(RULES)
    assert numbers(page) == sorted(numbers(page))
    assert (page["total"], page["attempt"], page["next_cursor"]) == (len(RULES), 1, None)
    assert page["counts"] == {"pending": 0, "running": 0, "completed": 3, "failed": 1, "cancelled": 1}
    latest = client.get(job["links"]["tasks"]).json()
    assert (latest["attempt"], {task["rule"] for task in latest["items"]}) == (2, {"report", "all"})
    for task in tasks:
        assert client.get(task["links"]["self"]).json()["number"] == task["number"]


def test_filters_are_alternatives_of_their_kind_and_hold_together(
    client: ContractClient, job: dict[str, Any], tasks: list[dict[str, Any]]
) -> None:
    path = job["links"]["tasks"]
    (failed,) = (task for task in tasks if task["status"] == "failed")
    chosen = client.get(f"{path}?attempt=1&rule=report&rule=numbers&status=failed&status=running").json()
    assert numbers(chosen) == [failed["number"]]
    assert (chosen["total"], sum(chosen["counts"].values())) == (1, len(RULES))
    assert client.get(f"{path}?rule=unknown").json()["items"] == []


def test_pages_follow_each_other_to_the_end(
    client: ContractClient, job: dict[str, Any], tasks: list[dict[str, Any]]
) -> None:
    seen = []
    address = f"{job['links']['tasks']}?attempt=1&limit=2&rule=all&rule=numbers&rule=report"
    while address:
        answer = client.get(address)
        seen += numbers(answer.json())
        found = re.fullmatch(r'<(.+)>; rel="next"', answer.headers.get("link", ""))
        assert (found is None) == (answer.json()["next_cursor"] is None)
        address = found[1] if found else ""
    assert seen == sorted(task["number"] for task in tasks if task["rule"] in ("all", "numbers", "report"))
    first = client.get(f"{job['links']['tasks']}?limit=1&attempt=1").json()
    for bad in (f"{first['next_cursor']}A", "AAAA", client.get("/jobs?limit=1").json()["next_cursor"] or "x"):
        answer = client.get(f"{job['links']['tasks']}?limit=1&attempt=1&cursor={bad}")
        assert (answer.status_code, answer.json()["type"]) == (400, "invalid-cursor")


def test_pages_go_on_with_the_attempt_that_the_first_was_of(client: ContractClient) -> None:
    job = client.run(parameters={"mock": {"fail_rule": "numbers"}})
    address = f"{job['links']['tasks']}?limit=1"
    cursor = client.get(address).json()["next_cursor"]
    client.post(job["links"]["retry"])
    assert client.get(f"{address}&cursor={cursor}").json()["attempt"] == 1
    assert client.get(address).json()["attempt"] == 2
    client.wait_for(job["id"])


@pytest.mark.parametrize(
    ("path", "status", "kind"),
    [
        ("/tasks/99", 404, "task-not-found"),
        ("/tasks?attempt=3", 404, "task-not-found"),
        ("/graph?attempt=3", 404, "task-not-found"),
        ("/tasks/99/logs", 404, "task-not-found"),
        ("/tasks/x", 422, "invalid-request"),
        ("/tasks/-1", 422, "invalid-request"),
        ("/tasks?status=done", 422, "invalid-request"),
        ("/tasks?limit=501", 422, "invalid-request"),
        ("/tasks?attempt=1&attempt=2", 422, "invalid-request"),
        ("/tasks/1/logs?index=-1", 422, "invalid-request"),
        ("/graph?format=png", 422, "invalid-request"),
    ],
)
def test_what_is_not_there_or_makes_no_sense_is_refused(
    client: ContractClient, job: dict[str, Any], path: str, status: int, kind: str
) -> None:
    answer = client.get(job["links"]["self"] + path)
    assert (answer.status_code, answer.json()["type"]) == (status, kind)


class TestLogs:
    def test_it_is_read_whole_in_part_and_from_its_end(
        self, client: ContractClient, logging: dict[str, Any], file: Path
    ) -> None:
        address = logging["links"]["logs"]
        whole = client.get(address)
        assert (whole.content, whole.headers["content-type"]) == (
            file.read_bytes(),
            "text/plain; charset=utf-8",
        )
        part = client.get(address, headers={"Range": "bytes=4-6"})
        assert (part.status_code, part.content, part.headers["content-range"]) == (
            *(206, b"two"),
            "bytes 4-6/14",
        )
        for lines, start in ((0, 14), (1, 8), (2, 4), (3, 0), (9, 0)):
            tail = client.get(f"{address}&tail={lines}")
            assert (tail.content, tail.headers["x-log-offset"]) == (file.read_bytes()[start:], str(start))
        assert client.get(address, headers={"If-None-Match": whole.headers["etag"]}).status_code == 304
        assert client.get(address, headers={"Range": "bytes=99-"}).status_code == 416

    def test_where_there_is_none_it_says_where_to_look(
        self,
        client: ContractClient,
        job: dict[str, Any],
        tasks: list[dict[str, Any]],
        logging: dict[str, Any],
    ) -> None:
        silent = next(task for task in tasks if not task["log"])
        linked = next(each for each in tasks if each["log"] and each is not logging)
        for address, detail in (
            (silent["links"]["logs"], f"/jobs/{job['id']}/logs"),
            (f"{logging['links']['logs']}&index=1", "names 1 log files: index is 0 to 0"),
            (linked["links"]["logs"], f"{linked['log'][0]} is not there"),
        ):
            answer = client.get(address)
            assert (answer.status_code, answer.json()["type"]) == (404, "task-log-not-found")
            assert detail in answer.json()["detail"]


class TestGraph:
    def test_as_json_it_has_every_rule_with_its_counts_and_what_feeds_what(
        self, client: ContractClient, job: dict[str, Any]
    ) -> None:
        answer = client.get(f"{job['links']['graph']}?attempt=1")
        graph = answer.json()
        nodes = {node["rule"]: node for node in graph["nodes"]}
        assert (set(nodes), graph["attempt"]) == (set(RULES), 1)
        assert ["report", "all"] in graph["edges"]
        assert [nodes[rule]["status"] for rule in RULES] == ["cancelled", *["completed"] * 3, "failed"]
        assert all(node["counts"]["total"] == 1 for node in nodes.values())
        same = {"If-None-Match": answer.headers["etag"]}
        assert client.get(f"{job['links']['graph']}?attempt=1", headers=same).status_code == 304
        assert client.get(job["links"]["graph"], headers=same).status_code == 200

    @pytest.mark.parametrize(
        ("query", "accept", "media_type"),
        [
            ("", "image/svg+xml", SVG),
            ("", "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8", SVG),  # as <img> asks
            ("", "*/*", JSON),
            ("", "application/json, image/svg+xml", JSON),
            ("&format=svg", "application/json", SVG),
            ("&format=json", "image/svg+xml", JSON),
        ],
    )
    def test_it_is_a_picture_where_one_is_asked_for(
        self, client: ContractClient, job: dict[str, Any], query: str, accept: str, media_type: str
    ) -> None:
        address = f"{job['links']['graph']}?attempt=1{query}"
        answer = client.get(address, headers={"Accept": accept})
        assert (answer.headers["content-type"], answer.headers["vary"]) == (media_type, "Accept")
        if media_type == SVG:
            assert answer.headers["content-security-policy"] == CONTENT_POLICY
            same = {"Accept": accept, "If-None-Match": answer.headers["etag"]}
            kept = client.get(address, headers=same)  # whose headers a browser gives to the picture it has
            assert (kept.status_code, kept.headers["content-security-policy"]) == (304, CONTENT_POLICY)
            boxes = ET.fromstring(answer.text).iter("{http://www.w3.org/2000/svg}g")
            assert len(list(boxes)) == 1 + len(RULES)

    def test_the_picture_and_the_json_are_kept_apart(
        self, client: ContractClient, job: dict[str, Any]
    ) -> None:
        tag = client.get(job["links"]["graph"]).headers["etag"]
        picture = client.get(f"{job['links']['graph']}?format=svg", headers={"If-None-Match": tag})
        assert picture.status_code == 200


def test_a_job_that_has_not_begun_has_no_tasks_and_a_graph_without_rules(
    server: LiveServer, client: ContractClient
) -> None:
    job = client.submit(cores=16, parameters={"mock": {"seconds": 600}})
    waiting = client.submit(cores=16)
    assert client.get(waiting["links"]["tasks"]).json()["items"] == []
    assert client.get(waiting["links"]["graph"]).json()["nodes"] == []
    for each in (waiting, job):
        client.post(each["links"]["cancel"])
        client.wait_for(each["id"], "cancelled")

"""What a job used of the machine as time went by, over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from snakeline import Client

if TYPE_CHECKING:
    from tests.support.client import ContractClient
    from tests.support.server import LiveServer


@pytest.fixture(scope="module")
def job(server: LiveServer) -> dict[str, Any]:
    """It has failed twice."""
    job = server.client.run(
        parameters={"mock": {"fail_rule": "report"}}, max_retries=1, cores=2, memory_mb=777
    )
    assert (job["status"], job["attempt"]) == ("failed", 2)
    return job


def test_it_is_told_with_its_limits_and_its_sums(client: ContractClient, job: dict[str, Any]) -> None:
    told = client.get(job["links"]["usage"]).json()
    assert (told["job_id"], told["attempt"]) == (job["id"], 2)
    assert told["limits"] == {"cores": 2, "memory_bytes": 777 * 2**20}
    assert (told["started_at"], told["ended_at"]) == (job["started_at"], job["completed_at"])
    assert told["usage"] == job["usage"]
    assert set(told["points"][-1]) == {
        *("elapsed_s", "cores", "rss_bytes", "processes", "read_bytes", "written_bytes")
    }
    used = told["points"][-1]["cores"] * told["points"][-1]["elapsed_s"]
    assert used == pytest.approx(job["usage"]["cpu_s"], rel=0.1)


def test_each_attempt_has_its_own(client: ContractClient, job: dict[str, Any]) -> None:
    first = client.get(f"{job['links']['usage']}?attempt=1").json()
    assert first["attempt"] == 1
    assert first["ended_at"] <= job["started_at"]
    answer = client.get(f"{job['links']['usage']}?attempt=3")
    assert (answer.status_code, answer.json()["type"]) == (404, "task-not-found")


def test_while_it_is_the_same_it_is_not_sent_again(client: ContractClient, job: dict[str, Any]) -> None:
    whole = client.get(job["links"]["usage"])
    again = client.get(job["links"]["usage"], headers={"If-None-Match": whole.headers["etag"]})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", whole.headers["etag"])
    other = client.get(f"{job['links']['usage']}?attempt=1", headers={"If-None-Match": whole.headers["etag"]})
    assert other.status_code == 200


@pytest.mark.parametrize("query", ["attempt=0", "attempt=x", "attempts=1", "attempt=1&attempt=2"])
def test_what_it_does_not_know_is_refused(client: ContractClient, job: dict[str, Any], query: str) -> None:
    answer = client.get(f"{job['links']['usage']}?{query}")
    assert (answer.status_code, answer.json()["type"]) == (422, "invalid-request")


def test_the_python_client_asks_for_it(server: LiveServer, job: dict[str, Any]) -> None:
    with Client(server.url) as client:
        assert client.usage_history(job["id"], attempt=1)["attempt"] == 1
        assert client.get(job["id"]).usage_history()["attempt"] == 2

"""The Python client against a real service."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from snakeline.client import Client, Problem, Unreachable, WaitTimeout
from snakeline.service_process import ServiceProcess
from tests.support.cutting_proxy import CuttingProxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

QUICK = {
    "MOCK_MIN_S": "0",
    "MOCK_MAX_S": "0",
    "MOCK_SUCCESS_RATE": "1",
    "MAX_CORES": "8",
    "STOP_GRACE_S": "1",
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    with ServiceProcess(tmp_path_factory.mktemp("client"), QUICK) as started:
        yield started


@pytest.fixture
def client(service: ServiceProcess) -> Client:
    return service.client


def test_a_job_is_submitted_waited_for_and_deleted(client: Client) -> None:
    submitted = client.submit(
        "demo", name="first", labels={"run": "7"}, priority=3, timeout_s=60, memory_mb=256, cores=2
    )
    assert (submitted.status, submitted.name, submitted.raw["labels"]) == ("pending", "first", {"run": "7"})
    assert (submitted.raw["memory_mb"], submitted.raw["cores"]) == (256, 2)
    ended = client.wait(submitted.id, timeout_s=20)
    assert (ended.status, ended.reason, ended.exit_code) == ("completed", "exited_zero", 0)
    assert ended.duration_s is not None
    assert client.get(submitted.id).raw == ended.raw
    client.delete(submitted.id)
    with pytest.raises(Problem, match=submitted.id) as gone:
        client.get(submitted.id)
    assert (gone.value.status, gone.value.type) == (404, "job-not-found")


def test_a_running_job_is_cancelled_and_run_again(client: Client, tmp_path: Path) -> None:
    job = client.submit("demo", parameters={"mock": {"hold": str(tmp_path / "go")}})
    with pytest.raises(WaitTimeout):
        client.wait(job.id, timeout_s=0.5)
    client.cancel(job.id)
    assert client.wait(job.id, timeout_s=20).reason == "cancel_requested"
    (tmp_path / "go").write_text("go")
    assert client.retry(job.id).attempt == 2
    assert client.wait(job.id, timeout_s=20).status == "completed"


def test_the_same_key_makes_one_job_and_with_another_body_a_problem(client: Client) -> None:
    first = client.submit("demo", name="once", idempotency_key="one")
    assert client.submit("demo", name="once", idempotency_key="one").id == first.id
    with pytest.raises(Problem) as refused:
        client.submit("demo", name="twice", idempotency_key="one")
    assert (refused.value.status, refused.value.type) == (422, "idempotency-mismatch")


def test_a_problem_names_the_field(client: Client) -> None:
    with pytest.raises(Problem) as refused:
        client.submit("wordcount", parameters={"top_n": 0})
    assert refused.value.status == 422
    assert [e["pointer"] for e in refused.value.errors] == ["/parameters/top_n"]


def test_the_list_is_filtered_and_paged(client: Client) -> None:
    jobs = [client.submit("demo", name=f"paged-{n}") for n in range(3)]
    for job in jobs:
        client.wait(job.id, timeout_s=20)
    page = client.list(status=("completed", "failed"), q="paged-", limit=2)
    assert [job.id for job in page.items] == [jobs[2].id, jobs[1].id]
    assert page.next_cursor is not None
    rest = client.list(status=("completed", "failed"), q="paged-", limit=2, cursor=page.next_cursor)
    assert [job.id for job in rest.items] == [jobs[0].id]
    assert rest.next_cursor is None


def test_a_followed_log_is_the_whole_log(client: Client) -> None:
    job = client.submit("demo", parameters={"mock": {"lines": 2000}})
    assert "".join(client.follow_log(job.id)).encode() == client.log(job.id)
    assert client.wait(job.id, timeout_s=20).status == "completed"


def test_a_log_whose_connection_breaks_is_taken_up_where_it_broke(service: ServiceProcess) -> None:
    job = service.client.submit("demo", parameters={"mock": {"lines": 40_000}})
    service.client.wait(job.id, timeout_s=20)
    with (
        CuttingProxy(service.client.base_url, after_bytes=150_000, cuts=3) as proxy,
        Client(proxy.url) as client,
    ):
        followed = "".join(client.follow_log(job.id, attempt=1))
    assert proxy.cut == 3
    assert followed.encode() == service.client.log(job.id)


def test_a_log_that_does_not_exist_is_a_problem(client: Client) -> None:
    job = client.submit("demo")
    with pytest.raises(Problem) as missing:
        list(client.follow_log(job.id, attempt=9))
    assert missing.value.type == "log-not-found"


def test_nobody_at_the_address_is_unreachable() -> None:
    with Client("http://127.0.0.1:9") as nobody, pytest.raises(Unreachable, match=r"127\.0\.0\.1:9"):
        nobody.ready()


def test_workflows_are_listed_with_their_schema(client: Client) -> None:
    schemas = {workflow["name"]: workflow["parameters_schema"] for workflow in client.workflows()}
    assert {"demo", "failing", "wordcount"} <= set(schemas)
    assert schemas["wordcount"]["properties"]["top_n"]["type"] == "integer"

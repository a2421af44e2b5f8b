"""Jobs over HTTP, against the real service."""

from __future__ import annotations

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from tests.support.server import running_server
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.client import ContractClient
    from tests.support.server import LiveServer

RFC3339_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
TIMES = ("created_at", "updated_at", "started_at", "completed_at", "cancel_requested_at")
UNKNOWN_ID = "01a20caf-bf68-7481-9aa6-3e49ab222ca6"


def hold(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A file, and the parameters of a job that runs until something is written to it."""
    gate = tmp_path / f"gate-{uuid4().hex}"
    return gate, {"mock": {"hold": str(gate)}}


def open_gate(gate: Path) -> None:
    gate.write_text("go")


def test_submit_answers_201_with_a_pending_job_and_its_location(client: ContractClient) -> None:
    answer = client.post("/jobs", json={"name": "first", "labels": {"project": "atlas"}})
    job = answer.json()
    assert answer.status_code == 201
    assert job["status"] == "pending"
    assert job["workflow"] == "demo"
    assert answer.headers["location"] == f"/jobs/{job['id']}" == job["links"]["self"]
    assert answer.headers["etag"] == 'W/"1"'
    assert client.get(answer.headers["location"]).json()["id"] == job["id"]


def test_a_job_goes_from_pending_over_running_to_completed(client: ContractClient, tmp_path: Path) -> None:
    gate, parameters = hold(tmp_path)
    job = client.submit(parameters=parameters)
    running = client.wait_for(job["id"], "running")
    assert running["started_at"]
    assert running["completed_at"] is None
    open_gate(gate)
    done = client.wait_for(job["id"])
    assert (done["status"], done["reason"], done["exit_code"]) == ("completed", "exited_zero", 0)
    assert done["progress"]["done"] == done["progress"]["total"] == 5
    assert done["usage"]["max_rss_bytes"] > 0


def test_a_failing_job_is_failed_with_its_exit_code_and_a_message(client: ContractClient) -> None:
    job = client.run(parameters={"mock": {"exit_code": 3}})
    assert (job["status"], job["reason"], job["exit_code"]) == ("failed", "exited_nonzero", 3)
    assert job["exit_signal"] is None
    assert job["error_message"]


def test_every_time_of_a_job_is_rfc_3339_in_utc(client: ContractClient) -> None:
    job = client.run()
    assert all(RFC3339_UTC.fullmatch(job[name]) for name in TIMES if job[name] is not None)
    assert job["created_at"] <= job["started_at"] <= job["completed_at"]


def test_a_job_has_exactly_the_fields_of_the_document(client: ContractClient) -> None:
    job = client.run()
    properties = client.document["components"]["schemas"]["Job"]["properties"]
    assert list(job) == list(properties)


def test_ten_jobs_run_at_once(client: ContractClient, tmp_path: Path) -> None:
    gate, parameters = hold(tmp_path)
    jobs = [client.submit(parameters=parameters, labels={"batch": gate.name}) for _ in range(10)]
    wait_until(
        lambda: (
            client.get("/jobs", params={"status": "running", "label": f"batch:{gate.name}"}).json()["total"]
            == 10
        ),
        timeout_s=20,
        what="ten jobs to run",
    )
    open_gate(gate)
    assert {client.wait_for(job["id"])["status"] for job in jobs} == {"completed"}


def test_the_speed_and_the_luck_of_the_stand_in_are_settings(tmp_path: Path) -> None:
    with running_server(
        tmp_path, MOCK_MIN_S="0.2", MOCK_MAX_S="0.4", MOCK_SUCCESS_RATE="0", DATABASE_URL="memory://"
    ) as own:
        started = time.monotonic()
        job = own.client.run()
        assert time.monotonic() - started >= 0.2 * 0.2  # it fails at one of its five rules
        assert job["status"] == "failed"


class TestIdempotency:
    def test_the_same_key_and_body_answer_the_same_job(self, client: ContractClient) -> None:
        headers = {"Idempotency-Key": uuid4().hex}
        first = client.post("/jobs", json={"name": "once"}, headers=headers)
        again = client.post("/jobs", json={"name": "once", "cores": 1}, headers=headers)
        assert "idempotent-replayed" not in first.headers
        assert (again.status_code, again.headers["idempotent-replayed"]) == (201, "true")
        assert again.json()["id"] == first.json()["id"]

    def test_the_same_key_with_another_body_is_422(self, client: ContractClient) -> None:
        headers = {"Idempotency-Key": uuid4().hex}
        client.post("/jobs", json={"name": "once"}, headers=headers)
        answer = client.post("/jobs", json={"name": "twice"}, headers=headers)
        assert (answer.status_code, answer.json()["type"]) == (422, "idempotency-mismatch")

    def test_twenty_requests_at_once_make_one_job(self, client: ContractClient) -> None:
        headers = {"Idempotency-Key": uuid4().hex}
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda _: client.post("/jobs", json={}, headers=headers), range(20)))
        assert len({answer.json()["id"] for answer in answers}) == 1
        assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1

    @pytest.mark.parametrize("key", ["", "x" * 256, "a\tb", "é"])
    def test_a_key_must_be_printable_ascii_and_not_long(self, client: ContractClient, key: str) -> None:
        answer = client.post("/jobs", json={}, headers={b"Idempotency-Key": key.encode()})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["header"].lower() == "idempotency-key"


class TestConditionalAndWaiting:
    def test_an_etag_answers_304_until_the_job_changes(self, client: ContractClient, tmp_path: Path) -> None:
        gate, parameters = hold(tmp_path)
        job_id = client.submit(parameters=parameters)["id"]
        client.wait_for(job_id, "running")
        open_gate(gate)
        client.wait_for(job_id)
        url = f"/jobs/{job_id}"
        etag = client.get(url).headers["etag"]
        for header in (etag, "*", f'"other", {etag}', etag.removeprefix("W/")):
            answer = client.get(url, headers={"If-None-Match": header})
            assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
        assert client.get(url, headers={"If-None-Match": 'W/"1", W/"2"'}).status_code == 200

    def test_waiting_returns_as_soon_as_the_job_changes(self, client: ContractClient, tmp_path: Path) -> None:
        gate, parameters = hold(tmp_path)
        job_id = client.submit(parameters=parameters)["id"]
        client.wait_for(job_id, "running")
        answers: list[Any] = []
        waiter = threading.Thread(target=lambda: answers.append(_wait_to_end(client, job_id)))
        waiter.start()
        open_gate(gate)
        waiter.join(12)
        assert answers[0]["status"] == "completed"

    def test_waiting_returns_at_once_when_the_job_is_another_version(self, client: ContractClient) -> None:
        job_id = client.run()["id"]
        started = time.monotonic()
        answer = client.get(f"/jobs/{job_id}?wait=20", headers={"If-None-Match": 'W/"1"'})
        assert (answer.status_code, time.monotonic() - started < 10) == (200, True)

    def test_waiting_for_an_ended_job_returns_at_once(self, client: ContractClient) -> None:
        job_id = client.run()["id"]
        started = time.monotonic()
        assert client.get(f"/jobs/{job_id}?wait=20").json()["status"] == "completed"
        assert time.monotonic() - started < 10

    def test_waiting_answers_304_when_nothing_changes(self, client: ContractClient) -> None:
        job_id = client.run()["id"]
        etag = client.get(f"/jobs/{job_id}").headers["etag"]
        started = time.monotonic()
        answer = client.get(f"/jobs/{job_id}?wait=0.3", headers={"If-None-Match": etag})
        assert answer.status_code == 304
        assert time.monotonic() - started >= 0.3

    @pytest.mark.parametrize("wait", ["-1", "61", "nan", "soon"])
    def test_a_wait_out_of_bounds_is_422(self, client: ContractClient, wait: str) -> None:
        answer = client.get(f"/jobs/{UNKNOWN_ID}?wait={wait}")
        assert answer.json()["errors"][0]["parameter"] == "wait"


def _wait_to_end(client: ContractClient, job_id: str) -> Any:
    """Only by long polls, each from the version the one before has seen."""
    etag = ""
    while True:
        answer = client.get(f"/jobs/{job_id}?wait=30", headers={"If-None-Match": etag})
        assert answer.status_code == 200
        if answer.json()["status"] in ("completed", "failed", "cancelled"):
            return answer.json()
        etag = answer.headers["etag"]


class TestChanges:
    def test_cancel_ends_a_running_job_and_asking_twice_is_one_request(
        self, client: ContractClient, tmp_path: Path
    ) -> None:
        _, parameters = hold(tmp_path)
        job_id = client.submit(parameters=parameters)["id"]
        client.wait_for(job_id, "running")
        assert client.post(f"/jobs/{job_id}/retry").status_code == 409
        first = client.post(f"/jobs/{job_id}/cancel")
        assert first.status_code == 202
        assert first.json()["cancel_requested_at"]
        again = client.post(f"/jobs/{job_id}/cancel")
        assert again.status_code in (202, 409)  # 409 when it has ended in between
        job = client.wait_for(job_id)
        assert (job["status"], job["reason"]) == ("cancelled", "cancel_requested")

    def test_cancel_of_an_ended_job_is_409_and_says_its_status(self, client: ContractClient) -> None:
        answer = client.post(f"/jobs/{client.run()['id']}/cancel")
        assert (answer.status_code, answer.json()["job_status"]) == (409, "completed")

    def test_retry_makes_a_new_attempt_of_a_failed_job(self, client: ContractClient) -> None:
        job = client.run(parameters={"mock": {"fail_rule": "shuffle", "fail_times": 1}})
        assert job["status"] == "failed"
        answer = client.post(f"/jobs/{job['id']}/retry")
        assert (answer.status_code, answer.json()["status"], answer.json()["attempt"]) == (202, "pending", 2)
        assert client.wait_for(job["id"])["status"] == "completed"
        assert client.post(f"/jobs/{job['id']}/retry").status_code == 409

    def test_delete_removes_the_row_and_the_files(self, server: LiveServer) -> None:
        client = server.client
        job_id = client.run()["id"]
        assert (server.data_dir / "jobs" / job_id).is_dir()
        answer = client.delete(f"/jobs/{job_id}")
        assert (answer.status_code, answer.content) == (204, b"")
        assert not (server.data_dir / "jobs" / job_id).exists()
        assert client.get(f"/jobs/{job_id}").status_code == 404
        assert client.delete(f"/jobs/{job_id}").status_code == 404

    def test_delete_of_a_running_job_is_409(self, client: ContractClient, tmp_path: Path) -> None:
        gate, parameters = hold(tmp_path)
        job_id = client.submit(parameters=parameters)["id"]
        assert client.delete(f"/jobs/{job_id}").status_code == 409
        open_gate(gate)

    @pytest.mark.parametrize(
        "job_id", [UNKNOWN_ID, UNKNOWN_ID.upper(), "x", "%00", "..%2f..", "1" * 2000, "%F0%28"]
    )
    @pytest.mark.parametrize(
        ("method", "rest"),
        [("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("POST", "/retry"), ("GET", "/logs")],
    )
    def test_an_unknown_id_is_404(self, client: ContractClient, method: str, rest: str, job_id: str) -> None:
        answer = client.request(method, f"/jobs/{job_id}{rest}")
        assert answer.status_code == 404


def test_a_full_queue_is_429_with_retry_after(tmp_path: Path) -> None:
    with running_server(tmp_path, MAX_PENDING="1", MAX_CORES="1", DATABASE_URL="memory://") as own:
        _, parameters = hold(tmp_path)
        running = own.client.submit(parameters=parameters)
        own.client.wait_for(running["id"], "running")
        own.client.submit()
        answer = own.client.post("/jobs", json={})
        assert (answer.status_code, answer.json()["type"]) == (429, "queue-full")
        assert int(answer.headers["retry-after"]) > 0


class TestWorkflows:
    def test_they_are_listed_with_their_schemas(self, client: ContractClient) -> None:
        page = client.get("/workflows").json()
        names = [workflow["name"] for workflow in page["items"]]
        assert {"demo", "failing", "wordcount"} <= set(names)
        assert page["total"] == len(names)
        demo = client.get("/workflows/demo").json()
        summary = {k: v for k, v in demo.items() if k not in ("version", "snakefile", "readme")}
        assert summary in page["items"]
        assert demo["readme"].startswith("# ")
        assert demo["parameters_schema"]["type"] == "object"
        assert client.get(demo["links"]["self"]).json() == demo

    @pytest.mark.parametrize("name", ["nope", "..%2fdemo", "%00", "demo%2F.."])
    def test_an_unknown_one_is_404(self, client: ContractClient, name: str) -> None:
        assert client.get(f"/workflows/{name}").status_code == 404

"""Jobs over HTTP, against the real service."""

from __future__ import annotations

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit
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


class TestList:
    def test_newest_first_with_a_total(self, client: ContractClient) -> None:
        batch = uuid4().hex
        ids = [client.submit(labels={"batch": batch}, name=f"n{i}")["id"] for i in range(3)]
        page = client.get("/jobs", params={"label": f"batch:{batch}"}).json()
        assert [job["id"] for job in page["items"]] == ids[::-1]
        assert page["total"] == 3
        assert page["next_cursor"] is None

    def test_an_exact_total_without_other_filters(self, client: ContractClient) -> None:
        before = client.get("/jobs", params={"limit": 1}).json()
        client.submit()
        after = client.get("/jobs", params={"limit": 1}).json()
        assert before["total_is_exact"]
        assert after["total_is_exact"]
        assert after["total"] == before["total"] + 1

    @pytest.mark.parametrize("order", ["desc", "asc"])
    def test_pages_follow_the_link_header_and_lose_nothing(self, client: ContractClient, order: str) -> None:
        batch = uuid4().hex
        ids = [client.submit(labels={"batch": batch})["id"] for _ in range(5)]
        seen: list[str] = []
        url = f"/jobs?label=batch:{batch}&limit=2&order={order}"
        sizes = []
        while url:
            answer = client.get(url)
            page = answer.json()
            seen += [job["id"] for job in page["items"]]
            sizes.append(len(page["items"]))
            link = answer.headers.get("link", "")
            url = link.partition(">")[0].lstrip("<")
            assert bool(url) == bool(page["next_cursor"])
            if url:
                assert link.endswith('; rel="next"')
                assert parse_qs(urlsplit(url).query)["cursor"] == [page["next_cursor"]]
        assert seen == (ids if order == "asc" else ids[::-1])
        assert sizes == [2, 2, 1]

    def test_statuses_are_alternatives(self, client: ContractClient) -> None:
        batch = uuid4().hex
        good = client.run(labels={"batch": batch})
        bad = client.run(labels={"batch": batch}, parameters={"mock": {"exit_code": 1}})
        label = f"batch:{batch}"
        both = client.get("/jobs", params={"status": ["completed", "failed"], "label": label}).json()
        assert {job["id"] for job in both["items"]} == {good["id"], bad["id"]}
        one = client.get("/jobs", params={"status": "failed", "label": label}).json()
        assert [job["id"] for job in one["items"]] == [bad["id"]]

    def test_name_id_workflow_and_labels_filter(self, client: ContractClient) -> None:
        name = f"Batch {uuid4().hex}"
        job = client.submit(name=name, labels={"a": "1", "b": "x:y", "key": name[6:]})
        hits: list[dict[str, Any]] = [
            {"q": name.upper()[2:]},
            {"q": "bA", "label": f"key:{name[6:]}"},
            {"q": job["id"]},
            {"q": job["id"][:8], "label": f"key:{name[6:]}"},
            {"q": name, "workflow": "demo"},
            {"q": name, "label": ["a:1", "b:x:y"]},
        ]
        misses: list[dict[str, Any]] = [
            {"q": job["id"][:7], "label": f"key:{name[6:]}"},
            {"q": "tc", "label": f"key:{name[6:]}"},
            {"q": name, "workflow": "failing"},
            {"q": name, "label": ["a:1", "b:x"]},
            {"q": name + "?"},
        ]
        assert all(client.get("/jobs", params=query).json()["total"] == 1 for query in hits)
        assert all(client.get("/jobs", params=query).json()["total"] == 0 for query in misses)

    def test_times_filter_in_any_time_zone(self, client: ContractClient) -> None:
        job = client.submit(name=uuid4().hex)
        early, late = "2020-01-01T00:00:00Z", "2120-01-01T00:00:00+14:00"

        def total(**times: str) -> int:
            found: int = client.get("/jobs", params={"q": job["name"], **times}).json()["total"]
            return found

        assert total(created_after=early, created_before=late) == 1
        assert total(created_after=late) == 0
        assert total(created_before=early) == 0
        assert total(created_after="2020-01-01t00:00:00z") == 1
        # The very instant is left out.
        instant = job["created_at"]
        assert total(created_after=instant) == total(created_before=instant) == 0
        # A plus sign that was not escaped arrives as a space.
        url = f"/jobs?q={job['name']}&created_before=2120-01-01T00:00:00+14:00"
        assert client.get(url).json()["total"] == 1

    @pytest.mark.parametrize(
        ("query", "parameter"),
        [
            ("limit=0", "limit"),
            ("limit=501", "limit"),
            ("limit=ten", "limit"),
            ("status=done", "status"),
            ("order=up", "order"),
            ("label=nocolon", "label"),
            ("created_after=yesterday", "created_after"),
            ("created_after=12", "created_after"),
            ("created_after=2026-01-01T00:00:00", "created_after"),
            ("created_after=0001-01-01T00:00:00%2B14:00", "created_after"),
            ("q=a%00b", "q"),
            ("statsu=failed", "statsu"),
        ],
    )
    def test_a_query_that_makes_no_sense_is_422_and_named(
        self, client: ContractClient, query: str, parameter: str
    ) -> None:
        answer = client.get(f"/jobs?{query}")
        assert answer.status_code == 422
        assert [error["parameter"] for error in answer.json()["errors"]] == [parameter]

    @pytest.mark.parametrize("cursor", ["", "x", "%00", "aGVsbG8", "A" * 23, "é", "A" * 600])
    def test_a_cursor_that_is_not_ours_is_refused(self, client: ContractClient, cursor: str) -> None:
        assert client.get("/jobs", params={"cursor": cursor}).status_code in (400, 422)

    def test_a_cursor_is_bound_to_its_filters_and_order(self, client: ContractClient) -> None:
        client.submit()
        client.submit()
        cursor = client.get("/jobs?limit=1").json()["next_cursor"]
        assert client.get("/jobs", params={"cursor": cursor, "limit": 3}).status_code == 200
        for other in ({"order": "asc"}, {"workflow": "demo"}, {"q": "a"}, {"status": "failed"}):
            answer = client.get("/jobs", params={"cursor": cursor, **other})
            assert (answer.status_code, answer.json()["type"]) == (400, "invalid-cursor")


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
        assert demo in page["items"]
        assert demo["parameters_schema"]["type"] == "object"
        assert client.get(demo["links"]["self"]).json() == demo

    @pytest.mark.parametrize("name", ["nope", "..%2fdemo", "%00", "demo%2F.."])
    def test_an_unknown_one_is_404(self, client: ContractClient, name: str) -> None:
        assert client.get(f"/workflows/{name}").status_code == 404

"""Plans and reports over HTTP, on the stand-in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.runners import Hold

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.client import ContractClient

PLAN = "/workflows/wordcount/plan"


def planned(client: ContractClient, body: Any, **query: Any) -> dict[str, Any]:
    answer = client.post(PLAN, json=body, params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_plan_tells_what_a_job_of_the_same_body_then_does(client: ContractClient) -> None:
    found = planned(client, {})
    assert (found["workflow"], found["ok"], found["errors"]) == ("wordcount", True, [])
    job = client.run(workflow="wordcount")
    assert found["tasks"]["total"] == sum(found["rules"].values()) == job["progress"]["total"]
    assert {each["rule"] for each in found["tasks"]["items"]} == set(found["rules"])
    assert {node["rule"] for node in found["graph"]["nodes"]} == set(found["rules"])
    assert found["version"].startswith("sha256:")
    few = planned(client, {}, limit=1)
    assert (len(few["tasks"]["items"]), few["tasks"]["total"]) == (1, found["tasks"]["total"])


@pytest.mark.parametrize(
    ("query", "accept"),
    [("?format=svg", "application/json"), ("", "image/svg+xml"), ("", "image/svg+xml, */*;q=0.8")],
)
def test_its_graph_can_be_had_as_a_picture(client: ContractClient, query: str, accept: str) -> None:
    answer = client.post(PLAN + query, json={}, headers={"Accept": accept})
    assert answer.headers["content-type"].startswith("image/svg+xml")
    assert answer.text.startswith("<svg")
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_of_what_cannot_be_planned_there_is_no_picture_but_the_reason(client: ContractClient) -> None:
    answer = client.post(PLAN + "?format=svg", json={"targets": ["nobody.makes"]})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert not answer.json()["ok"]
    assert "nobody.makes" in answer.json()["errors"][0]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"targets": ["../x"]}, "/targets/0"),
        ({"options": {"shell": True}}, "/options/shell"),
        ({"parameters": {"mock": {"seconds": "long"}}}, "/parameters/mock/seconds"),
        ({"cores": 0}, "/cores"),
        ({"cores": 1000}, "/cores"),
        ({"name": "of a job"}, "/name"),
    ],
)
def test_its_body_is_checked_as_that_of_a_job(
    client: ContractClient, body: dict[str, Any], pointer: str
) -> None:
    answers = [client.post(PLAN, json=body)]
    if "name" not in body:
        answers.append(client.post("/jobs", json={"workflow": "wordcount", **body}))
    for answer in answers:
        assert answer.status_code == 422
        assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


def test_what_is_not_there_is_not_planned(client: ContractClient) -> None:
    assert client.post("/workflows/nope/plan", json={}).json()["type"] == "workflow-not-found"
    assert client.post(PLAN + "?limit=501", json={}).status_code == 422
    assert client.post(PLAN, content="{}").status_code == 415


def test_a_report_is_made_and_shown_where_it_can_reach_nothing(client: ContractClient) -> None:
    job = client.run(workflow="wordcount")
    address = job["links"]["report"]
    assert client.get(address).json()["type"] == "report-not-found"
    made = client.post(address)
    assert made.status_code == 201
    assert made.headers["location"] == address == made.json()["links"]["self"]
    report = client.get(address)
    assert report.headers["content-type"] == "text/html; charset=utf-8"
    assert "Snakemake Report" in report.text
    assert len(report.content) == made.json()["size"]
    policy = report.headers["content-security-policy"].split("; ")
    assert "sandbox allow-scripts allow-downloads" in policy
    assert {"default-src 'none'", "form-action 'none'", "frame-ancestors 'self'"} <= set(policy)
    etag = report.headers["etag"]
    assert client.get(address, headers={"If-None-Match": etag}).status_code == 304
    part = client.get(address, headers={"Range": "bytes=0-14"})
    assert (part.status_code, part.content) == (206, b"<!DOCTYPE html>")
    outputs = client.get(job["links"]["outputs"], params={"all": "true"}).json()["items"]
    assert not [file for file in outputs if "report" in file["path"]]
    assert client.delete(job["links"]["self"]).status_code == 204
    assert client.get(address).json()["type"] == "job-not-found"


def test_there_is_none_of_a_job_that_has_not_ended(client: ContractClient, tmp_path: Path) -> None:
    hold = Hold(tmp_path)
    job = client.submit(workflow="wordcount", parameters={"mock": {"hold": hold.path}})
    answer = client.post(f"/jobs/{job['id']}/report")
    assert (answer.status_code, answer.json()["type"]) == (409, "invalid-transition")
    assert "once it has ended" in answer.json()["detail"]
    hold.release()
    client.wait_for(job["id"])
    for missing in ("019ab5f0-1c2d-7e3f-8a4b-5c6d7e8f9a0b", "none"):
        assert client.post(f"/jobs/{missing}/report").json()["type"] == "job-not-found"

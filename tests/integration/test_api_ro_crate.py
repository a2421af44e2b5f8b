"""A job's run as an RO-Crate: valid for the official validator, and true."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest

from tests.support.crates import PROVENANCE, UNKNOWN, WORKFLOW_RUN, Crate, ids, validated
from tests.support.runners import Hold

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.client import ContractClient
    from tests.support.server import LiveServer

LICENSE = "https://spdx.org/licenses/CC-BY-4.0"


@pytest.fixture(scope="module")
def crate(server: LiveServer) -> Crate:
    """Of a job that failed, was retried and then completed; with files of its own besides."""
    client = server.client
    mock = {"fail_rule": "report", "fail_times": 1, "seconds": 0}
    body = {"parameters": {"mock": mock, "count": 7, "greeting": 'a "b" <c>'}, "name": "batch 17"}
    job = client.run(**body, labels={"project": "atlas"})
    assert job["status"] == "failed"
    client.post(f"/jobs/{job['id']}/retry")
    assert client.wait_for(job["id"])["status"] == "completed"
    work = server.data_dir / "jobs" / job["id"] / "work"
    (work / "LICENSE").write_text("MIT")
    for name in (
        b"gr\xc3\xb6\xc3\x9fe 1.txt",
        b"100%.txt",
        b"a#b?.md",
        b"\xff\n",
        b"a\\..\\x",
        b"sub/.hidden",
    ):
        path = work / os.fsdecode(name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name)
    (work / "link").symlink_to("/etc/passwd")
    return Crate(client, job["id"], license=LICENSE)


def test_the_official_validator_finds_nothing_wanting(
    client: ContractClient, crate: Crate, tmp_path: Path
) -> None:
    told_nothing = client.run(parameters={"mock": {"stderr_text": "no rule", "fail_rule": "nobody"}})
    assert told_nothing["status"] == "failed"
    empty = Crate(client, told_nothing["id"])
    found = validated(
        (crate.saved(tmp_path / "crate.zip"), PROVENANCE), (empty.saved(tmp_path / "empty.zip"), WORKFLOW_RUN)
    )
    for each in found:
        assert [issue for issue in each["issues"] if issue[2] not in UNKNOWN] == []
        assert each["main"] == "work/Snakefile"
    assert len(empty.of_type("CreateAction")) == 1
    run = empty.entities["#run"]
    assert run["actionStatus"] == "http://schema.org/FailedActionStatus"
    assert "there is no rule nobody" in run["error"]


def test_it_tells_what_ran_on_what_and_with_which_results(crate: Crate) -> None:
    run = crate.entities["#run"]
    assert run["actionStatus"] == "http://schema.org/CompletedActionStatus"
    assert ids(run["result"]) == ["work/results/report.txt"]
    assert ids(run["agent"]) == ["#owner/operator"]
    values = {entity["name"]: entity["value"] for entity in crate.of_type("PropertyValue")}
    assert (values["count"], values["greeting"]) == (7, 'a "b" <c>')
    assert json.loads(values["mock"])["fail_rule"] == "report"
    kinds = {entity["name"]: entity["additionalType"] for entity in crate.of_type("FormalParameter")}
    assert kinds == {"count": "Integer", "greeting": "Text", "mock": "PropertyValue"}
    # Three rules finished in the first attempt; what the failed one left is not called a result.
    actions = {e["@id"]: e for e in crate.of_type("CreateAction") if e["@id"] != "#run"}
    assert len(actions) == len(set(ids(crate.entities["./"]["mentions"])) - {"#run"})
    made_by = {path: e["@id"] for e in actions.values() if "result" in e for path in ids(e["result"])}
    assert made_by["work/results/numbers.txt"].startswith("#attempt/1/")
    assert made_by["work/results/report.txt"].startswith("#attempt/2/")
    report = actions[made_by["work/results/report.txt"]]
    assert ids(report["object"]) == ["work/results/shuffled.txt", "work/results/checksum.txt"]
    assert crate.entities[ids(report["instrument"])[0]]["name"] == "report"
    steps = [e["name"] for e in sorted(crate.of_type("HowToStep"), key=lambda e: e["position"])]
    assert steps.index("numbers") < steps.index("shuffle") < steps.index("report")


def test_it_says_whose_it_is_and_that_a_stand_in_made_it(crate: Crate) -> None:
    root = crate.entities["./"]
    assert root["license"] == {"@id": LICENSE}
    assert root["keywords"] == "project:atlas"
    assert "nothing was computed" in root["description"]
    assert crate.entities["work/Snakefile"]["license"] == {"@id": "work/LICENSE"}
    assert crate.entities["work/Snakefile"]["version"].startswith("sha256:")
    readme = crate.files["README.md"].decode()
    assert readme.startswith("# Run of batch 17\n")
    assert "nothing was computed" in readme


def test_every_file_in_it_is_described_and_every_one_described_is_there(crate: Crate) -> None:
    described = {unquote(entity["@id"]) for entity in crate.of_type("File")}
    in_it = {name for name in crate.files if not name.endswith("/")} - {"ro-crate-metadata.json"}
    assert described == in_it
    assert in_it >= {"work/größe 1.txt", "work/100%.txt", "work/a#b?.md", "work/%FF%0A", "work/a%5C..%5Cx"}
    assert not {name for name in in_it if "hidden" in name or "link" in name}
    assert {unquote(e["@id"]) for e in crate.of_type("Dataset")} >= {"./", "work/"}
    sizes = {unquote(e["@id"]): e.get("contentSize") for e in crate.of_type("File")}
    assert sizes["log.txt"] == str(len(crate.files["log.txt"]))
    assert json.loads(crate.files["config.json"])["count"] == 7


def test_the_document_alone_is_answered_by_default(client: ContractClient, crate: Crate) -> None:
    plain = client.get(crate.url, params={"license": LICENSE})
    assert plain.headers["content-type"] == "application/json"
    assert plain.json() == crate.document
    linked = client.get(crate.url, headers={"Accept": "application/ld+json"})
    assert linked.headers["content-type"] == "application/ld+json"
    assert "No license was stated" in linked.text
    assert client.get(crate.url, params={"format": "zip"}).headers["content-type"] == "application/zip"
    as_json = client.get(crate.url, params={"format": "json"}, headers={"Accept": "application/zip"})
    assert as_json.headers["content-type"] == "application/json"
    assert client.get(crate.url, params={"license": ""}).status_code == 422


def test_there_is_none_of_what_has_not_ended_or_never_ran(
    client: ContractClient, server: LiveServer, tmp_path: Path
) -> None:
    hold = Hold(tmp_path)
    job = client.submit(parameters={"mock": {"hold": hold.path}})
    client.wait_for(job["id"], "running")
    url = f"/jobs/{job['id']}/ro-crate"
    running = client.get(url)
    assert (running.status_code, running.json()["type"]) == (409, "no-ro-crate")
    hold.release()
    client.wait_for(job["id"])
    (server.data_dir / "jobs" / job["id"] / "work" / "Snakefile").unlink()
    assert "no Snakefile" in client.get(url).json()["detail"]
    client.delete(f"/jobs/{job['id']}")
    assert client.get(url).json()["type"] == "job-not-found"

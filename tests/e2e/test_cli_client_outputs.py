"""The Python client's way to a job's files."""

from __future__ import annotations

import hashlib
import os
import zipfile
from typing import TYPE_CHECKING

import pytest

from snakeline.client import Client, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.server import LiveServer


@pytest.fixture
def own(server: LiveServer) -> Iterator[Client]:
    with Client(server.url) as client:
        yield client


@pytest.fixture(scope="module")
def job_id(server: LiveServer) -> str:
    found: str = server.client.run()["id"]
    return found


@pytest.fixture
def work(server: LiveServer, job_id: str) -> Path:
    return server.data_dir / "jobs" / job_id / "work"


def test_a_jobs_files_are_listed_and_saved(own: Client, job_id: str, work: Path, tmp_path: Path) -> None:
    outputs = list(own.outputs(job_id, prefix="results/"))
    assert [output.path for output in outputs] == sorted(path.path for path in outputs)
    saved = tmp_path / "saved"
    for output in outputs:
        own.download(job_id, output, saved)
        assert saved.read_bytes() == (work / output.path).read_bytes()
        assert saved.stat().st_size == output.size_bytes
    own.download(job_id, "results/report.txt", tmp_path / "report.txt")
    assert (tmp_path / "report.txt").read_bytes() == (work / "results" / "report.txt").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.txt", "saved"]


def test_a_plan_tells_what_a_job_would_do_and_a_report_what_it_has_done(
    own: Client, job_id: str, tmp_path: Path
) -> None:
    planned = own.plan("demo", cores=2, limit=1)
    assert (planned["ok"], len(planned["tasks"]["items"])) == (True, 1)
    assert planned["tasks"]["total"] == len(list(own.tasks(job_id)))
    assert not own.plan("demo", targets=["nobody.makes"])["ok"]
    own.report(job_id, tmp_path / "report.html")
    assert "Snakemake Report" in (tmp_path / "report.html").read_text()


def test_who_made_a_file_and_its_checksum_are_told(
    own: Client, server: LiveServer, job_id: str, work: Path
) -> None:
    [report] = own.outputs(job_id, rules=["report"])
    assert (report.path, report.rule) == ("results/report.txt", "report")
    assert server.client.get(f"/jobs/{job_id}/tasks/{report.task}").json()["rule"] == "report"
    assert {output.rule for output in own.outputs(job_id, declared=True)} >= {"report", "numbers"}
    digest = hashlib.sha256((work / report.path).read_bytes()).hexdigest()
    assert own.checksum(job_id, report) == own.checksum(job_id, report.path) == digest


@pytest.mark.parametrize(("folder", "top"), [("results", "results"), ("/results/", "results"), ("", None)])
def test_a_folder_is_saved_as_an_archive(
    own: Client, job_id: str, work: Path, tmp_path: Path, folder: str, top: str | None
) -> None:
    own.download_folder(job_id, folder, tmp_path / "folder.zip")
    with zipfile.ZipFile(tmp_path / "folder.zip") as archive:
        found = archive.read(f"{top or f'{job_id}/results'}/report.txt")
    assert found == (work / "results/report.txt").read_bytes()
    with pytest.raises(Problem) as caught:
        own.download_folder(job_id, "no such", tmp_path / "other.zip")
    assert caught.value.type == "output-not-found"
    assert os.listdir(tmp_path) == ["folder.zip"]


def test_a_run_is_saved_as_a_crate(own: Client, job_id: str, tmp_path: Path) -> None:
    own.ro_crate(job_id, tmp_path / "crate.zip", license_url="CC0-1.0")
    with zipfile.ZipFile(tmp_path / "crate.zip") as archive:
        assert b"CC0-1.0" in archive.read("ro-crate-metadata.json")
        assert "work/results/report.txt" in archive.namelist()


def test_more_files_than_fit_on_a_page_come_all(own: Client, job_id: str, work: Path) -> None:
    (work / ".many").mkdir()
    for number in range(1001):
        (work / ".many" / str(number)).touch()
    paths = [output.path for output in own.outputs(job_id, prefix=".many/", hidden=True)]
    assert paths == sorted(f".many/{number}" for number in range(1001))


@pytest.mark.parametrize(
    "name", [b"a b", b"\xff", b"100%", b"a%2Fb", b"a?b#c", b"a\nb", "ä".encode(), b"...", b"a+b", b"[x]"]
)
def test_a_file_with_any_name_is_saved(
    own: Client, job_id: str, work: Path, tmp_path: Path, name: bytes
) -> None:
    folder = work / tmp_path.name
    folder.mkdir()
    (folder / os.fsdecode(name)).write_bytes(name)
    (output,) = own.outputs(job_id, prefix=f"{tmp_path.name}/", hidden=True)
    own.download(job_id, output, tmp_path / "saved")
    assert (tmp_path / "saved").read_bytes() == name


def test_a_missing_file_leaves_nothing_behind(own: Client, job_id: str, tmp_path: Path) -> None:
    with pytest.raises(Problem) as refused:
        own.download(job_id, "no/such/file", tmp_path / "saved")
    assert refused.value.type == "output-not-found"
    assert list(tmp_path.iterdir()) == []

"""What is answered of a job's files besides their bytes: who made them, archives, checksums, previews."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.ended_job import EndedJob
from tests.support.swapping import swapping

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx2

    from tests.support.server import LiveServer

SECRET = b"not of this job"


@pytest.fixture(scope="module")
def ended(server: LiveServer) -> EndedJob:
    return EndedJob(server)


@pytest.fixture
def job(ended: EndedJob) -> Iterator[EndedJob]:
    with ended.emptied():
        yield ended


def files_in(answer: httpx2.Response) -> dict[str, bytes]:
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/zip"), answer.text
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert len(set(archive.namelist())) == len(archive.namelist())
        return {name: archive.read(name) for name in archive.namelist()}


class TestProducers:
    def test_each_file_names_the_finished_task_that_made_it(self, ended: EndedJob) -> None:
        made = {item["path"]: item["task"] for item in ended.page()["items"]}
        assert made["Snakefile"] is None
        assert {path for path, task in made.items() if task} == set(ended.paths(declared="true"))
        tasks = {task["rule"]: path for path, task in made.items() if task}
        assert tasks["report"] == "results/report.txt"
        assert {task["attempt"] for task in made.values() if task} == {1}
        number = made["results/report.txt"]["number"]
        task = ended.client.get(f"/jobs/{ended.id}/tasks/{number}").json()
        assert (task["rule"], task["output"]) == ("report", ["results/report.txt"])

    def test_a_rules_files_are_found_page_by_page(self, ended: EndedJob) -> None:
        both = {"rule": ["report", "numbers"]}
        assert ended.paths(**both) == ["results/numbers.txt", "results/report.txt"]
        first = ended.page(**both, limit=1)
        assert (first["total"], first["items"][0]["path"]) == (2, "results/numbers.txt")
        assert ended.paths(**both, limit=1, cursor=first["next_cursor"]) == ["results/report.txt"]
        assert ended.page(rule="nobody")["total"] == 0
        wrong = ended.client.get(ended.url, params={"declared": "true", "cursor": first["next_cursor"]})
        assert wrong.json()["type"] == "invalid-cursor"


class TestFolders:
    def test_a_folder_is_fetched_as_an_archive_of_its_plain_files(
        self, job: EndedJob, tmp_path: Path
    ) -> None:
        contents = {
            "results/a.txt": b"a", "results/deep/er/b": b"b" * 100_000, "results/empty": b"",
            "results/größe 漢.txt": b"c", 'results/"quoted"': b"d",
        }  # fmt: skip
        for name, content in contents.items():
            job.put(name, content)
        job.put(b"results/\xff\n..\\evil", b"e")
        for other in ("results/.hidden", "results/.git/x", "other/x", "results2/x", ".snakemake/log"):
            job.put(other)
        (tmp_path / "secret").write_bytes(SECRET)
        (job.work / "results/link").symlink_to(tmp_path / "secret")
        (job.work / "results/up").symlink_to(tmp_path)
        os.link(tmp_path / "secret", job.work / "results/hard")
        os.mkfifo(job.work / "results/fifo")
        expected = {**contents, "results/%FF%0A..%5Cevil": b"e"}
        answer = job.fetch("results/?format=zip")
        assert files_in(answer) == expected
        assert answer.headers["content-disposition"] == 'attachment; filename="results.zip"'
        assert files_in(job.fetch("results/", Accept="application/zip, */*;q=0.1")) == expected
        assert files_in(job.fetch("results/deep/er/?format=zip")) == {"er/b": contents["results/deep/er/b"]}
        hidden = set(files_in(job.fetch("results/?format=zip&all=true")))
        assert hidden == {*expected, "results/.hidden", "results/.git/x"}
        everything = files_in(job.fetch("?format=zip"))
        assert set(everything) == {f"{job.id}/{name}" for name in (*expected, "other/x", "results2/x")}

    def test_head_answers_the_same_headers(self, job: EndedJob) -> None:
        job.put("folder/file")
        get, head = job.fetch("folder/?format=zip"), job.client.head(f"{job.url}/folder/?format=zip")
        assert (head.status_code, head.content) == (200, b"")
        for name in ("content-type", "content-disposition", "cache-control"):
            assert head.headers[name] == get.headers[name]

    @pytest.mark.parametrize(
        "path",
        ["missing/", "empty/", "file/", "..%2F", "%2e%2e/", "folder//", "/", ".hidden/", "link/", "a%2Fb/"],
    )
    def test_what_holds_no_file_that_may_be_fetched_is_not_found(
        self, job: EndedJob, tmp_path: Path, path: str
    ) -> None:
        for name in ("file", "folder/file", ".hidden/file", "a/b/file"):
            job.put(name)
        (job.work / "empty").mkdir()
        (job.work / "link").symlink_to(tmp_path)
        (tmp_path / "file").write_bytes(SECRET)
        assert job.raw(f"{path}?format=zip")[0] == 404

    @pytest.mark.parametrize(
        "query",
        [
            "file?format=zip", "folder?format=zip", "folder/?format=tar", "file?all=true",
            "file?checksum=md5", "file?checksum=sha256&preview=true", "folder/?format=zip&checksum=sha256",
            "file?x=1", "folder/?format=zip&preview=true", "folder/?format=zip&format=zip",
        ],
    )  # fmt: skip
    def test_questions_that_do_not_go_together_are_refused(self, job: EndedJob, query: str) -> None:
        job.put("file")
        job.put("folder/file")
        assert job.fetch(query).status_code == 422

    def test_nothing_that_is_put_in_a_files_place_gets_into_an_archive(
        self, job: EndedJob, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_bytes(SECRET)
        for name in ("folder/file", "folder/inner/file"):
            job.put(name, b"own")
        (job.work / "folder/link").symlink_to(tmp_path / "file")
        (job.work / "folder/other").symlink_to(tmp_path)
        pairs = [("folder/file", "folder/link"), ("folder/inner", "folder/other")]
        with swapping(*((job.work / one, job.work / other) for one, other in pairs)):
            for _ in range(40):
                answer = job.client.get(f"{job.url}/folder/?format=zip")
                if answer.status_code == 200:
                    assert set(files_in(answer).values()) <= {b"own"}


class TestChecksums:
    def test_a_files_checksum_is_told_by_itself_or_beside_its_bytes(self, job: EndedJob) -> None:
        content = os.urandom(3 * 2**20 + 1)
        job.put("größe", content)
        digest = hashlib.sha256(content)
        for _ in range(2):
            told = job.fetch("größe?checksum=sha256").json()
            assert (told["sha256"], told["size"], told["path"]) == (digest.hexdigest(), len(content), "größe")
        expected = f"sha-256=:{base64.b64encode(digest.digest()).decode()}:"
        asked = {"Want-Repr-Digest": "md5=9, sha-256=3"}
        head = job.client.head(f"{job.url}/größe", headers=asked)
        part = job.client.get(f"{job.url}/größe", headers=asked | {"Range": "bytes=0-1"})
        assert head.headers["repr-digest"] == part.headers["repr-digest"] == expected
        assert part.content == content[:2]
        for not_asked in ({}, {"Want-Repr-Digest": "sha-256=0"}, {"Want-Repr-Digest": "sha-512=1, x"}):
            assert "repr-digest" not in job.client.head(f"{job.url}/größe", headers=not_asked).headers

    def test_of_what_is_no_file_there_is_none(self, job: EndedJob) -> None:
        job.put("folder/file")
        assert {job.fetch(f"{p}?checksum=sha256").status_code for p in ("folder", "folder/", "x")} == {404}


class TestPreviews:
    def test_tables_and_texts_are_previewed_as_json(self, job: EndedJob) -> None:
        job.put("a.csv", b"sample;count\nA;1\n")
        job.put("page.html", b"<script>alert(1)</script>\n")
        table: dict[str, Any] = job.fetch("a.csv?preview=true").json()
        assert (table["kind"], table["rows"]) == ("table", [["A", "1"]])
        page = job.fetch("page.html?preview=true")
        assert page.headers["content-type"] == "application/json"
        assert page.json()["first"] == ["<script>alert(1)</script>"]

    @pytest.mark.parametrize(
        ("name", "content", "media_type"),
        [("a.html", b"\x89PNG\r\n\x1a\n<script>", "image/png"), ("a.svg", b"<svg/>", "image/svg+xml")],
    )
    def test_an_image_may_be_shown_and_do_nothing(
        self, job: EndedJob, name: str, content: bytes, media_type: str
    ) -> None:
        job.put(name, content)
        answer = job.fetch(f"{name}?preview=true")
        assert (answer.content, answer.headers["content-type"]) == (content, media_type)
        assert answer.headers["content-disposition"].startswith("inline")
        policy = answer.headers["content-security-policy"]
        assert policy == "default-src 'none'; frame-ancestors 'none'; sandbox; style-src 'unsafe-inline'"
        assert answer.headers["x-content-type-options"] == "nosniff"
        again = job.fetch(f"{name}?preview=true", If_None_Match=answer.headers["etag"])
        assert again.status_code == 304

    def test_of_anything_else_there_is_none(self, job: EndedJob) -> None:
        job.put("a.bam", b"\x1f\x8b\x08\0")
        answer = job.fetch("a.bam?preview=true")
        assert (answer.status_code, answer.json()["type"]) == (422, "no-preview")

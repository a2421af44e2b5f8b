"""A job's files over HTTP: listed, fetched whole and in part, and nothing else fetched."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote_to_bytes

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.ended_job import LONG_AGO_NS, EndedJob
from tests.support.mounts import run_or_skip
from tests.support.server import running_server
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.client import ContractClient
    from tests.support.server import LiveServer


@pytest.fixture(scope="module")
def ended(server: LiveServer) -> EndedJob:
    return EndedJob(server)


@pytest.fixture
def job(ended: EndedJob) -> Iterator[EndedJob]:
    with ended.emptied():
        yield ended


class TestListing:
    def test_a_jobs_files_are_listed_with_size_and_time_and_where_they_are(self, ended: EndedJob) -> None:
        page = ended.page(prefix="results/")
        assert page["total"] == len(page["items"]) >= 4
        assert page["total_is_exact"] is True
        assert (page["left_out"], page["next_cursor"]) == (0, None)
        for item in page["items"]:
            answer = ended.client.get(item["links"]["self"])
            assert (answer.status_code, len(answer.content)) == (200, item["size"])
            assert item["modified_at"].startswith("20")
        assert ended.client.job(ended.id)["links"]["outputs"] == ended.url

    def test_names_that_begin_with_a_dot_are_shown_if_asked_for(self, ended: EndedJob) -> None:
        assert not [path for path in ended.paths() if path.startswith(".")]
        ended.put(".snakemake/hidden")
        assert ".snakemake/hidden" in ended.paths(all="true")
        assert ended.paths(prefix=".snakemake/") == []
        assert ended.paths(prefix=".snakemake/hid", all="true") == [".snakemake/hidden"]
        assert ended.fetch(".snakemake/hidden").content == b"content"

    def test_pages_follow_each_other(self, job: EndedJob) -> None:
        names = sorted(f"{folder}/{n}" for folder in ("a", "a-b", "b") for n in range(4))
        for name in names:
            job.put(name)
        url, found = f"{job.url}?limit=5", []
        while url:
            answer = job.client.get(url)
            found.append([item["path"] for item in answer.json()["items"]])
            assert answer.json()["total"] == 12
            assert ("link" in answer.headers) == (answer.json()["next_cursor"] is not None)
            url = answer.headers.get("link", "").removeprefix("<").partition(">")[0]
        assert [len(page) for page in found] == [5, 5, 2]
        assert sorted(path for page in found for path in page) == names

    @pytest.mark.parametrize("changed", [{"prefix": "b"}, {"all": "true"}])
    def test_a_cursor_belongs_to_its_filters(self, job: EndedJob, changed: dict[str, str]) -> None:
        for name in ("a", "b"):
            job.put(name)
        cursor = job.page(limit=1)["next_cursor"]
        assert job.paths(cursor=cursor) == ["b"]
        answer = job.client.get(job.url, params={"cursor": cursor, **changed})
        assert (answer.status_code, answer.json()["type"]) == (400, "invalid-cursor")

    @pytest.mark.parametrize("cursor", ["", "x", "AAAA", "!", "AAAAAAAAAAAA", "Ã¤"])
    def test_a_cursor_that_is_none_is_refused(self, ended: EndedJob, cursor: str) -> None:
        assert ended.client.get(ended.url, params={"cursor": cursor}).status_code == 400

    def test_before_a_job_starts_it_has_none(self, tmp_path: Path) -> None:
        with running_server(tmp_path, MAX_CORES="2", DATABASE_URL="memory://") as own:
            gate = tmp_path / "gate"
            first = own.client.submit(cores=2, parameters={"mock": {"hold": str(gate)}})["id"]
            own.client.wait_for(first, "running")
            waiting = own.client.submit(cores=2)["id"]
            url = f"/jobs/{waiting}/outputs"
            assert own.client.get(url).json()["items"] == []
            assert own.client.get(f"{url}/Snakefile").status_code == 404
            # That of the running one is there already.
            shown = wait_until(lambda: own.client.get(f"/jobs/{first}/outputs").json()["items"])
            assert "Snakefile" in [item["path"] for item in shown]
            gate.write_text("go")
            own.client.wait_for(waiting)
            own.client.delete(f"/jobs/{waiting}")
            assert own.client.get(url).json()["type"] == "job-not-found"
            assert own.client.get(f"{url}/Snakefile").json()["type"] == "job-not-found"

    @pytest.mark.parametrize("time_s", [-(2**33), 0, 2**33, 2**40])
    def test_a_file_may_have_any_time(self, job: EndedJob, time_s: int) -> None:
        path = job.put("file")
        try:
            os.utime(path, (time_s, time_s))
        except OverflowError:
            pytest.skip("not on this file system")
        (item,) = job.page()["items"]
        assert item["modified_at"]
        assert job.fetch("file").headers["last-modified"].endswith(" GMT")

    @pytest.mark.parametrize("params", [{"limit": 0}, {"limit": 501}, {"q": "x"}, {"all": "perhaps"}])
    def test_what_it_does_not_understand_is_refused(self, ended: EndedJob, params: dict[str, Any]) -> None:
        assert ended.client.get(ended.url, params=params).status_code == 422


ODD_NAMES = [
    b"with space", b"a\nb", b"\xff\xfe.bin", b"100%", b"a%2Fb", b"q?x=1#y", b"<script>", "größe 漢".encode(),
    b"\x01",
    b'"quoted"', b"back\\slash", b"...", b"a;b", b"a+b", b"%", b"%zz", b"\x7f", b"end\n", b"~", b"x" * 255,
]  # fmt: skip


class TestNames:
    def test_every_name_is_listed_and_its_link_fetches_it(self, job: EndedJob) -> None:
        for name in ODD_NAMES:
            job.put(name, name)
        items = {item["path"]: item for item in job.page(limit=500, all="true")["items"]}
        assert set(items) == {name.decode("utf-8", "replace") for name in ODD_NAMES}
        for name in ODD_NAMES:
            link = items[name.decode("utf-8", "replace")]["links"]["self"]
            assert job.raw(link.removeprefix(f"{job.url}/")) == (200, name)

    def test_pages_go_on_behind_any_name(self, job: EndedJob) -> None:
        for name in ODD_NAMES:
            job.put(name)
        found: list[Any] = []
        cursor: dict[str, str] | None = {}
        while cursor is not None:
            page = job.page(limit=1, all="true", **cursor)
            found += page["items"]
            cursor = {"cursor": page["next_cursor"]} if page["next_cursor"] else None
        assert len(found) == len(ODD_NAMES)


class TestFetching:
    def test_a_file_is_to_be_saved_and_not_shown(self, job: EndedJob) -> None:
        job.put("page.html", b"<script>alert(1)</script>")
        headers = job.fetch("page.html").headers
        assert headers["content-type"] == "application/octet-stream"
        assert headers["content-disposition"] == 'attachment; filename="page.html"'
        assert headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in headers["content-security-policy"]
        assert headers.get_list("content-security-policy") == [headers["content-security-policy"]]
        assert headers["cache-control"] == "private, no-cache"

    def test_head_has_the_same_headers_and_no_body(self, job: EndedJob) -> None:
        job.put("file.txt")
        get, head = (
            job.fetch("file.txt"),
            job.client.head(f"{job.url}/file.txt", headers={"Range": "bytes=0-1"}),
        )
        names = ("content-length", "content-type", "etag", "last-modified", "content-disposition")
        assert [head.headers[name] for name in names] == [get.headers[name] for name in names]
        assert (head.status_code, head.content, get.content) == (200, b"", b"content")

    @pytest.mark.parametrize(
        ("asked", "expected", "span"),
        [
            ("bytes=0-2", b"012", "0-2"),
            ("bytes=7-", b"789", "7-9"),
            ("bytes=-3", b"789", "7-9"),
            ("bytes=3-99", b"3456789", "3-9"),
            ("bytes=-99", b"0123456789", "0-9"),
        ],
    )
    def test_a_range_is_those_bytes(self, job: EndedJob, asked: str, expected: bytes, span: str) -> None:
        job.put("file", b"0123456789")
        answer = job.fetch("file", Range=asked)
        assert (answer.status_code, answer.content) == (206, expected)
        assert answer.headers["content-range"] == f"bytes {span}/10"

    @pytest.mark.parametrize("asked", ["bytes=10-", "bytes=-0", "bytes=99-100"])
    def test_a_range_behind_the_end_is_refused(self, job: EndedJob, asked: str) -> None:
        job.put("file", b"0123456789")
        answer = job.fetch("file", Range=asked)
        assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */10")

    @pytest.mark.parametrize("asked", ["bytes=0-1,3-4", "lines=1-2", "bytes=2-1", "bytes=x", "bytes=-"])
    def test_what_is_no_single_range_gets_the_whole(self, job: EndedJob, asked: str) -> None:
        job.put("file", b"0123456789")
        assert job.fetch("file", Range=asked).status_code == 200

    def test_an_empty_file_is_one_too(self, job: EndedJob) -> None:
        job.put("empty", b"")
        assert (job.fetch("empty").status_code, job.fetch("empty").content) == (200, b"")
        assert job.fetch("empty", Range="bytes=0-").status_code == 416

    def test_a_tag_holds_as_long_as_the_file_does(self, job: EndedJob) -> None:
        path = job.put("file")

        def settled() -> str:
            tag = job.fetch("file").headers["etag"]
            return tag if tag.startswith('"') else ""

        assert job.fetch("file").headers["etag"].startswith('W/"')  # it has just been made
        tag = wait_until(settled, what="the tag of a file at rest")
        assert job.fetch("file", If_None_Match=tag).status_code == 304
        assert job.fetch("file", If_Range=tag, Range="bytes=0-0").status_code == 206
        path.write_bytes(b"CONTENT")
        os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))  # same size and time: a copy that keeps them
        assert job.fetch("file", If_None_Match=tag).status_code == 200
        fresh = job.fetch("file", If_Range=tag, Range="bytes=0-0")
        assert (fresh.status_code, fresh.content) == (200, b"CONTENT")
        # Weak: it may be another file next time.
        assert job.fetch("file", If_Range=fresh.headers["etag"], Range="bytes=0-0").status_code == 200

    def test_a_file_larger_than_memory_is_read_where_it_is_asked_for(self, job: EndedJob) -> None:
        size = 3 * 2**30
        with job.put("sparse").open("r+b") as file:
            file.truncate(size)
            file.seek(2**31 - 2)
            file.write(b"over")
        assert job.page()["items"][0]["size"] == size
        assert job.client.head(f"{job.url}/sparse").headers["content-length"] == str(size)
        answer = job.fetch("sparse", Range=f"bytes={2**31 - 3}-{2**31 + 2}")
        assert (answer.content, answer.headers["content-range"].endswith(f"/{size}")) == (b"\0over\0", True)
        assert job.fetch("sparse", Range="bytes=-1").content == b"\0"

    def test_parameters_are_refused(self, ended: EndedJob) -> None:
        assert ended.client.get(f"{ended.url}/Snakefile?x=1").status_code == 422


SEGMENTS = [
    "file", "folder", "..", ".", "", "%2e%2e", "%2f", "f%69le", "attempts", "1", "spec.json", "%00", "etc",
]  # fmt: skip


class TestWhatIsNeverServed:
    @pytest.mark.parametrize(
        "path",
        [
            "../attempts/1/spec.json", "%2e%2e/attempts/1/spec.json", "..%2fattempts%2f1%2fspec.json",
            "%2e%2e%2f..", "folder/../file", "folder/%2E%2E/file", "./file", "%2e/file", "folder//file",
            "/file", "/etc/passwd", "%2Fetc%2Fpasswd", "//etc/passwd", "folder%2ffile", "folder/", "folder",
            "", "file/", "file%00", "file%00.txt", "%00", "file%0a", "file\\..\\x", "..\\attempts",
            "%5c..%5c", "file/x", "FILE", "%ff", "%c0%ae%c0%ae/attempts", "%252e%252e/attempts", "x" * 256,
            "x/" * 3000 + "x", "..;/attempts", "%",
        ],
    )  # fmt: skip
    def test_an_address_that_leads_elsewhere_answers_as_a_missing_file_does(
        self, job: EndedJob, path: str
    ) -> None:
        job.put("file")
        job.put("folder/file")
        assert job.raw(path) == job.raw("no-such-file")
        assert job.raw(path)[0] == 404

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(names=st.lists(st.sampled_from(SEGMENTS) | st.binary(max_size=4).map(quote), max_size=5))
    def test_no_address_leads_elsewhere(self, job: EndedJob, names: list[str]) -> None:
        job.put("file")
        job.put("folder/file")
        path = "/".join(names)
        if [unquote_to_bytes(name) for name in names] in ([b"file"], [b"folder", b"file"]):
            assert job.raw(path) == (200, b"content")
        else:
            assert job.raw(path) == job.raw("no-such-file")

    @pytest.mark.parametrize(
        "target", ["file", "folder", "/etc/passwd", "../attempts/1/spec.json", "/proc/self/environ", "/"]
    )
    def test_a_link_is_not_followed(self, job: EndedJob, target: str) -> None:
        job.put("file")
        job.put("folder/file")
        (job.work / "link").symlink_to(target)
        for path in ("link", "link/file", "link/etc/passwd"):
            assert job.raw(path) == job.raw("no-such-file")
        assert job.page()["left_out"] == 1
        assert job.paths() == ["file", "folder/file"]

    def test_a_hard_link_a_pipe_and_a_socket_are_left_out(
        self, job: EndedJob, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "secret").write_bytes(b"secret")
        os.link(tmp_path / "secret", job.work / "hard")
        os.mkfifo(job.work / "fifo")
        monkeypatch.chdir(job.work)  # the address of a socket must be short
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("socket")
            page = job.page()
            assert (page["items"], page["total"], page["left_out"]) == ([], 0, 3)
            for name in ("hard", "fifo", "socket"):
                assert job.raw(name) == job.raw("no-such-file")

    @pytest.mark.root
    def test_a_device_is_left_out(self, job: EndedJob) -> None:
        run_or_skip("mknod", str(job.work / "zero"), "c", "1", "5")
        assert job.page()["left_out"] == 1
        assert job.raw("zero") == job.raw("no-such-file")

    def test_a_job_that_does_not_exist_has_no_files(self, client: ContractClient) -> None:
        for job_id in ("0199b5f0-1c2d-7e3f-8a4b-5c6d7e8f9a0b",):
            for path in ("outputs", "outputs/Snakefile", "outputs/%2f", "outputs/"):
                assert client.get(f"/jobs/{job_id}/{path}").json()["type"] == "job-not-found"
        for job_id in ("00000000-0000-7000-8000-000000000000", "x", "..", "%2e%2e"):
            for path in ("outputs", "outputs/Snakefile"):
                assert client.get(f"/jobs/{job_id}/{path}").status_code == 404

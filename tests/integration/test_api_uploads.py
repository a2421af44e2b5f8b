"""Jobs that bring files, or their workflow, over HTTP."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psutil
import pytest

from snakeline.client import Client
from tests.support.engines import BUNDLED
from tests.support.server import running_server
from tests.support.tarballs import tgz
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.client import ContractClient
    from tests.support.server import LiveServer

SNAKEFILE = 'rule a:\n    output: "a.txt"\n    shell: "touch {output}"\n'
MULTIPART = "multipart/form-data; boundary=xx"
Files = list[tuple[str, tuple[str, bytes]]]


@pytest.fixture(scope="module")
def workflows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("workflows")
    (root / "demo").symlink_to(BUNDLED / "demo")
    for name, options in (("take", "max_files = 3\nmax_mb = 1\nunpack = true"), ("large", "")):
        (root / name).mkdir()
        (root / name / "Snakefile").write_text(SNAKEFILE)
        (root / name / "README.md").write_text("# Title\n\nTakes files.\n")
        (root / name / "snakeline.toml").write_text(f"[attachments]\n{options}\n")
    return root


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, workflows: Path) -> Iterator[LiveServer]:
    with running_server(
        tmp_path_factory.mktemp("service"),
        WORKFLOWS_DIR=str(workflows),
        WORKFLOW_UPLOADS="on",
        MAX_ATTACHMENTS_MB="64",
    ) as server:
        yield server


def body_of(job: Any, files: Files) -> bytes:
    """The body as it goes over the wire: what a library would not send as well."""
    parts = [b'--xx\r\nContent-Disposition: form-data; name="job"\r\n\r\n' + json.dumps(job).encode()]
    for name, (filename, content) in files:
        head = f'--xx\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"\r\n\r\n'
        parts.append(head.encode() + content)
    return b"\r\n".join([*parts, b"--xx--\r\n"])


def send(client: ContractClient, body: bytes, **headers: str) -> Any:
    return client.post("/jobs", content=body, headers={"Content-Type": MULTIPART, **headers})


def submit(client: ContractClient, job: dict[str, Any], files: Files, **headers: str) -> Any:
    return send(client, body_of(job, files), **headers)


def left_behind(server: LiveServer) -> list[str]:
    uploads = server.data_dir / "uploads"
    return os.listdir(uploads) if uploads.exists() else []


def outputs(client: ContractClient, job_id: str) -> list[str]:
    return [item["path"] for item in client.get(f"/jobs/{job_id}/outputs?limit=100").json()["items"]]


def test_files_are_in_the_jobs_input_and_told_with_their_checksums(
    client: ContractClient, server: LiveServer
) -> None:
    files = [("files", ("a.txt", b"hello")), ("files", ("d/b.tgz", tgz(x_txt="1", y__z_txt="2")))]
    answer = submit(client, {"workflow": "take"}, files)
    assert answer.status_code == 201, answer.text
    job = answer.json()
    assert job["attachments"] == [
        {"name": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for _, (name, content) in files
    ]
    assert client.wait_for(job["id"])["status"] == "completed"
    assert {"input/a.txt", "input/x.txt", "input/y/z.txt", "Snakefile"} <= set(outputs(client, job["id"]))
    assert client.get(f"/jobs/{job['id']}/outputs/input/y/z.txt").text == "2"
    assert left_behind(server) == []
    assert not (server.data_dir / "jobs" / job["id"] / "attachments").exists()


@pytest.mark.parametrize(
    ("name", "content"), [("Snakefile", SNAKEFILE.encode()), ("w.tar.gz", tgz(repo__Snakefile=SNAKEFILE))]
)
def test_a_workflow_that_comes_with_the_job_runs_as_any_other(
    client: ContractClient, name: str, content: bytes
) -> None:
    files = [("workflow", (name, content)), ("files", ("data.csv", b"1,2"))]
    job = submit(client, {"workflow": "uploaded", "cores": 1}, files).json()
    done = client.wait_for(job["id"])
    assert (done["status"], done["workflow"], done["links"]["workflow"]) == ("completed", "uploaded", None)
    assert done["workflow_version"].startswith("sha256:")
    assert {"Snakefile", "input/data.csv"} <= set(outputs(client, job["id"]))


def test_no_pattern_of_a_workflow_that_is_brought_along_is_ever_matched(client: ContractClient) -> None:
    """One that takes for ever would hold up everybody."""
    slow = json.dumps({"properties": {"a": {"pattern": "^(a+)+$"}}})
    options = "[attachments]\nnames = '(a+)+'\n"
    workflow = tgz(Snakefile=SNAKEFILE, parameters_schema_json=slow, snakeline_toml=options)
    files = [("workflow", ("w.tgz", workflow)), ("files", ("a" * 60 + ".b", b""))]
    answer = submit(client, {"workflow": "uploaded", "parameters": {"a": "a" * 60 + "b"}}, files)
    assert answer.status_code == 201


A_FILE = ("files", ("a.txt", b"x"))


@pytest.mark.parametrize(
    ("job", "files", "status", "pointer"),
    [
        ({"workflow": "demo"}, [A_FILE], 422, "/files/0"),
        ({"workflow": "nowhere"}, [A_FILE], 422, "/workflow"),
        ({"workflow": "uploaded"}, [A_FILE], 422, "/workflow"),
        ({"workflow": "take"}, [("workflow", ("Snakefile", b"x"))], 422, "/workflow"),
        ({"workflow": "take"}, [("files", ("../a", b"x"))], 422, "/files/0"),
        ({"workflow": "take"}, [A_FILE, A_FILE], 422, "/files/1"),
        ({"workflow": "take"}, [("files", (f"{n}", b"x")) for n in range(4)], 422, "/files/3"),
        ({"workflow": "take"}, [("files", ("a.zip", b"no archive"))], 422, "/files/0"),
        ({"workflow": "take"}, [("files", ("", b"x"))], 422, "/files/0"),
        ({"workflow": "take"}, [("other", ("a", b"x"))], 422, "/other"),
        ({"workflow": "take", "cores": 0}, [A_FILE], 422, "/cores"),
        ({"workflow": "take", "targets": ["-x"]}, [A_FILE], 422, "/targets/0"),
        ({"workflow": "take"}, [("files", ("a.txt", bytes(2**20 + 1)))], 413, None),
        ({"workflow": "uploaded"}, [("workflow", ("w.tgz", tgz(a="x")))], 422, "/workflow"),
        (
            {"workflow": "uploaded"},
            [("workflow", ("w.tgz", tgz(Snakefile="x", snakeline_toml="[")))],
            422,
            "/workflow",
        ),
        ({"x": "y" * 2**20}, [A_FILE], 413, None),
    ],
)
def test_what_cannot_be_taken_is_refused_with_its_place_and_leaves_nothing(
    client: ContractClient, server: LiveServer, job: dict[str, Any], files: Files, status: int, pointer: str
) -> None:
    before = client.get("/jobs?limit=1").json()["total"]
    answer = submit(client, job, files)
    assert answer.status_code == status, answer.text
    if pointer is not None:
        assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert left_behind(server) == []
    assert client.get("/jobs?limit=1").json()["total"] == before


@pytest.mark.parametrize(
    ("body", "content_type", "status", "slug"),
    [
        (b"--xx\r\ngarbage", MULTIPART, 400, "malformed-multipart"),
        (b"garbage", MULTIPART, 400, "malformed-multipart"),
        (
            b"--xx\r\nContent-Disposition: attachment\r\n\r\nx\r\n--xx--\r\n",
            MULTIPART,
            400,
            "malformed-multipart",
        ),
        (body_of({}, [])[:-6], MULTIPART, 400, "malformed-multipart"),
        (body_of({}, []), "multipart/form-data", 400, "malformed-multipart"),
        (b"--xx--\r\n", MULTIPART, 422, "invalid-request"),
        (body_of({}, []).replace(b'"job"', b'"files"; filename="a"'), MULTIPART, 422, "invalid-request"),
        (body_of("no object", []), MULTIPART, 422, "invalid-request"),
        (body_of({}, []).replace(b"{}", b"{"), MULTIPART, 400, "malformed-json"),
    ],
)
def test_a_body_that_is_no_such_form_is_refused(
    client: ContractClient, server: LiveServer, body: bytes, content_type: str, status: int, slug: str
) -> None:
    answer = client.post("/jobs", content=body, headers={"Content-Type": content_type})
    assert (answer.status_code, answer.json()["type"]) == (status, slug), answer.text
    assert "oundary" not in server.log  # nothing of a body is told


def test_a_form_without_files_is_a_submission_like_any_other(client: ContractClient) -> None:
    answer = submit(client, {"workflow": "demo", "parameters": {"count": 7}}, [])
    assert answer.status_code == 201
    assert answer.json()["parameters"] == {"count": 7, "greeting": "Hello from Snakeline"}
    assert answer.json()["attachments"] == []


def test_the_python_client_sends_files_and_workflows(server: LiveServer, tmp_path: Path) -> None:
    for name, text in (("a.txt", "1"), ("b.csv", "2"), ("mine.smk", SNAKEFILE)):
        (tmp_path / name).write_text(text)
    with Client(server.url) as client:
        listed = client.submit("large", files=[tmp_path / "a.txt", str(tmp_path / "b.csv")])
        named = {"deep/x.txt": tmp_path / "a.txt"}
        brought = client.submit("uploaded", files=named, workflow_file=tmp_path / "mine.smk")
        with pytest.raises(ValueError, match="the same name"):
            client.submit("large", files=[tmp_path / "a.txt", f"{tmp_path}/./a.txt"])
        assert [each["name"] for each in listed.raw["attachments"]] == ["a.txt", "b.csv"]
        assert client.wait(brought.id).status == "completed"
        assert {"input/deep/x.txt", "Snakefile"} <= set(outputs(server.client, brought.id))


def test_a_workflow_that_was_to_come_is_asked_for(client: ContractClient) -> None:
    answer = client.post("/jobs", json={"workflow": "uploaded"})
    assert answer.status_code == 422
    assert "multipart/form-data" in answer.json()["errors"][0]["detail"]


def test_a_key_stands_for_the_files_too(client: ContractClient, server: LiveServer) -> None:
    key = {"Idempotency-Key": "one"}
    files = [A_FILE, ("workflow", ("Snakefile", SNAKEFILE.encode()))]
    job = {"workflow": "uploaded"}
    first, again = submit(client, job, files, **key), submit(client, job, files, **key)
    assert again.json()["id"] == first.json()["id"]
    assert again.headers["idempotent-replayed"] == "true"
    for other in (
        [("files", ("a.txt", b"y")), files[1]],
        [A_FILE, ("workflow", ("Snakefile", b"rule b:\n"))],
    ):
        assert submit(client, job, other, **key).json()["type"] == "idempotency-mismatch"
    client.wait_for(first.json()["id"])
    assert left_behind(server) == []


def test_a_client_that_breaks_off_leaves_nothing(server: LiveServer) -> None:
    body = body_of({"workflow": "large"}, [("files", ("a.bin", bytes(2**20)))])
    lines = (
        "POST /jobs HTTP/1.1",
        "Host: x",
        f"Content-Type: {MULTIPART}",
        f"Content-Length: {2 * len(body)}",
    )
    head = "\r\n".join((*lines, "", ""))
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=10) as sock:
        sock.sendall(head.encode() + body[: len(body) // 2])
        wait_until(lambda: left_behind(server), what="the upload to begin")
    wait_until(lambda: not left_behind(server), what="the upload to be gone")


def test_a_large_file_takes_no_memory_and_a_larger_one_is_not_read(
    client: ContractClient, server: LiveServer
) -> None:
    content = os.urandom(2**20) * 32
    body = body_of({"workflow": "large"}, [("files", ("a.bin", content))])
    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss
    with Path(f"/proc/{server.process.pid}/clear_refs").open("w") as refs:
        refs.write("5")  # the peak is counted anew (proc(5))
    job = send(client, body).json()
    peak = next(
        int(line.split()[1]) * 1024
        for line in Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
        if line.startswith("VmHWM")
    )
    assert peak - before < 20 * 2**20
    client.wait_for(job["id"])
    answer = client.get(f"/jobs/{job['id']}/outputs/input/a.bin")
    assert hashlib.sha256(answer.content).hexdigest() == job["attachments"][0]["sha256"]
    assert client.delete(f"/jobs/{job['id']}").status_code == 204
    assert send(client, body + bytes(40 * 2**20)).status_code == 413
    assert client.post("/jobs/x/cancel", content=body, headers={"Content-Type": MULTIPART}).status_code == 413


def test_each_job_runs_the_version_that_was_there_when_it_was_submitted(
    client: ContractClient, workflows: Path
) -> None:
    shown = client.get("/workflows/take").json()
    assert (shown["source"], shown["commit"], shown["readme"]) == (
        "folder",
        None,
        "# Title\n\nTakes files.\n",
    )
    assert shown["attachments"] == {"max_mb": 1.0, "max_files": 3, "names": None, "unpack": True}
    first = client.submit(workflow="take")
    assert first["workflow_version"] == shown["version"]
    (workflows / "take" / "helper.py").write_text("new")

    def changed() -> dict[str, Any]:
        job = client.submit(workflow="take")
        return job if job["workflow_version"] != shown["version"] else {}

    second = wait_until(changed, what="the change to count")
    assert second["workflow_version"] == client.get("/workflows/take").json()["version"]
    for job, has_it in ((first, False), (second, True)):
        client.wait_for(job["id"])
        assert ("helper.py" in outputs(client, job["id"])) is has_it

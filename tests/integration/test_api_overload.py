"""What a client is told when the service cannot take more, or cannot store it."""

from __future__ import annotations

import os
import resource
import subprocess
from typing import TYPE_CHECKING

import psutil
import pytest

from runner.settings import RunnerSettings
from tests.support.server import running_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.client import ContractClient


@pytest.fixture(scope="module")
def unwritable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ContractClient, str]]:
    """A service whose process the kernel lets write no file, neither store nor log; an ended job's id."""
    with running_server(tmp_path_factory.mktemp("unwritable"), LOG_LEVEL="debug") as own:
        process = psutil.Process(own.process.pid)
        before = process.rlimit(resource.RLIMIT_FSIZE)
        job_id = own.client.run()["id"]
        process.rlimit(resource.RLIMIT_FSIZE, (0, before[1]))
        yield own.client, job_id
        process.rlimit(resource.RLIMIT_FSIZE, before)
        # It may be written again, and so the same service works again.
        assert own.client.run()["status"] == "completed"


def test_a_store_that_cannot_be_written_is_503_and_may_be_tried_again(
    unwritable: tuple[ContractClient, str],
) -> None:
    client, job_id = unwritable
    for answer in (client.post("/jobs", json={}), client.delete(f"/jobs/{job_id}")):
        assert (answer.status_code, answer.json()["type"]) == (503, "store-unavailable")
        assert int(answer.headers["retry-after"]) > 0
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["type"]) == (503, "not-ready")
    assert int(ready.headers["retry-after"]) > 0
    assert [check["name"] for check in ready.json()["checks"] if not check["ok"]] == ["store"]


def test_a_log_that_cannot_be_written_disturbs_no_request(unwritable: tuple[ContractClient, str]) -> None:
    client, job_id = unwritable
    for path in ("/healthz", "/jobs", f"/jobs/{job_id}", f"/jobs/{job_id}/logs", "/nope"):
        assert client.get(path).status_code == (404 if path == "/nope" else 200)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts a small file system")
def test_a_disk_that_fills_up_is_507_until_there_is_room_again(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    size_bytes = 2 * RunnerSettings.model_fields["min_free_bytes"].default
    options = f"size={size_bytes}"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(data)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        with running_server(tmp_path) as own:
            job_id = own.client.run()["id"]
            ballast = data / "ballast"
            with ballast.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, size_bytes * 5 // 8)
            answer = own.client.post("/jobs", json={})
            assert (answer.status_code, answer.json()["type"]) == (507, "storage-full")
            assert own.client.get("/jobs").json()["total"] == 1
            ready = own.client.get("/readyz")
            assert ready.status_code == 503
            assert [check["name"] for check in ready.json()["checks"] if not check["ok"]] == ["disk"]
            # What is there can be read and deleted.
            assert own.client.get(f"/jobs/{job_id}/logs").status_code == 200
            assert own.client.delete(f"/jobs/{job_id}").status_code == 204
            ballast.unlink()
            assert own.client.run()["status"] == "completed"
    finally:
        subprocess.run(["umount", "-l", str(data)], check=True)

"""What a client is told when the service cannot take more, or cannot store it."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.support.server import running_server

if TYPE_CHECKING:
    from collections.abc import Iterator

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

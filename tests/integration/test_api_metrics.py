"""`/metrics`: what it tells, and that it tells when something is wrong."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.held_job import held_job
from tests.support.mounts import fill, read_only, run_or_skip, small_disk, unmount
from tests.support.server import LiveServer, running_server
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.client import ContractClient


def figures(client: ContractClient) -> dict[str, float]:
    """Every sample by its name and the values of its labels."""
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        ":".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_it_counts_jobs_and_problems_and_says_that_the_service_is_ready(tmp_path: Path) -> None:
    with running_server(tmp_path, DATABASE_URL="memory://") as server:
        client = server.client
        client.run()
        client.run(parameters={"mock": {"exit_code": 1}})
        client.get("/jobs/01a20d6b-e946-756a-90b5-44238edced4b")
        now = figures(client)
        assert now["snakeline_ready"] == 1
        assert (now["snakeline_jobs:completed"], now["snakeline_jobs:failed"]) == (1, 1)
        assert (now["snakeline_jobs:pending"], now["snakeline_jobs:running"]) == (0, 0)
        assert now["snakeline_http_problems_total:job-not-found"] == 1
        assert now["snakeline_http_problems_total:storage-full"] == 0
        assert now["snakeline_check_ok:store"] == now["snakeline_check_ok:disk"] == 1
        assert now["snakeline_launches_postponed"] == 0
        assert now["snakeline_disk_free_bytes"] > 0


def test_a_problem_is_counted_whoever_has_answered_it(tmp_path: Path) -> None:
    with running_server(tmp_path, DATABASE_URL="memory://") as server:
        client = server.client
        client.post("/jobs", json={"workflow": 7})
        client.get("/jobs?cursor=none")
        client.post("/jobs", content=b"{", headers={"Content-Type": "application/json"})
        client.get("/nowhere")
        for _ in range(2):
            client.put("/jobs")
        client.post("/jobs", content=b"x" * 2**21, headers={"Content-Type": "application/json"})
        now = figures(client)
        slugs = ("invalid-request", "invalid-cursor", "malformed-json", "not-found", "method-not-allowed")
        told = [now.get(f"snakeline_http_problems_total:{slug}") for slug in (*slugs, "body-too-large")]
        assert told == [1, 1, 1, 1, 2, 1]


def test_it_tells_of_the_queue_the_cores_and_who_follows(tmp_path: Path) -> None:
    with running_server(tmp_path, MAX_CORES="3") as server:
        client = server.client
        with held_job(client, tmp_path) as (job_id, _):
            before = figures(client)
            assert before["snakeline_oldest_pending_seconds"] == 0
            wide = client.submit(cores=3)["id"]
            with client.stream("GET", f"/jobs/{job_id}/logs?follow=true") as answer:
                log = answer.iter_raw()  # dropped, it would close the connection
                assert next(log)
                now = figures(client)
            assert (now["snakeline_jobs:pending"], now["snakeline_jobs:running"]) == (1, 1)
            assert now["snakeline_workflow_jobs:pending:demo"] == 1
            assert 0 < now["snakeline_oldest_pending_seconds"] < 60
            cores = ("snakeline_cores", "snakeline_cores_used", "snakeline_cores_free")
            assert tuple(now[name] for name in cores) == (3, 1, 2)
            assert now["snakeline_followers:/jobs/{job_id}/logs"] == now["snakeline_http_streams"] == 1
            route = "/jobs/{job_id}/logs"
            wait_until(
                lambda: figures(client)[f"snakeline_followers:{route}"] == 0, what="the follower to be gone"
            )
            assert figures(client)[f"snakeline_http_requests_total:GET:{route}:200"] == 1
            assert f"snakeline_http_request_seconds_count:GET:{route}" not in figures(client)
            client.post(f"/jobs/{wide}/cancel")
            ended = "snakeline_jobs_ended_total:cancel_requested:cancelled:demo"
            assert (before[ended], figures(client)[ended]) == (0, 1)


def test_scrapes_at_the_same_time_are_answered_alike(tmp_path: Path) -> None:
    with running_server(tmp_path, DATABASE_URL="memory://") as server:
        client = server.client
        client.run()
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: figures(client)["snakeline_jobs:completed"], range(24)))
        assert found == [1.0] * 24


@pytest.mark.root
def test_a_full_disk_is_told_by_readyz_and_a_metric_and_heals_without_a_restart(tmp_path: Path) -> None:
    with small_disk(tmp_path / "data", options="size=200m") as disk, running_server(tmp_path) as server:
        client = server.client
        filler = fill(disk)
        assert refused_for_storage(client, "needed") == 1
        filler.unlink()
        assert figures(client)["snakeline_ready"] == 1
        with read_only(disk):
            assert refused_for_storage(client, "read-only") == 2
        assert figures(client)["snakeline_ready"] == 1
        assert client.run(parameters={"mock": {"exit_code": 9}})["exit_code"] == 9


def refused_for_storage(client: ContractClient, why: str) -> float:
    """That a job is refused and everything says why; how many have been so far."""
    assert why in client.get("/readyz").json()["detail"]
    refused = client.post("/jobs", json={})
    assert (refused.status_code, refused.json()["type"]) == (507, "storage-full")
    assert why in refused.json()["detail"]
    told = figures(client)
    assert (told["snakeline_ready"], told["snakeline_check_ok:disk"]) == (0, 0)
    return told["snakeline_http_problems_total:storage-full"]


@contextmanager
def mounted_image(image: Path, folder: Path) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    run_or_skip("mount", "-o", "loop,errors=remount-ro", str(image), str(folder))
    try:
        yield
    finally:
        unmount(folder)


@pytest.mark.root
def test_a_file_system_that_turns_read_only_is_told_and_costs_nothing_that_was_accepted(
    tmp_path: Path,
) -> None:
    """As ext4 does after an error: nothing can be written any more until it is mounted anew."""
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(200 * 2**20)
    run_or_skip("mkfs.ext4", "-q", str(image))
    disk = tmp_path / "data"
    with mounted_image(image, disk):
        device = run_or_skip("findmnt", "-no", "SOURCE", str(disk))
        server = LiveServer(tmp_path, {"MAX_CORES": "1"})
        client = server.client
        try:
            known = client.run(parameters={"mock": {"exit_code": 7}})
            Path("/sys/fs/ext4", Path(device).name, "trigger_fs_error").write_text("as a test")
            refused = client.post("/jobs", json={})
            assert (refused.status_code, refused.json()["type"]) == (503, "store-unavailable")
            assert int(refused.headers["retry-after"]) > 0
            assert client.get("/readyz").status_code == 503
            told = figures(client)
            assert (told["snakeline_ready"], told["snakeline_check_ok:store"]) == (0, 0)
            assert client.job(known["id"])["exit_code"] == 7
            assert client.get("/healthz").status_code == 200
        finally:
            client.close()
            server.process.kill()
            server.process.wait()
    subprocess.run(["fsck.ext4", "-p", str(image)], capture_output=True, check=False)
    with mounted_image(image, disk), running_server(tmp_path) as again:
        assert again.client.job(known["id"])["exit_code"] == 7
        assert again.client.get("/jobs").json()["total"] == 1
        assert again.client.run(parameters={"mock": {"exit_code": 8}})["exit_code"] == 8

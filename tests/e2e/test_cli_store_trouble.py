"""The service whose store cannot be used: one line at the start, 503 meanwhile, whole again afterwards."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from runner import bootstrap, checkup
from runner.data_dir import has_jobs
from runner.errors import StoreUnavailable
from tests.support.command import snakeline
from tests.support.runners import Hold, RunningRunner, settings_for
from tests.support.server import running_server
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.server import LiveServer

_HOLD_THE_LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
connection.execute("ROLLBACK")
"""


@contextlib.contextmanager
def locked(store: Path) -> Iterator[None]:
    """Another process holds the database for writing."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD_THE_LOCK, str(store)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield
        process.stdin.close()
        assert process.wait(10) == 0


@contextlib.contextmanager
def moved_away(store: Path) -> Iterator[None]:
    away = store.with_name("away.db")
    store.rename(away)
    yield
    away.rename(store)


def job_running(server: LiveServer, hold: Hold) -> str:
    job_id: str = server.client.post("/jobs", json={"parameters": {"mock": {"hold": hold.path}}}).json()["id"]
    wait_until(lambda: status_of(server, job_id) == "running", what="the job to run")
    return job_id


def status_of(server: LiveServer, job_id: str) -> str:
    status: str = server.client.get(f"/jobs/{job_id}").json()["status"]
    return status


def assert_refuses(server: LiveServer) -> None:
    refused = server.client.post("/jobs", json={})
    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) > 0
    assert refused.headers["Content-Type"] == "application/problem+json"


def assert_healed(server: LiveServer, job_id: str) -> None:
    wait_until(lambda: status_of(server, job_id) == "completed", what="the exit to be recorded")
    assert server.client.get(f"/jobs/{job_id}").json()["exit_code"] == 0
    assert server.client.get("/readyz").status_code == 200
    later = server.client.post("/jobs", json={}).json()["id"]
    wait_until(lambda: status_of(server, later) == "completed", what="a later job to run")


@pytest.mark.parametrize(
    "least_s", [0, pytest.param(30, marks=[pytest.mark.soak, pytest.mark.timeout(180)], id="30 s")]
)
def test_a_database_that_another_process_holds_costs_no_result_and_needs_no_restart(
    tmp_path: Path, least_s: float
) -> None:
    hold = Hold(tmp_path)
    with running_server(tmp_path) as server:
        job_id = job_running(server, hold)
        began = time.monotonic()
        with locked(server.data_dir / "snakeline.db"):
            hold.release()
            assert_refuses(server)
            while time.monotonic() < began + least_s:
                assert_refuses(server)
            assert status_of(server, job_id) == "running", "reads go on, and nothing is made up"
            assert server.client.get("/healthz").status_code == 200
        assert_healed(server, job_id)


def test_a_store_that_is_gone_for_a_while_costs_no_result_and_needs_no_restart(tmp_path: Path) -> None:
    hold = Hold(tmp_path)
    with running_server(tmp_path) as server:
        job_id = job_running(server, hold)
        with moved_away(server.data_dir / "snakeline.db"):
            hold.release()
            assert_refuses(server)
            readiness = server.client.get("/readyz")
            assert readiness.status_code == 503
            [store] = [check for check in readiness.json()["checks"] if check["name"] == "store"]
            assert store["ok"] is False
        assert_healed(server, job_id)


@contextlib.contextmanager
def syncs_failing(server: LiveServer, directory: Path) -> Iterator[None]:
    """Every fsync and fdatasync of the service fails, as on a broken disk."""
    trace = directory / "trace"
    command = ["strace", "-f", "-q", "-o", str(trace), "-e", "trace=fsync,fdatasync"]
    command += ["-e", "inject=fsync,fdatasync:error=EIO", "-p", str(server.process.pid)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as strace:
        try:

            def attached() -> bool:
                if strace.poll() is not None:
                    pytest.skip("this machine lets nobody trace a process")
                return server.client.get("/readyz").status_code == 503

            wait_until(attached, timeout_s=20, what="a failed sync")
            yield
        finally:
            strace.terminate()


@pytest.mark.skipif(shutil.which("strace") is None, reason="failing a system call needs strace")
def test_a_disk_that_fails_to_sync_for_a_while_loses_no_job_and_stores_none_that_it_refused(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    accepted: list[str] = []
    refused: list[str] = []

    def submit(server: LiveServer) -> None:
        name = f"job {len(accepted)} {len(refused)}"
        answer = server.client.post("/jobs", json={"name": name})
        assert answer.status_code in (201, 503)
        (accepted if answer.status_code == 201 else refused).append(name)

    with running_server(tmp_path) as server:
        for _ in range(5):
            submit(server)
        with syncs_failing(server, tmp_path):
            for _ in range(10):
                submit(server)
        wait_until(lambda: server.client.get("/readyz").status_code == 200, what="the service to heal")
        for _ in range(5):
            submit(server)
        assert len(refused) == 10
        page = server.client.get("/jobs?limit=500").json()
        assert {job["name"] for job in page["items"]} == set(accepted)
        for job in page["items"]:
            assert server.client.wait_for(job["id"])["status"] == "completed"
        server.process.kill()
        server.process.wait()
    with running_server(tmp_path) as server:
        page = server.client.get("/jobs?limit=500").json()
        assert {job["name"] for job in page["items"]} == set(accepted)
    numbers = f"{len(accepted)} jobs accepted, {len(refused)} refused while syncs failed: 0 lost, 0 wrong"
    record_property("numbers", numbers)
    print(numbers)  # noqa: T201 - told with -rA


@pytest.mark.parametrize("kind", ["truncated", "empty", "missing", "garbage", "foreign", "half a restore"])
def test_a_store_that_cannot_be_used_stops_the_start_and_says_what_to_do(tmp_path: Path, kind: str) -> None:
    settings = settings_for(tmp_path / "data")
    with closing(RunningRunner(settings)) as runner:
        runner.submit()
        wait_until(lambda: has_jobs(settings.data_dir), what="files of the job")
    store = settings.data_dir / "snakeline.db"
    spoil(store, kind)
    before = store.read_bytes() if store.exists() else None
    with pytest.raises(StoreUnavailable) as caught:
        bootstrap.build_runner(settings)
    [checked] = [found for found in checkup.check(settings) if found.name == "store"]
    assert not checked.ok
    for said in (str(caught.value), checked.detail):
        assert str(store) in said
        assert ("another program" if kind == "foreign" else "snakeline restore") in said
    if kind == "truncated":
        outcome = snakeline("serve", cwd=tmp_path)
        assert (outcome.returncode, outcome.stdout) == (2, "")
        assert outcome.stderr == f"snakeline: {caught.value}\n"
    assert (store.read_bytes() if store.exists() else None) == before


def spoil(store: Path, kind: str) -> None:
    match kind:
        case "truncated":
            store.write_bytes(store.read_bytes()[: 4096 * 3])
        case "empty":
            store.write_bytes(b"")
        case "missing":
            store.unlink()
        case "garbage":
            store.write_bytes(b"no database at all " * 5000)
        case "foreign":
            store.unlink()
            with closing(sqlite3.connect(store)) as other, other:
                other.execute("CREATE TABLE jobs (id)")
        case _:
            store.rename(store.with_name("snakeline.db.restoring"))
            shutil.rmtree(store.parent / "jobs")

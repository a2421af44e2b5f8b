"""The service is killed with SIGKILL and started again on the same data: nothing accepted is lost."""

from __future__ import annotations

import threading
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from snakeline.client import Client, ClientError
from tests.support.server import running_server
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.server import LiveServer

SETTINGS = {
    "MOCK_MIN_S": "0",
    "MOCK_MAX_S": "0",
    "MOCK_SUCCESS_RATE": "1",
    "MAX_CORES": "8",
    "STOP_GRACE_S": "1",
}


class Service:
    """One on the data in this directory, and the client of those who use it."""

    def __init__(self, server: LiveServer, client: Client) -> None:
        self._server = server
        self.client = client

    def kill(self) -> None:
        self._server.process.kill()
        self._server.process.wait(timeout=10)


@contextmanager
def service(directory: Path, **settings: str) -> Iterator[Service]:
    with running_server(directory, **SETTINGS | settings) as server, Client(server.url) as client:
        yield Service(server, client)


def test_every_acknowledged_job_is_there_after_a_kill_9(tmp_path: Path) -> None:
    acknowledged: list[str] = []
    with ExitStack() as stack:
        first = stack.enter_context(service(tmp_path, MAX_CORES="1"))

        def submit() -> None:
            with suppress(ClientError), Client(first.client.base_url, retry_for_s=0) as client:
                while True:
                    acknowledged.append(client.submit("demo", parameters={"mock": {"hold": "never"}}).id)

        submitters = [threading.Thread(target=submit) for _ in range(4)]
        for thread in submitters:
            thread.start()
        wait_until(lambda: len(acknowledged) >= 100, timeout_s=30, what="100 acknowledged jobs")
        first.kill()
        for thread in submitters:
            thread.join()

        second = stack.enter_context(service(tmp_path))
        stored: set[str] = set()
        cursor = None
        while True:
            page = second.client.list(limit=500, cursor=cursor)
            stored |= {job.id for job in page.items}
            if (cursor := page.next_cursor) is None:
                break
        assert set(acknowledged) <= stored
        assert page.total == len(stored)


def test_jobs_run_on_without_the_service_and_the_next_one_learns_how_they_ended(tmp_path: Path) -> None:
    go = tmp_path / "gate" / "go"
    go.parent.mkdir()  # beside the data, what comes later cannot be seen by jobs
    codes = [0, 1, 3, 77, 255]
    with ExitStack() as stack:
        first = stack.enter_context(service(tmp_path))
        jobs = [
            first.client.submit(
                "demo", parameters={"mock": {"hold": str(go), "exit_code": code, "lines": 10}}
            )
            for code in codes
        ]
        wait_until(
            lambda: all(b"Building DAG" in first.client.log(job.id) for job in jobs), what="every engine runs"
        )
        first.kill()
        go.write_text("go")
        records = [tmp_path / "data/jobs" / job.id / "attempts/1/exit.json" for job in jobs]
        wait_until(lambda: all(record.exists() for record in records), what="jobs end without the service")

        second = stack.enter_context(service(tmp_path))
        ended = [second.client.wait(job.id, timeout_s=20) for job in jobs]
        assert [job.exit_code for job in ended] == codes
        assert [job.status for job in ended] == ["completed"] + ["failed"] * 4
        assert {job.attempt for job in ended} == {1}
        assert all(b"Building DAG" in second.client.log(job.id) for job in jobs)


def test_a_cancel_reaches_a_job_that_an_earlier_service_started(tmp_path: Path) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(service(tmp_path))
        job = first.client.submit("demo", parameters={"mock": {"hold": "never", "spawn_children": 2}})
        wait_until(lambda: first.client.get(job.id).status == "running", what="the job runs")
        first.kill()
        second = stack.enter_context(service(tmp_path))
        second.client.cancel(job.id)
        assert second.client.wait(job.id, timeout_s=20).reason == "cancel_requested"

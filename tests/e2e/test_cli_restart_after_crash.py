"""`snakeline serve --restart`: the service is killed, its jobs are not; they end or are stopped as ever."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from runner.attempt_files import AttemptFiles, ExitRecord
from snakeline.client import Client
from tests.support.server import QUICK_MOCK, running_server, service_environment
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


def children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as told:
        return [int(child) for child in told.read().split()]


class Restarted:
    """`serve --restart` with jobs that are let go or stopped with it."""

    def __init__(self, folder: Path, on_shutdown: str) -> None:
        self.data_dir = folder / "data"
        settings = {
            "PORT": "0",
            "DATA_DIR": str(self.data_dir),
            "ON_SHUTDOWN": on_shutdown,
            "LOG_FORMAT": "json",
            **QUICK_MOCK,
        }
        self._log = folder / "log"
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "snakeline", "serve", "--restart"],
                env=service_environment(settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def told(self) -> str:
        return self._log.read_text()

    def url(self, number: int) -> str:
        """Of the n-th service, once it has started."""
        pattern = re.compile(r"^Snakeline is at (http://\S+)", re.MULTILINE)
        found: list[str] = wait_until(
            lambda: pattern.findall(self.told())[number - 1 :], what=f"start {number}"
        )
        return found[0]

    def kill_service(self) -> None:
        (service,) = children(self.process.pid)
        pidfd = os.pidfd_open(service)
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)


@contextmanager
def restarted(folder: Path, on_shutdown: str) -> Iterator[Restarted]:
    service = Restarted(folder, on_shutdown)
    try:
        yield service
    finally:
        service.process.terminate()
        service.process.wait(20)


def test_a_killed_service_is_back_and_its_jobs_have_not_noticed(tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    os.mkfifo(hold)
    with restarted(tmp_path, "detach") as service:
        with Client(service.url(1)) as client:
            job = client.submit("demo", parameters={"mock": {"hold": str(hold), "exit_code": 23}})
            wait_until(lambda: client.get(job.id).status == "running", what="the job to run")
        service.kill_service()
        with Client(service.url(2)) as client:
            assert client.get(job.id).status == "running"
            os.close(os.open(hold, os.O_WRONLY))
            ended = client.wait(job.id, timeout_s=20)
            assert (ended.status, ended.exit_code, ended.attempt) == ("failed", 23, 1)
        service.process.terminate()
        assert service.process.wait(20) == 0


def test_told_to_stop_right_after_a_crash_the_jobs_are_stopped_recorded_and_resume(tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    os.mkfifo(hold)
    with restarted(tmp_path, "stop") as service:
        with Client(service.url(1)) as client:
            job = client.submit("demo", parameters={"mock": {"hold": str(hold)}})
            wait_until(lambda: b"Building DAG" in client.log(job.id), what="the engine to run")
        service.kill_service()
        wait_until(lambda: "service.crashed" in service.told(), what="the crash to be seen")
        told_at = time.monotonic()
        service.process.terminate()
        assert service.process.wait(20) == 0
        assert time.monotonic() - told_at < 10
        record = ExitRecord.load(Path(AttemptFiles.of(service.data_dir, job.id, 1).exit).read_bytes())
        assert record.stopped == "interrupt"
    with running_server(tmp_path) as server, Client(server.url) as client:
        wait_until(lambda: client.get(job.id).status == "running", what="the job to run again")
        os.close(os.open(hold, os.O_WRONLY))
        ended = client.wait(job.id, timeout_s=20)
        assert (ended.status, ended.attempt) == ("completed", 2)

"""`snakeline serve --restart`: the service is killed, its jobs are not, and they end as ever."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from snakeline.client import Client
from tests.support.server import QUICK_MOCK, service_environment
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from pathlib import Path


def children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as told:
        return [int(child) for child in told.read().split()]


def test_a_killed_service_is_back_and_its_jobs_have_not_noticed(tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    os.mkfifo(hold)
    settings = {"PORT": "0", "DATA_DIR": str(tmp_path / "data"), "ON_SHUTDOWN": "detach", **QUICK_MOCK}
    log_path = tmp_path / "log"

    def started() -> list[str]:
        return re.findall(r"^Snakeline is at (http://\S+)", log_path.read_text(), re.MULTILINE)

    with log_path.open("wb") as log:
        restarter = subprocess.Popen(
            [sys.executable, "-m", "snakeline", "serve", "--restart"],
            env=service_environment(settings),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        (url,) = wait_until(started, what="the start-up line")
        with Client(url) as client:
            job = client.submit("demo", parameters={"mock": {"hold": str(hold), "exit_code": 23}})
            wait_until(lambda: client.get(job.id).status == "running", what="the job to run")
        (service,) = children(restarter.pid)
        pidfd = os.pidfd_open(service)
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)

        url = wait_until(lambda: started()[1:], what="the second start-up line")[0]
        with Client(url) as client:
            assert client.get(job.id).status == "running"
            os.close(os.open(hold, os.O_WRONLY))
            ended = client.wait(job.id, timeout_s=20)
            assert (ended.status, ended.exit_code, ended.attempt) == ("failed", 23, 1)
        restarter.terminate()
        assert restarter.wait(20) == 0
    finally:
        restarter.terminate()
        restarter.wait(20)

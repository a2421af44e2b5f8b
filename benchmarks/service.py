"""The service in a process of its own, on a free loopback port, with a data directory of its own."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from benchmarks.processes import shim_pids
from runner.backends.engine_run import FORCE
from snakeline.client import Client

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

_START_S = 60.0
_STOP_S = 30.0
_END_OF_JOBS_S = 60.0
AT_ONCE = {"MOCK_MIN_S": "0", "MOCK_MAX_S": "0", "MOCK_SUCCESS_RATE": "1", "LOG_LEVEL": "warning"}


def environment(settings: dict[str, str]) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("SNAKELINE_")}  # noqa: TID251
    return inherited | {f"SNAKELINE_{name}": value for name, value in settings.items()}


class Service:
    """Started on entry; on exit it and its jobs are ended and waited for."""

    def __init__(self, directory: Path, **settings: str) -> None:
        directory.mkdir(exist_ok=True)
        self.data_dir = directory / "data"
        self._log_path = directory / "service.log"
        self._settings = (
            AT_ONCE | {"PORT": "0", "DATA_DIR": str(self.data_dir), "STOP_GRACE_S": "1"} | settings
        )
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        self.end_jobs()

    def start(self) -> float:
        """Start it; the seconds until it answers that it is ready."""
        begun = time.perf_counter()
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "snakeline", "serve"],
                env=environment(self._settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        while time.perf_counter() - begun < _START_S:
            found = re.search(r"http://\S+", self.log)
            if found:
                self.url = found[0]
                with self.client() as client:
                    if client.ready()["status"] == "ready":
                        return time.perf_counter() - begun
            elif self._process.poll() is not None:
                break
            pause(0.005)
        self._stop()
        raise RuntimeError(f"the service did not become ready: {self.log[-2000:]}")

    @property
    def log(self) -> str:
        return self._log_path.read_text(errors="replace")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)

    def client(self) -> Client:
        return Client(self.url)

    def kill(self) -> None:
        """As a crash would: SIGKILL. Its jobs go on."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def end_jobs(self) -> None:
        """End every job that still runs, as a forced cancel does. For a service that no longer runs."""
        pidfds = []
        for pid in shim_pids(self.data_dir):
            with suppress(ProcessLookupError):
                pidfds.append(os.pidfd_open(pid))
        for pidfd in pidfds:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, FORCE)
        deadline = time.monotonic() + _END_OF_JOBS_S
        for pidfd in pidfds:
            is_gone = _wait(pidfd, deadline)
            os.close(pidfd)
            if not is_gone:
                raise RuntimeError("a job could not be ended")

    def _stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


def pause(seconds: float) -> None:
    time.sleep(seconds)  # noqa: TID251 - benchmarks look at the clock, not at conditions alone


def _wait(pidfd: int, deadline: float) -> bool:
    poll = select.poll()  # select() would refuse a descriptor above 1023
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))

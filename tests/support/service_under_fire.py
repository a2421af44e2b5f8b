"""A service that is killed and started again on one data directory, as often as a test likes."""

from __future__ import annotations

import os
import re
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import httpx2

from tests.support.forked_service import SERVE, ForkedService, ForkingProcess
from tests.support.job_processes import title_of
from tests.support.server import QUICK_MOCK, START_TIMEOUT_S, STOP_TIMEOUT_S, service_environment
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

_START_LINE: Final = re.compile(r"^Snakeline is at (http://\S+)", re.MULTILINE)


class ServiceUnderFire:
    """Starts, kills and stops one service after the other; at most one runs. On exit it is killed.

    `url` is that of the service that runs, and empty while none has said where it is.
    """

    def __init__(
        self, directory: Path, settings: Mapping[str, str], *, environment: Mapping[str, str] | None = None
    ) -> None:
        self.directory = directory
        self.data_dir = directory / "data"
        self.settings = {
            "PORT": "0",
            "DATA_DIR": str(self.data_dir),
            "ON_SHUTDOWN": "detach",
            "JOB_WRITABLE": f"{directory / 'starts'}:/dev/shm",  # where jobs count their starts
            **QUICK_MOCK,
            **settings,
        }
        self._environment = dict(environment or {})
        self.starts = 0
        self.url = ""
        self._process: ForkedService | None = None
        self._forking: ForkingProcess | None = None  # of our own where it has an environment of its own
        self._client: httpx2.Client | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self.kill()
        if self._forking is not None:
            self._forking.close()

    # ------------------------------------------------------------ starts and ends

    def start(self, *command: str) -> Self:
        """Start one and return at once; `command` is the module to run and its arguments."""
        assert self._process is None, "one at a time"
        if self._environment and self._forking is None:
            self._forking = ForkingProcess(self._environment)
        self.starts += 1
        environment = service_environment(self.settings) | self._environment
        with self._log_path.open("wb") as log:
            self._process = ForkedService(environment, log.fileno(), command or SERVE, forking=self._forking)
        return self

    def until_up(self) -> Self:
        """Wait until it answers."""
        wait_until(self.has_said_where, timeout_s=START_TIMEOUT_S, what="the start-up line")
        return self

    def has_said_where(self) -> bool:
        """Whether `url` is known; raises AssertionError when the service has ended instead."""
        if not self.url:
            assert self.process.poll() is None, f"it ended with {self.process.returncode}: {self.log}"
            if found := _START_LINE.search(self.log):
                self.url = found[1]
                self._client = httpx2.Client(base_url=self.url, timeout=30, trust_env=False, verify=False)
        return bool(self.url)

    def run_for(self, seconds: float) -> None:
        """Let it run that long: it must not end of itself meanwhile."""
        with suppress(subprocess.TimeoutExpired):
            code = self.process.wait(seconds)
            raise AssertionError(f"it ended with {code}: {self.log}")

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone; jobs run on."""
        self.process.kill()
        self._gone()

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.terminate()
        return self._gone()

    def until_killed(self) -> int:
        """Wait until it has ended by itself; the exit code, -9 for SIGKILL."""
        return self._gone()

    def _gone(self) -> int:
        code = self.process.wait(STOP_TIMEOUT_S)
        log = self.log
        self._process, self.url = None, ""
        if self._client is not None:
            self._client.close()
            self._client = None
        assert "Traceback" not in log, log
        return code

    # ------------------------------------------------------------ what is known of it

    @property
    def process(self) -> ForkedService:
        assert self._process is not None, "no service runs"
        return self._process

    @property
    def is_started(self) -> bool:
        return self._process is not None

    @property
    def client(self) -> httpx2.Client:
        """Of the service that runs and has said where."""
        assert self._client is not None, "no service is known to answer"
        return self._client

    @property
    def log(self) -> str:
        """What the newest service has written."""
        return self._log_path.read_text(errors="replace")

    @property
    def _log_path(self) -> Path:
        return self.directory / f"service-{self.starts}.log"

    def launcher_pid(self) -> int | None:
        """The launcher's pid, once it calls itself so."""
        with suppress(OSError):
            for task in os.listdir(f"/proc/{self.process.pid}/task"):
                children = Path(f"/proc/{self.process.pid}/task/{task}/children").read_text().split()
                for child in children:
                    if title_of(int(child)).startswith("snakeline: launcher"):
                        return int(child)
        return None

    # ------------------------------------------------------------ its API

    def jobs(self) -> list[dict[str, Any]]:
        """Every stored job, the oldest first."""
        found: list[dict[str, Any]] = []
        params: dict[str, Any] = {"limit": 500, "order": "asc"}
        while True:
            answer = self.client.get("/jobs", params=params)
            assert answer.status_code == 200, answer.text
            page = answer.json()
            found += page["items"]
            if page["next_cursor"] is None:
                assert page["total"] == len(found)
                return found
            params["cursor"] = page["next_cursor"]

    def job(self, job_id: str) -> dict[str, Any]:
        answer = self.client.get(f"/jobs/{job_id}")
        assert answer.status_code == 200, answer.text
        job: dict[str, Any] = answer.json()
        return job

    def submit(self, body: Mapping[str, Any], *, key: str | None = None) -> httpx2.Response:
        """Raises httpx2.TransportError when no answer comes."""
        headers = {} if key is None else {"Idempotency-Key": key}
        return self.client.post("/jobs", json=dict(body), headers=headers)

    def until_all_ended(self, *, timeout_s: float = 60) -> list[dict[str, Any]]:
        """Every stored job once none is pending or running."""

        def none_left() -> bool:
            active = self.client.get("/jobs?status=pending&status=running&limit=1").json()["total"]
            return bool(active == 0)

        wait_until(none_left, timeout_s=timeout_s, what="every job to end")
        return self.jobs()

    def log_of(self, job_id: str, attempt: int) -> bytes:
        answer = self.client.get(f"/jobs/{job_id}/logs", params={"attempt": attempt})
        assert answer.status_code == 200, answer.text
        return answer.content

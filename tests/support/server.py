"""The real service in a process of its own, on a free port, with a data directory of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import httpx2

from tests.support.client import ContractClient
from tests.support.forked_service import ForkedService
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from tests.support.forked_service import Surroundings

EXECUTED = ("env",)
"""Through this a service is executed, as its users do."""
QUICK_MOCK = {"MOCK_MIN_S": "0", "MOCK_MAX_S": "0.05", "MOCK_SUCCESS_RATE": "1"}
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 20.0


def service_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with `settings` (names without the prefix) and no other of ours."""
    inherited = {
        name: value
        for name, value in os.environ.items()  # noqa: TID251 - handed on to a child
        if not name.startswith("SNAKELINE_")
    }
    return inherited | {f"SNAKELINE_{name}": value for name, value in settings.items()}


class LiveServer:
    """A service that answers at `url`; `log` is all it has written, `process` its process.

    `through` is a command that becomes the service's, given behind it. Without one the service is forked
    and `inside` is what it enters first: see `forked_service`.
    """

    def __init__(
        self,
        directory: Path,
        settings: Mapping[str, str],
        *,
        through: Sequence[str] = (),
        inside: Sequence[Surroundings] = (),
    ) -> None:
        self.data_dir = directory / "data"
        self.settings = {
            "PORT": "0",
            "DATA_DIR": str(self.data_dir),
            "ON_SHUTDOWN": "detach",  # whether or not the tests run in a container
            **QUICK_MOCK,
            **settings,
        }
        self._log_path = directory / "service.log"
        with self._log_path.open("ab") as log:
            self._log_begin = log.tell()  # behind what an earlier service wrote
            environment = service_environment(self.settings)
            self.process: subprocess.Popen[bytes] | ForkedService
            if through:
                self.process = subprocess.Popen(
                    [*through, sys.executable, "-m", "snakeline", "serve"],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            else:
                self.process = ForkedService(environment, log.fileno(), inside=inside)
        self.url: str = wait_until(self._address, timeout_s=START_TIMEOUT_S, what="the start-up line")
        # What is executed may be another release.
        self.client = ContractClient(self.url, alike=None if through else self._document_key())
        wait_until(self._is_ready, timeout_s=START_TIMEOUT_S, what="/readyz to answer 200")

    @property
    def log(self) -> str:
        return self._log_path.read_bytes()[self._log_begin :].decode(errors="replace")

    @property
    def start_up_line(self) -> str:
        return next((line for line in self.log.splitlines() if line.startswith("Snakeline is at ")), "")

    def stop(self) -> int:
        """SIGTERM, and the exit code. Running jobs go on."""
        self.client.close()
        self.process.terminate()
        return self.process.wait(STOP_TIMEOUT_S)

    def end_jobs(self) -> None:
        """Cancel everything that has not ended and wait until it has: jobs outlive their service."""

        def all_ended() -> bool:
            active = self.client.get("/jobs?status=pending&status=running&limit=500").json()["items"]
            for job in active:
                self.client.post(f"/jobs/{job['id']}/cancel")
            return not active

        wait_until(all_ended, timeout_s=STOP_TIMEOUT_S, what="every job to end")

    def _document_key(self) -> str:
        """The settings on which the OpenAPI document depends."""
        return " ".join(self.settings.get(name, "-") for name in ("AUTH", "HOST", "OIDC_ISSUER"))

    def _address(self) -> str:
        if self.process.poll() is not None:
            raise AssertionError(f"the service ended with {self.process.returncode}: {self.log}")
        found = re.search(r"http://\S+", self.start_up_line)
        return found[0] if found else ""

    def _is_ready(self) -> bool:
        with suppress(httpx2.TransportError):
            return self.client.get("/readyz").status_code == 200
        return False


@contextmanager
def running_server(
    directory: Path,
    *,
    through: Sequence[str] = (),
    inside: Sequence[Surroundings] = (),
    **settings: str,
) -> Iterator[LiveServer]:
    """A service for one test or module; at the end its jobs are ended and its exit must be clean."""
    server = LiveServer(directory, settings, through=through, inside=inside)
    try:
        yield server
        if server.process.poll() is None:
            server.end_jobs()
            assert server.stop() == 0, server.log
    finally:
        server.client.close()
        server.process.kill()
        server.process.wait()
    assert "Traceback" not in server.log, server.log

"""A service of one's own in a child process, on a free port of this machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Self

from snakeline.client import Client, ClientError, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

_START_TIMEOUT_S: Final = 60.0
_END_OF_JOBS_TIMEOUT_S: Final = 20.0
_STOP_TIMEOUT_S: Final = 30.0
_LOOK_S: Final = 0.02
_PREFIX: Final = "SNAKELINE_"
_START_LINE: Final = re.compile(r"^Snakeline is at (http://\S+)", re.MULTILINE)


class ServiceFailed(Exception):
    """The service did not come up or is not ready; the text says why."""


class ServiceProcess:
    """Starts the service on entry; on exit ends its jobs, stops it, and waits until it is gone.

    `settings` are those of docs/settings.md without the prefix. Those of the caller's environment do not
    reach it, so that a service of one's own never touches somebody's data.
    """

    def __init__(self, directory: Path, settings: Mapping[str, str]) -> None:
        self._log_path = directory / "service.log"
        # Port 0: the kernel gives a free one, and the start-up line says which.
        own = {"HOST": "127.0.0.1", "PORT": "0", "DATA_DIR": str(directory / "data"), **settings}
        # Nothing is read from the environment here: it is handed on, without our settings.
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(_PREFIX)}  # noqa: TID251
        self._environment = inherited | {_PREFIX + name: value for name, value in own.items()}
        self._process: subprocess.Popen[bytes] | None = None
        self._client: Client | None = None

    def __enter__(self) -> Self:
        # A session of its own: Ctrl-C is for us, and we stop the service after its jobs.
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "snakeline", "serve"],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._client = Client(self._await_url(self._process))
        except BaseException:
            self._stop(self._process)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None:
            return
        try:
            # Jobs outlive their service by design, so they are ended first. A service that has died can
            # no longer be asked; its jobs end by themselves.
            with suppress(ClientError):
                self._end_jobs()
        finally:
            self._stop(self._process)
            self._process = None

    @property
    def client(self) -> Client:
        assert self._client is not None
        return self._client

    @property
    def log(self) -> str:
        """What the service has written so far."""
        return self._log_path.read_text(errors="replace")

    def require_ready(self) -> dict[str, Any]:
        """The readiness document. Raises ServiceFailed with what is missing."""
        document = self.client.ready()
        if document["status"] != "ready":
            missing = [f"{c['name']}: {c['detail']}" for c in document["checks"] if not c["ok"]]
            raise ServiceFailed("The service is not ready. " + "; ".join(missing))
        return document

    def _await_url(self, process: subprocess.Popen[bytes]) -> str:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline:
            if started := _START_LINE.search(self.log):
                return started[1]
            with suppress(subprocess.TimeoutExpired):
                code = process.wait(timeout=_LOOK_S)
                raise ServiceFailed(f"The service ended with code {code}: {self.log.strip()[-2000:]}")
        raise ServiceFailed(f"The service did not start within {_START_TIMEOUT_S:.0f} s.")

    def _end_jobs(self) -> None:
        while (page := self.client.list(status=("pending", "running"), limit=500)).items:
            for job in page.items:
                with suppress(Problem):  # it has ended in the meantime
                    self.client.cancel(job.id)
            for job in page.items:
                self.client.wait(job.id, timeout_s=_END_OF_JOBS_TIMEOUT_S)

    def _stop(self, process: subprocess.Popen[bytes]) -> None:
        if self._client is not None:
            self._client.close()
        process.terminate()
        try:
            process.wait(timeout=_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

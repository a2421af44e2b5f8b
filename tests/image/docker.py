"""Containers of the image under test, by Docker's command line."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from snakeline.client import Client
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

HARDENED: Final = (
    "--read-only",
    "--tmpfs=/tmp",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--memory=512m",
    "--pids-limit=512",
)
SERVICE_USER: Final = 10001
_PYTHON: Final = "/opt/snakeline/bin/python"
_PROCESSES: Final = Path(__file__).with_name("processes_inside.py").read_text()
_MAKE_HOLD: Final = """
import os, tempfile
path = tempfile.mktemp()
os.mkfifo(path)
os.chmod(path, 0o666)
print(path)
"""
_OPEN: Final = "import os, sys; os.close(os.open(sys.argv[1], os.O_WRONLY))"


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    uid: int
    capabilities: int
    title: str


class Docker:
    """One Docker daemon. A command that fails raises CalledProcessError, with what it said as a note."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)

    def __call__(self, *arguments: str, timeout_s: float = 60) -> str:
        try:
            done = subprocess.run(
                ["docker", *arguments],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=True,
            )
        except subprocess.CalledProcessError as error:
            error.add_note(f"{error.stdout[-2000:]}\n{error.stderr[-2000:]}")
            raise
        return done.stdout

    @property
    def environment(self) -> dict[str, str]:
        """For other programs that are to reach this daemon."""
        return dict(self._environment)

    def logs(self, container: str) -> str:
        done = subprocess.run(
            ["docker", "logs", container],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout

    def inspect(self, name: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self("inspect", name))[0]
        return document

    def once(self, image: str, *command: str, options: Sequence[str] = (), timeout_s: float = 60) -> str:
        """What a container printed that was run to its end."""
        return self("run", "--rm", *options, image, *command, timeout_s=timeout_s)


class Container:
    """A running service; on exit it is removed. `volume` outlives it."""

    def __init__(
        self,
        docker: Docker,
        image: str,
        volume: str,
        *options: str,
        settings: Mapping[str, str] | None = None,
        command: Sequence[str] = (),
    ) -> None:
        given = {"AUTH": "none", "MOCK_MIN_S": "0", "MOCK_MAX_S": "0", "MOCK_SUCCESS_RATE": "1"}
        given |= settings or {}
        self._docker = docker
        variables = [f"--env=SNAKELINE_{name}={value}" for name, value in given.items()]
        self.id = docker(
            "run",
            "--detach",
            "--publish=127.0.0.1::8000",
            f"--volume={volume}:/data",
            *options,
            *variables,
            image,
            *command,
        ).strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(self.log[-4000:])
        self._docker("rm", "--force", "--volumes", self.id)

    @property
    def log(self) -> str:
        """Both streams."""
        return self._docker.logs(self.id)

    @property
    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = self._docker.inspect(self.id)["State"]
        return state

    @property
    def url(self) -> str:
        return "http://" + self._docker("port", self.id, "8000").splitlines()[0]

    def client(self, api_key: str | None = None) -> Client:
        """A client, once the service answers."""
        self.until_started(1)
        return Client(self.url, api_key=api_key)

    def until_started(self, times: int) -> None:
        """Wait for that many start-up lines in all."""

        def has_started() -> bool:
            assert self.state["Running"], f"it has ended: {self.log}"
            return self.log.count("Snakeline is at ") >= times

        wait_until(has_started, timeout_s=60, what=f"{times} start-up lines")

    def execute(self, code: str, *arguments: str, user: int | None = None) -> str:
        """What a bit of Python prints inside."""
        options = [] if user is None else [f"--user={user}"]
        return self._docker("exec", *options, self.id, _PYTHON, "-I", "-S", "-c", code, *arguments)

    def processes(self) -> list[Process]:
        return [Process(*told) for told in json.loads(self.execute(_PROCESSES))]

    def kill_the(self, title: str, *, user: int | None = None) -> int:
        """SIGKILL the one process with `title` in its command line, inside; its pid there."""
        return int(self.execute(_PROCESSES, title, user=user))

    def make_hold(self) -> str:
        """A FIFO inside that a job can wait at; see `release`."""
        return self.execute(_MAKE_HOLD).strip()

    def has_file(self, path: str) -> bool:
        return self.execute("import os, sys; print(os.path.exists(sys.argv[1]))", path).strip() == "True"

    def release(self, hold: str) -> None:
        self.execute(_OPEN, hold)

    def stop(self, within_s: int = 10) -> float:
        """SIGTERM, and SIGKILL after `within_s`; how long it took."""
        begin = time.monotonic()
        self._docker("stop", f"--time={within_s}", self.id)
        return time.monotonic() - begin

    def kill(self) -> None:
        self._docker("kill", "--signal=KILL", self.id)
        wait_until(lambda: not self.state["Running"], what="the container to end")

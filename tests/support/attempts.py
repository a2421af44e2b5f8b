"""Drives a local backend the way the supervisor does, one attempt at a time."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from runner.attempt_files import AttemptFiles, ExitRecord
from runner.backends.local import LocalBackend
from runner.isolation.confinement import Measures
from runner.ports import Command, Ended, Handle, LaunchRequest, NotStarted, Observation, Running, WarmSpec
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

ACTOR = str(Path(__file__).with_name("actor.py"))
_RUNNER = str(Path(__file__).parents[2] / "runner")


class Attempts:
    """A backend over `data_dir`, warm or cold, and the attempts launched through it."""

    def __init__(
        self,
        data_dir: Path,
        *,
        warm: bool,
        log_limit_bytes: int = 2**20,
        stop_grace_s: float = 0.5,
        preload: str | None = None,
        nudge_every_s: float = 10.0,
        launcher_within_s: float = 10.0,
        measures: Callable[[], Measures] = Measures,
    ) -> None:
        self.data_dir = data_dir
        self._measures = measures
        self._preload = preload
        # Unique: a lost attempt's processes are swept by the id of its job.
        self.job_id = f"job-{uuid4()}"
        self.warm = warm
        self._log_limit_bytes = log_limit_bytes
        self._stop_grace_s = stop_grace_s
        self._nudge_every_s = nudge_every_s
        self._launcher_within_s = launcher_within_s
        self.source = data_dir / "source"
        self.source.mkdir(exist_ok=True)
        self._ended: dict[Handle, Observation] = {}
        self.backend = self._open()

    def _open(self) -> LocalBackend:
        packages = {"runner": _RUNNER, "support": str(Path(__file__).parent)}
        warm = WarmSpec(sys.executable, isolated=True, packages=packages, preload=self._preload)
        backend = LocalBackend(
            data_dir=str(self.data_dir),
            python=sys.executable,
            warm=lambda: warm if self.warm else None,
            log_limit_bytes=self._log_limit_bytes,
            stop_grace_s=self._stop_grace_s,
            open_files=256,
            nudge_every_s=self._nudge_every_s,
            launcher_within_s=self._launcher_within_s,
            measures=self._measures,
        )
        backend.start()
        return backend

    def reopen(self) -> None:
        """As after a restart of the service: nothing remembered, everything found again."""
        self.backend.close()
        self.backend = self._open()

    def close(self) -> None:
        self.backend.close()

    def files(self, handle: Handle) -> AttemptFiles:
        return AttemptFiles.of(self.data_dir, handle.job_id, handle.attempt)

    def launch(
        self,
        *acts: str,
        job_id: str | None = None,
        attempt: int = 1,
        timeout_s: float | None = None,
        environment: dict[str, str] | None = None,
        prepare: tuple[tuple[str, ...], ...] = (),
    ) -> Handle:
        """Run the actor with these acts."""
        return self.launch_argv(
            self.actor(*acts),
            job_id=job_id,
            attempt=attempt,
            timeout_s=timeout_s,
            environment=environment,
            prepare=prepare,
            warm_entry="support.actor:main" if self.warm else None,
        )

    @staticmethod
    def actor(*acts: str) -> tuple[str, ...]:
        return (sys.executable, "-I", "-S", ACTOR, *acts)

    def launch_argv(
        self,
        argv: tuple[str, ...],
        *,
        job_id: str | None = None,
        attempt: int = 1,
        timeout_s: float | None = None,
        environment: dict[str, str] | None = None,
        prepare: tuple[tuple[str, ...], ...] = (),
        warm_entry: str | None = None,
    ) -> Handle:
        job_id = self.job_id if job_id is None else f"{self.job_id}-{job_id}"
        handle = Handle(job_id, attempt)
        environment = {"PATH": os.defpath, "SNAKELINE_JOB_ID": job_id} if environment is None else environment
        command = Command(argv, environment, "actor", prepare=prepare, warm_entry=warm_entry)
        self.backend.launch(LaunchRequest(handle, command, self.source, timeout_s))
        return handle

    def end(self, handle: Handle, *, timeout_s: float = 30) -> Observation:
        """How the attempt ended."""
        deadline = time.monotonic() + timeout_s
        while handle not in self._ended:
            assert time.monotonic() < deadline, f"{handle} has not ended within {timeout_s} s"
            self._ended.update(dict(self.backend.wait(0.2)))
        return self._ended.pop(handle)

    def until_running(self, handle: Handle) -> int:
        """The shim's pid, once it is known."""

        def known() -> int | None:
            self._ended.update(dict(self.backend.wait(0.01)))
            return self.backend.top_pid(handle)

        pid = wait_until(known, what=f"{handle} runs")
        assert pid is not None
        return pid

    def until_log(self, handle: Handle, text: bytes) -> None:
        wait_until(lambda: text in self.log(handle), what=f"{text!r} in the log of {handle}")

    def log(self, handle: Handle) -> bytes:
        try:
            return Path(self.files(handle).log_segment(0)).read_bytes()
        except FileNotFoundError:
            return b""

    def observe(self, handle: Handle) -> Observation:
        return self.backend.observe(handle)


def is_over(observation: Observation) -> bool:
    return not isinstance(observation, (Running, NotStarted))


def recorded(observation: Observation) -> ExitRecord:
    assert isinstance(observation, Ended), observation
    return observation.record

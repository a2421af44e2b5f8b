"""A whole runner in this process, with the stand-in at no sleep unless a test says otherwise."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.bootstrap import build_runner
from runner.jobs import Job, JobSpec, JobStatus
from runner.settings import MockSettings, RunnerSettings
from tests.support.stores import lay_store, store_url
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.bootstrap import Runner
    from runner.service import JobService

WORKFLOWS = Path(__file__).parents[2] / "workflows"


def settings_for(data_dir: Path, **changes: Any) -> RunnerSettings:
    values: dict[str, Any] = {
        "data_dir": data_dir,
        "database_url": store_url(data_dir),
        "workflows_dir": WORKFLOWS,
        "max_cores": 4,
        "stop_grace_s": 1.0,
        "mock": MockSettings(min_s=0, max_s=0, success_rate=1),
    }
    return RunnerSettings(**{**values, **changes})


class RunningRunner:
    """Submits and waits as a caller would; `restart` is a service that went away and came back."""

    def __init__(self, settings: RunnerSettings) -> None:
        self.settings = settings
        if settings.database_url == store_url(settings.data_dir) and not settings.data_dir.exists():
            settings.data_dir.mkdir(mode=0o700, parents=True)
            lay_store(settings.data_dir)
        self._runner: Runner = build_runner(settings)
        self._runner.start()

    @property
    def service(self) -> JobService:
        return self._runner.service

    def close(self) -> None:
        self._runner.close()

    def restart(self, **changes: Any) -> None:
        self.close()
        self.settings = self.settings.model_copy(update=changes)
        self._runner = build_runner(self.settings)
        self._runner.start()

    def submit(self, spec: JobSpec | None = None, **mock: Any) -> Job:
        """Submit `spec`; the keywords become `parameters.mock`."""
        spec = spec or JobSpec()
        if mock:
            spec = replace(spec, parameters={**spec.parameters, "mock": mock})
        return self.service.submit(spec).result(10).job

    def wait_for(
        self, job: Job, condition: JobStatus | Callable[[Job], Any], *, timeout_s: float = 30
    ) -> Job:
        def reached() -> Job | None:
            now = self.service.get(job.id)
            fits = now.status is condition if isinstance(condition, JobStatus) else condition(now)
            return now if fits else None

        found = wait_until(reached, timeout_s=timeout_s, what=f"job {job.id} to be {condition}")
        assert found is not None
        return found

    def ended(self, job: Job, *, timeout_s: float = 30) -> Job:
        return self.wait_for(job, lambda j: j.status.is_terminal, timeout_s=timeout_s)

    def log(self, job: Job, attempt: int | None = None) -> bytes:
        _, _, log = self.service.log(job.id, attempt)
        return log.read(0, 2**20)[1]

    def job_dir(self, job: Job) -> Path:
        return self.settings.data_dir / "jobs" / job.id

    def work_dir(self, job: Job) -> Path:
        return self.job_dir(job) / "work"


class Hold:
    """A FIFO that keeps one stand-in job running until `release`.

    One each: a writer wakes every reader that waits.
    """

    def __init__(self, directory: Path, name: str = "hold") -> None:
        self.path = str(directory / name)
        os.mkfifo(self.path)

    def release(self) -> None:
        wait_until(self._opened, what=f"a reader of {self.path}")

    def _opened(self) -> bool:
        try:
            os.close(os.open(self.path, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:  # nobody reads yet
            return False
        return True

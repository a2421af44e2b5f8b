"""Runs an engine's command without the service: executed, or forked from a warm interpreter."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import pytest

from runner.attempt_files import AttemptFiles, ShimSpec
from runner.engines.mock import MockEngine
from runner.engines.snakemake import SnakemakeEngine
from runner.jobs import Job, JobSpec, JobStatus
from runner.ports import Command, RunState, Workflow
from runner.settings import MockSettings, RunnerSettings
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.ports import Engine, WarmSpec

ROOT = Path(__file__).parents[2]
BUNDLED = ROOT / "workflows"


def snakemake_command() -> str | None:
    """Real Snakemake, from SNAKELINE_SNAKEMAKE or the project's own environment; None when it is missing."""
    given = os.environ.get("SNAKELINE_SNAKEMAKE")  # noqa: TID251 - a setting of the test run itself
    path = Path(given) if given else ROOT / ".venv-snakemake" / "bin" / "snakemake"
    return str(path) if path.exists() else None


NEEDS_SNAKEMAKE: Final = [
    pytest.mark.snakemake,
    pytest.mark.skipif(
        snakemake_command() is None,
        reason="no Snakemake: run make snakemake-env or set SNAKELINE_SNAKEMAKE",
    ),
]
"""The marks of tests, modules and parameters that are about real Snakemake."""


def oldest_snakemake_command() -> str | None:
    """The oldest Snakemake that is supported; None when its environment is missing."""
    path = ROOT / ".venv-snakemake-oldest" / "bin" / "snakemake"
    return str(path) if path.exists() else None


def settings(data_dir: Path, **changes: Any) -> RunnerSettings:
    values: dict[str, Any] = {
        "data_dir": data_dir,
        "database_url": "memory://",
        "workflows_dir": BUNDLED,
        "max_cores": 2,
        "snakemake": snakemake_command() or "snakemake",
        "mock": MockSettings(min_s=0, max_s=0, success_rate=1),
    }
    return RunnerSettings(**{**values, **changes})


def make_engine(name: str, data_dir: Path, **changes: Any) -> Engine:
    wanted = settings(data_dir, **changes)
    return MockEngine(wanted) if name == "mock" else SnakemakeEngine(wanted)


def make_job(spec: JobSpec, *, job_id: str = "0198c0de-0000-7000-8000-000000000001", attempt: int = 1) -> Job:
    now = datetime.now(UTC)
    return Job(job_id, spec, JobStatus.RUNNING, "test", now, now, attempt=attempt)


def workflow_of(folder: Path) -> Workflow:
    return Workflow(folder.name, folder, "Snakefile", "", None)


@dataclass
class Run:
    """A started engine: the leader of its own process group."""

    pid: int
    files: AttemptFiles
    log_path: Path
    engine: Engine
    _process: subprocess.Popen[bytes] | None = None
    _driver: WarmDriver | None = None
    ended: bool = False

    def wait(self, timeout_s: float = 30) -> Finished:
        if self._process is not None:
            code = self._process.wait(timeout_s)
        else:
            assert self._driver is not None
            code = self._driver.answer()["exit_code"]
        self.ended = True
        reader = self.engine.reader(self.files)
        reader.advance()
        state, log = reader.ended(), self.log_path.read_bytes()
        return Finished(code, log, state, self.engine.explain(state, log[-65536:]))

    def signal_group(self, number: signal.Signals) -> None:
        os.killpg(self.pid, number)  # noqa: TID251 - started here and not waited for yet: its pid is its own

    def log(self) -> bytes:
        return self.log_path.read_bytes()


@dataclass
class Finished:
    exit_code: int
    log: bytes
    state: RunState
    explanation: str | None


class WarmDriver:
    """A warm interpreter for one engine."""

    def __init__(self, spec: WarmSpec) -> None:
        flags = ["-I", "-S"] if spec.isolated else ["-I"]
        setup = {"packages": {"runner": str(ROOT / "runner"), **spec.packages}, "preload": spec.preload}
        self._process = subprocess.Popen(
            [spec.python, *flags, str(Path(__file__).parent / "warm_driver.py"), json.dumps(setup)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"OPENBLAS_NUM_THREADS": "1", "TMPDIR": "/dev/shm"},
        )
        self.threads: int = self.answer()["threads"]

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the warm interpreter has ended"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def start(self, spec: ShimSpec, output: Path) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"spec": spec.dump().decode(), "output": str(output)}) + "\n")
        self._process.stdin.flush()
        pid: int = self.answer()["pid"]
        return pid

    def memory_bytes(self) -> int:
        """Its resident memory, for figures people ask for."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) * 1024

    def close(self) -> None:
        with self._process:
            self._process.kill()


@contextmanager
def warm_driver(engine: Engine) -> Iterator[WarmDriver]:
    spec = engine.warm_spec()
    assert spec is not None
    driver = WarmDriver(spec)
    try:
        yield driver
    finally:
        driver.close()


@dataclass
class Bench:
    """One job of one engine in a data directory of its own: everything a contract test needs."""

    engine: Engine
    data_dir: Path
    driver: WarmDriver | None = None  # None: commands are executed
    attempts: int = field(default=0)
    runs: list[Run] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for run in self.runs:
            if not run.ended:
                run.signal_group(signal.SIGKILL)
                run.wait()

    def files(self, attempt: int = 1) -> AttemptFiles:
        return AttemptFiles.of(self.data_dir, "job", attempt)

    @property
    def work(self) -> Path:
        return Path(self.files().work)

    def command(self, workflow: Workflow, spec: JobSpec) -> Command:
        """The command for the next attempt, with its files written and the working directory there."""
        self.attempts += 1
        files = self.files(self.attempts)
        for path in (files.directory, files.home, files.tmp):
            Path(path).mkdir(parents=True, exist_ok=True)
        if not self.work.exists():
            _copy(workflow.folder, self.work)
        command = self.engine.command(make_job(spec, attempt=self.attempts), workflow, files)
        for name, content in command.files.items():
            Path(name).write_bytes(content)
        return command

    def start(self, workflow: Workflow, spec: JobSpec) -> Run:
        """Run the next attempt: first what it has to prepare, then the engine itself."""
        command = self.command(workflow, spec)
        for argv in command.prepare:
            prepared = self.start_command(command, argv).wait()
            assert prepared.exit_code == 0, prepared.log.decode()
        return self.start_command(command, command.argv)

    def run(self, workflow: Workflow, spec: JobSpec) -> Finished:
        return self.start(workflow, spec).wait()

    def start_command(self, command: Command, argv: tuple[str, ...]) -> Run:
        files = self.files(self.attempts)
        log_path = Path(files.directory) / "output"
        if self.driver is None or command.warm_entry is None:
            with open(log_path, "ab") as output:
                process = subprocess.Popen(
                    argv,
                    env=dict(command.environment),
                    cwd=self.work,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            return self._started(Run(process.pid, files, log_path, self.engine, _process=process))
        spec = ShimSpec(
            job_id="job",
            attempt=self.attempts,
            argv=list(argv),
            environment=dict(command.environment),
            work_dir=files.work,
            prepare=[],
            source=None,
            warm_entry=command.warm_entry,
            timeout_s=None,
            stop_grace_s=5,
            log_segment_bytes=2**20,
            title=command.title,
        )
        pid = self.driver.start(spec, log_path)
        return self._started(Run(pid, files, log_path, self.engine, _driver=self.driver))

    def _started(self, run: Run) -> Run:
        self.runs.append(run)
        return run


def _copy(source: Path, target: Path) -> None:
    for path in sorted(source.rglob("*")):
        inside = path.relative_to(source)
        if path.is_file() and not {".snakemake", "results", "logs"} & set(inside.parts):
            (target / inside).parent.mkdir(parents=True, exist_ok=True)
            (target / inside).write_bytes(path.read_bytes())


class Fifo:
    """A named pipe that holds whoever opens it for reading until `release`."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = str(path)

    def wait_for_reader(self) -> int:
        """The writing end, once somebody has opened the other one."""

        def opened() -> int | None:
            try:
                return os.open(self.path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:
                return None

        return wait_until(opened, timeout_s=20, what=f"somebody reads {self.path}") or 0

    def release(self) -> None:
        fd = self.wait_for_reader()
        os.write(fd, b"go\n")
        os.close(fd)


def python_program(path: Path, text: str) -> Path:
    """An executable file."""
    path.write_text(text)
    path.chmod(0o755)
    return path

"""Snakemake's own, oldest and newest, with tasks that run elsewhere: SIGTERM ends them, and then the run."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import engines
from tests.support.logger_plugin import PLUGINS
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMANDS = {"newest": engines.snakemake_command(), "oldest": engines.oldest_snakemake_command()}
EXECUTOR = '''
from pathlib import Path

from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.settings import CommonSettings

common_settings = CommonSettings(
    non_local_exec=True, implies_no_shared_fs=False, job_deploy_sources=False,
    pass_default_storage_provider_args=True, pass_default_resources_args=True,
    pass_envvar_declarations_to_cmd=False, auto_deploy_default_storage_provider=False,
    init_seconds_before_status_checks=3600,
)


class Executor(RemoteExecutor):
    """Takes tasks and never does them."""

    def run_job(self, job):
        self.report_job_submission(SubmittedJobInfo(job, external_jobid=f"parked-{job.jobid}"))
        self.active_jobs.clear()  # as while it asks how they are
        Path("submitted").touch()

    async def check_active_jobs(self, active_jobs):
        for job in active_jobs:
            yield job

    def cancel_jobs(self, active_jobs):
        Path("cancelled").write_text(" ".join(job.external_jobid for job in active_jobs))
'''
START = "import sys; sys.path += sys.argv[1:3]; from snakemake.cli import main; main(sys.argv[3:])"


@pytest.fixture
def run(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes]]:
    """A run whose only task has been submitted."""
    plugin = tmp_path / "executors" / "snakemake_executor_plugin_parked"
    plugin.mkdir(parents=True)
    (plugin / "__init__.py").write_text(EXECUTOR)
    (tmp_path / "Snakefile").write_text('rule a:\n    output: "a.txt"\n    shell: "touch {output}"\n')
    python = Path(COMMANDS[request.param] or "").parent / "python"
    options = ["--cores", "1", "--executor", "parked", "--jobs", "1", "--scheduler", "greedy"]
    events = ["--logger", "snakeline", "--logger-snakeline-path", str(tmp_path / "events.jsonl")]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [python, "-I", "-c", START, plugin.parent, PLUGINS, *options, *events],
            cwd=tmp_path,
            env={"PATH": os.defpath, "HOME": str(tmp_path), "USER": "somebody"},
            stdout=log,
            stderr=log,
        )
    with process:
        try:
            wait_until((tmp_path / "submitted").exists, what="the task to be submitted")
            yield process
        finally:
            process.kill()


@pytest.mark.snakemake
@pytest.mark.parametrize(
    "run",
    [
        pytest.param(name, marks=pytest.mark.skipif(command is None, reason=f"no Snakemake: the {name}"))
        for name, command in COMMANDS.items()
    ],
    indirect=True,
)
def test_sigterm_ends_the_tasks_that_are_elsewhere_and_then_the_run(
    run: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    run.send_signal(signal.SIGTERM)
    assert run.wait(timeout=30) == 1, (tmp_path / "log").read_text()
    assert (tmp_path / "cancelled").read_text() == "parked-0"
    assert '"external_id":"parked-0"' in (tmp_path / "events.jsonl").read_text()
    assert not list((tmp_path / ".snakemake" / "locks").glob("*"))

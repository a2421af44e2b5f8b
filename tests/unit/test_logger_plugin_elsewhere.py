"""A run's tasks on a cluster end with the run: whoever knows of them, and whatever ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import logger_plugin

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCHEDULER = "snakemake.scheduling.job_scheduler"
REMOTE = "snakemake_interface_executor_plugins.executors.remote"
TROUBLE = "snakemake_interface_common.exceptions"
RUN = "9f1c-run"
# The queue is a file, a task a line: "NUMBER NAME". With a file `stubborn` scancel ends nothing, with `away`
# Slurm does not answer.
SQUEUE = """#!/bin/bash
test ! -e away || { echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1; }
for option; do case $option in --name=*) names=${option#--name=};; esac; done
while read -r number name; do [[ ,$names, == *,$name,* ]] && echo "$number"; done < queue
exit 0
"""
SCANCEL = """#!/bin/bash
echo "$*" >> cancelled
test -e stubborn || : > queue
"""


class WorkflowError(Exception):
    pass


class RemoteExecutor:
    """As much of the interface's as is hooked into; its thread looks at the tasks once in an hour."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.logger = types.SimpleNamespace(info=self.calls.append)
        self.workflow = types.SimpleNamespace(
            remote_execution_settings=types.SimpleNamespace(immediate_submit=False)
        )
        self.asleep = Event()
        self.wait_thread = Thread(target=self.asleep.wait, daemon=True)
        self.wait_thread.start()

    def report_job_submission(self, info: Any) -> str:
        return f"submitted {info.external_jobid}"

    def report_job_success(self, info: Any) -> str:
        return f"succeeded {info.external_jobid}"

    def report_job_error(self, info: Any, msg: str | None = None) -> str:
        return f"failed {info.external_jobid}: {msg}"

    def cancel_jobs(self, infos: list[Any]) -> None:
        self.calls.append([info.external_jobid for info in infos])

    def cancel(self) -> None:
        raise AssertionError("Snakemake's own, which forgets some")

    def shutdown(self) -> None:
        self.wait_thread.join()
        self.calls.append("shut down")


class SlurmExecutor(RemoteExecutor):
    run_uuid = RUN


SlurmExecutor.__module__ = "snakemake_executor_plugin_slurm"


def submitted(number: str) -> Any:
    return types.SimpleNamespace(job=object(), external_jobid=number)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory, beside a Slurm of two small scripts."""
    (tmp_path / ".snakemake").mkdir()
    (tmp_path / "queue").touch()
    for name, script in (("squeue", SQUEUE), ("scancel", SCANCEL)):
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.defpath}")
    monkeypatch.setattr(logger_plugin.part("elsewhere"), "_ASK_EVERY_S", 0.01)
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # as Snakemake's, which waits
    yield tmp_path
    signal.signal(signal.SIGTERM, before)


def begin(monkeypatch: pytest.MonkeyPatch, executor: Any) -> Any:
    """A scheduler made with this executor, as Snakemake makes it."""

    def make(self: Any) -> None:
        self._executor = executor

    modules: dict[str, Any] = {
        SCHEDULER: {"JobScheduler": type("JobScheduler", (), {"__init__": make})},
        REMOTE: {"RemoteExecutor": RemoteExecutor},
        TROUBLE: {"WorkflowError": WorkflowError},
    }
    for name, values in modules.items():
        monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(**values))
    logger_plugin.part("elsewhere").install()
    return modules[SCHEDULER]["JobScheduler"]()


def test_sigterm_is_an_interrupt_where_tasks_are_elsewhere_and_only_the_first(
    monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    begin(monkeypatch, object())
    signal.raise_signal(signal.SIGTERM)
    begin(monkeypatch, RemoteExecutor())
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def test_every_task_that_has_been_submitted_and_not_ended_is_cancelled(
    monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    executor = RemoteExecutor()
    begin(monkeypatch, executor)
    tasks = [submitted(number) for number in "1234"]
    assert executor.report_job_submission(tasks[0]) == "submitted 1"
    for task in tasks[1:]:
        executor.report_job_submission(task)
    assert executor.report_job_success(tasks[1]) == "succeeded 2"
    assert executor.report_job_error(tasks[2], msg="out of memory") == "failed 3: out of memory"
    executor.cancel()  # does not wait for the thread
    assert executor.calls == [["1", "4"], "shut down"]


@pytest.mark.parametrize("immediately", [False, True])
def test_a_run_that_breaks_down_leaves_no_task_behind_unless_it_is_meant_to(
    monkeypatch: pytest.MonkeyPatch, place: Path, *, immediately: bool
) -> None:
    executor = RemoteExecutor()
    executor.asleep.set()
    executor.workflow.remote_execution_settings.immediate_submit = immediately
    begin(monkeypatch, executor)
    executor.report_job_submission(submitted("1"))
    executor.shutdown()
    assert executor.calls == [*([] if immediately else [["1"]]), "shut down"]


def test_what_waits_to_be_submitted_is_not_and_what_slurm_alone_knows_of_is_ended_by_name(
    monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    executor = SlurmExecutor()
    begin(monkeypatch, executor)
    going_on, held = Event(), Event()
    pool = ThreadPoolExecutor(max_workers=1)
    executor._job_submission_executor = pool  # type: ignore[attr-defined]

    def submit_one() -> None:
        going_on.set()
        held.wait(10)

    def shut_down(**how: Any) -> None:
        held.set()
        ThreadPoolExecutor.shutdown(pool, **how)

    pool.submit(submit_one)
    waiting = pool.submit(executor.calls.append, "one more")
    going_on.wait(10)
    (place / "queue").write_text(f"7 {RUN}\n8 another-run\n")
    monkeypatch.setattr(pool, "shutdown", shut_down)
    executor.cancel()
    assert waiting.cancelled()
    assert executor.calls == ["Ending tasks in Slurm: 7", "shut down"]
    assert (place / "cancelled").read_text() == f"--name={RUN}\n"


def test_a_cancelling_that_fails_is_said_and_those_that_slurm_has_by_name_are_ended(
    monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    executor = SlurmExecutor()
    begin(monkeypatch, executor)
    executor.report_job_submission(submitted("7"))
    (place / "queue").write_text(f"7 {RUN}\n")

    def fail(_infos: list[Any]) -> None:
        raise WorkflowError("Unable to cancel jobs with scancel")

    monkeypatch.setattr(executor, "cancel_jobs", fail)
    with pytest.raises(WorkflowError, match="Unable to cancel"):
        executor.cancel()
    assert (place / "queue").read_text() == ""
    assert executor.calls[-1] == "shut down"


def test_what_an_earlier_attempt_has_left_in_slurm_is_ended_before_anything_is_submitted(
    monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino))
    begin(monkeypatch, SlurmExecutor())
    assert not (place / "cancelled").exists()
    assert synced == [(place / logger_plugin.part("elsewhere").RUNS).stat().st_ino]
    (place / "queue").write_text("".join(f"{number} {RUN}\n" for number in range(12)))
    second = SlurmExecutor()
    second.run_uuid = "another-run"
    begin(monkeypatch, second)
    assert second.calls == ["Ending tasks in Slurm: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"]
    assert (place / "cancelled").read_text() == f"--name={RUN}\n"
    assert (place / logger_plugin.part("elsewhere").RUNS).read_text() == "another-run\n"


@pytest.mark.parametrize(
    ("trouble", "told"),
    [("stubborn", "End them with scancel, then retry the job"), ("away", "does not say whether")],
)
def test_a_run_does_not_begin_beside_tasks_of_an_earlier_attempt(
    monkeypatch: pytest.MonkeyPatch, place: Path, trouble: str, told: str
) -> None:
    elsewhere = logger_plugin.part("elsewhere")
    monkeypatch.setattr(elsewhere, "_GONE_WITHIN_S", 0.02)
    (place / elsewhere.RUNS).write_text(f"{RUN}\n--signal=9 ; \n")
    (place / "queue").write_text(f"7 {RUN}\n")
    (place / trouble).touch()
    executor = SlurmExecutor()
    executor.run_uuid = "another-run"
    with pytest.raises(WorkflowError, match=told):
        begin(monkeypatch, executor)
    assert RUN in (place / elsewhere.RUNS).read_text()


def test_a_slurm_that_does_not_answer_does_not_keep_a_cancelled_run_alive(
    monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    executor = SlurmExecutor()
    begin(monkeypatch, executor)
    (place / "away").touch()
    executor.cancel()
    assert executor.calls == ["shut down"]
    with pytest.raises(subprocess.CalledProcessError):
        logger_plugin.part("elsewhere")._ask("squeue")

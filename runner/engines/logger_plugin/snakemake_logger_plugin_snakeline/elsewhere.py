"""Runs with tasks on a cluster: whatever ends the run ends them there, too.

Snakemake takes SIGTERM for "wait for what is running". Killed then, it leaves a cluster's tasks behind, and
they write to the working directory beside the next attempt.
"""

import functools
import importlib
import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable
from typing import Any

from .hooks import quietly

RUNS = ".snakemake/snakeline_slurm_runs"
"""Below the working directory: the names under which this attempt, or one before it, has tasks in Slurm."""
_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
_MAX_CHARS = 4096
_SLURM = "snakemake_executor_plugin_slurm"
_ASK_EVERY_S = 1.0
_ANSWER_WITHIN_S = 60.0
_GONE_WITHIN_S = 120.0
_SHOWN = 10


class NotEnded(Exception):
    """Tasks of an earlier attempt may still run; the text says what to do."""


def install() -> None:
    """Hook into this process's Snakemake, for good. Nothing is changed where all tasks run here."""
    scheduler: Any = importlib.import_module("snakemake.scheduling.job_scheduler").JobScheduler
    remote: Any = importlib.import_module(
        "snakemake_interface_executor_plugins.executors.remote"
    ).RemoteExecutor
    trouble: Any = importlib.import_module("snakemake_interface_common.exceptions").WorkflowError
    make = scheduler.__init__

    @functools.wraps(make)
    def watched_make(self: Any, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        executor = getattr(self, "_executor", None)
        if isinstance(executor, remote):
            try:
                Elsewhere(executor).begin()
            except NotEnded as error:
                raise trouble(str(error)) from None

    scheduler.__init__ = watched_make


class Elsewhere:
    """One run's tasks on a cluster, and the executor that submits them."""

    def __init__(self, executor: Any) -> None:
        self._executor = executor
        self._submitted: dict[int, Any] = {}
        module = type(executor).__module__.partition(".")[0]
        self._slurm = Slurm(executor) if module == _SLURM and hasattr(executor, "run_uuid") else None

    def begin(self) -> None:
        """See to it that this run's tasks end with it, and end what an earlier one has left.

        Raises NotEnded. Called on the main thread, when Snakemake has set its own handler of SIGTERM.
        """
        executor = self._executor
        for name, keep in (
            ("report_job_submission", self._add),
            ("report_job_success", self._remove),
            ("report_job_error", self._remove),
        ):
            setattr(executor, name, _noted(getattr(executor, name), keep))
        self._shutdown = executor.shutdown
        executor.shutdown, executor.cancel = self.shutdown, self.cancel
        signal.signal(signal.SIGTERM, _interrupt)
        if self._slurm is not None:
            self._slurm.end_earlier()

    def shutdown(self) -> None:
        """What ends every run; tasks that are still there are what a breakdown of the executor leaves."""
        if self._submitted and not self._executor.workflow.remote_execution_settings.immediate_submit:
            self._end()
        self._shutdown()

    def cancel(self) -> None:
        """End all of them, and wait for that as long as we are let."""
        try:
            self._end()
        finally:
            # Its thread sleeps for up to three minutes between two looks at them.
            self._executor.wait_thread.join = lambda *_: None
            self._shutdown()

    def _end(self) -> None:
        quietly(_submit_no_more, self._executor)
        try:
            # Not those that the executor calls active: it forgets them while it asks how they are.
            if self._submitted:
                self._executor.cancel_jobs(list(self._submitted.values()))
        finally:
            if self._slurm is not None:
                quietly(self._slurm.end, [self._executor.run_uuid], float("inf"))

    def _add(self, info: Any) -> None:
        self._submitted[id(info.job)] = info

    def _remove(self, info: Any) -> None:
        self._submitted.pop(id(info.job), None)


class Slurm:
    """Tasks by the name that all of a run bear there: also those whose submission was cut short."""

    def __init__(self, executor: Any) -> None:
        self._executor = executor

    def end_earlier(self) -> None:
        """End what earlier attempts in this working directory have left. Raises NotEnded."""
        if names := _read_names():
            try:
                left = self.end(names, _GONE_WITHIN_S)
            except (OSError, subprocess.SubprocessError) as error:
                text = f"Slurm does not say whether an earlier attempt's tasks have ended: {error}"
                raise NotEnded(text) from error
            if left:
                raise NotEnded(
                    f"Tasks of an earlier attempt are still in Slurm ({left}) and would write the same "
                    "files. End them with scancel, then retry the job."
                )
        _write_name(self._executor.run_uuid)

    def end(self, names: list[str], within_s: float) -> str:
        """Cancel all tasks of these names and wait until they have ended; which have not.

        Raises OSError or SubprocessError when Slurm does not answer.
        """
        which = [f"--name={','.join(names)}"]
        if getattr(self._executor, "_submitted_job_clusters", None):
            which.append("--clusters=all")
        pause, waited_s = threading.Event(), 0.0
        while (left := _listed(_ask("squeue", "--noheader", "--format=%i", *which))) and waited_s < within_s:
            if not waited_s:
                told = f"Ending tasks in Slurm: {left}"  # its logger fills nothing in
                self._executor.logger.info(told)
            _ask("scancel", *which)  # again and again: a submission may have been on its way
            pause.wait(_ASK_EVERY_S)
            waited_s += _ASK_EVERY_S
        return left


def _noted(report: Callable[..., Any], keep: Callable[[Any], None]) -> Callable[..., Any]:
    @functools.wraps(report)
    def noted_report(job_info: Any, *args: Any, **kwargs: Any) -> Any:
        quietly(keep, job_info)
        return report(job_info, *args, **kwargs)

    return noted_report


def _interrupt(*_: object) -> None:
    """As Ctrl-C does, and only once: what it sets going may take a while."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _submit_no_more(executor: Any) -> None:
    """Else all that wait to be submitted still are, behind the cancelling."""
    pool = getattr(executor, "_job_submission_executor", None)
    if pool is not None:
        executor._main_event_loop = None  # noqa: SLF001 - it does not run any more: told at once
        pool.shutdown(wait=True, cancel_futures=True)


def _ask(program: str, *arguments: str) -> str:
    command = [program, *arguments]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=_ANSWER_WITHIN_S,
        check=True,
        stdin=subprocess.DEVNULL,
    ).stdout


def _listed(told: str) -> str:
    numbers = told.split()
    return ", ".join(numbers[:_SHOWN]) + (f" and {len(numbers) - _SHOWN} more" if numbers[_SHOWN:] else "")


def _read_names() -> list[str]:
    try:
        with open(RUNS, encoding="ascii", errors="replace") as file:
            return _NAME.findall(file.read(_MAX_CHARS))
    except FileNotFoundError:
        return []


def _write_name(name: str) -> None:
    with open(RUNS, "w", encoding="ascii") as file:
        file.write(f"{name}\n")
        file.flush()
        os.fsync(file.fileno())  # tasks in Slurm go on where this machine loses its power

"""Where the plugin looks into a run for what Snakemake's events leave out.

Each hook stands for itself: one that this version of Snakemake has no place for is left out, and what goes
wrong inside one is never the run's business.
"""

import functools
import importlib
import logging
import logging.handlers
import sys
from collections.abc import Callable
from typing import Any

from .failures import Failures
from .gathering import Gathering
from .plan import Plan, Send

_Run = Callable[..., Any]


def install(send: Send, plan: Plan, failures: Failures, gathering: "Gathering | None") -> None:
    """Hook into this process's Snakemake, for good: a process is one run.

    No gathering where another plugin listens too: it may want any record, and at once.
    """
    for hook in (
        lambda: None if gathering is None else _watch_queue(gathering),
        lambda: _watch_reading(failures),
        lambda: _watch_plan(plan),
        lambda: _watch_commands(failures),
        lambda: _watch_starts(send, failures),
        lambda: _watch_outputs(send, failures),
        lambda: _watch_executors(send, failures),
    ):
        quietly(hook)


def quietly(call: _Run, *args: Any, **kwargs: Any) -> None:
    try:
        call(*args, **kwargs)
    except Exception:  # noqa: BLE001 - whatever it is, it costs what would have been told
        return


def queue_handlers() -> list[logging.handlers.QueueHandler]:
    """Where Snakemake's records leave for the thread that the plugin is called on."""
    logger: logging.Logger = importlib.import_module("snakemake.logging").logger
    return [handler for handler in logger.handlers if isinstance(handler, logging.handlers.QueueHandler)]


def _watch_queue(gathering: Gathering) -> None:
    scheduler: Any = importlib.import_module("snakemake.scheduling.job_scheduler").JobScheduler
    make = scheduler.__init__

    def narrow() -> None:
        for handler in queue_handlers():
            handler.addFilter(gathering.filter)
            gathering.is_on = True  # before the plan is told, which then keeps its place among the rest

    @functools.wraps(make)
    def narrowed_make(self: Any, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        quietly(narrow)

    scheduler.__init__ = narrowed_make


def _watch_reading(failures: Failures) -> None:
    """Which file it was that could not be read: Snakemake does not always say."""
    workflow: Any = importlib.import_module("snakemake.workflow")
    parse = workflow.parse

    def note(path: Any, error: Exception) -> None:
        failures.note_unread(path.get_path_or_uri(secret_free=True), error)

    @functools.wraps(parse)
    def noted_parse(path: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return parse(path, *args, **kwargs)
        except Exception as error:
            quietly(note, path, error)
            raise

    workflow.parse = noted_parse


def _watch_plan(plan: Plan) -> None:
    # Made when all is known that the run is going to do, also when that is nothing.
    scheduler: Any = importlib.import_module("snakemake.scheduling.job_scheduler").JobScheduler
    dag: Any = importlib.import_module("snakemake.dag").DAG
    make, update = scheduler.__init__, dag.update_checkpoint_dependencies

    @functools.wraps(make)
    def told_make(self: Any, workflow: Any, *args: Any, **kwargs: Any) -> None:
        make(self, workflow, *args, **kwargs)
        quietly(lambda: plan.begin(workflow.dag))

    @functools.wraps(update)
    async def told_update(self: Any, *args: Any, **kwargs: Any) -> Any:
        has_changed = await update(self, *args, **kwargs)
        if has_changed:
            quietly(plan.changed)
        quietly(plan.catch_up)
        return has_changed

    scheduler.__init__, dag.update_checkpoint_dependencies = told_make, told_update


def _watch_commands(failures: Failures) -> None:
    executor: Any = importlib.import_module("snakemake.executors.local").Executor
    run = executor.cached_or_run

    @functools.wraps(run)
    def noted_run(self: Any, job: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return run(self, job, *args, **kwargs)
        except Exception as error:
            quietly(failures.note, job, error)
            raise

    executor.cached_or_run = noted_run


def _watch_starts(send: Send, failures: Failures) -> None:
    """Tasks that cannot be begun: a broken command, an output that may not be replaced."""
    base: Any = importlib.import_module(
        "snakemake_interface_executor_plugins.executors.base"
    ).AbstractExecutor
    local: Any = importlib.import_module("snakemake.executors.local").Executor

    def told(job: Any, error: Exception) -> None:
        for each in job if job.is_group() else (job,):
            failures.note(each, error)
            send(
                "job_error",
                {"jobid": each.jobid, "rule_name": each.rule.name, "log": [str(log) for log in each.log]},
            )

    def watched(start: _Run) -> _Run:
        @functools.wraps(start)
        def told_start(self: Any, job: Any) -> Any:
            try:
                return start(self, job)
            except Exception as error:
                quietly(told, job, error)
                raise

        return told_start

    base.run_job_pre, local.run_job = watched(base.run_job_pre), watched(local.run_job)


def _watch_outputs(send: Send, failures: Failures) -> None:
    """Outputs that are missing or not as promised: Snakemake says so without naming the task."""
    scheduler: Any = importlib.import_module("snakemake.scheduling.job_scheduler").JobScheduler
    handle = scheduler._handle_error  # noqa: SLF001 - there is no other place that knows

    def told(job: Any) -> None:
        error = sys.exc_info()[1]
        for each in job if job.is_group() else (job,):
            if error is not None:
                failures.note(each, error)
            send("job_error", each.get_log_error_info())

    @functools.wraps(handle)
    def told_handle(self: Any, job: Any, postprocess_job: bool = True) -> Any:  # noqa: FBT001, FBT002 - as it is there
        if not postprocess_job:
            quietly(told, job)
        return handle(self, job, postprocess_job)

    scheduler._handle_error = told_handle  # noqa: SLF001


def _watch_executors(send: Send, failures: Failures) -> None:
    """What executors of clusters know: the number there, and how it ended in their words."""
    executor: Any = importlib.import_module(
        "snakemake_interface_executor_plugins.executors.base"
    ).AbstractExecutor
    submitted, failed = executor.report_job_submission, executor.report_job_error

    def tell_submission(info: Any) -> None:
        if info.external_jobid is not None:
            for job in info.job if info.job.is_group() else (info.job,):
                send("task_external", {"jobid": job.jobid, "external_id": info.external_jobid})

    def note_error(info: Any, msg: Any) -> None:
        for job in info.job if info.job.is_group() else (info.job,):
            failures.note_words(job, msg, info.external_jobid)

    @functools.wraps(submitted)
    def told_submission(self: Any, job_info: Any, *args: Any, **kwargs: Any) -> Any:
        quietly(tell_submission, job_info)
        return submitted(self, job_info, *args, **kwargs)

    @functools.wraps(failed)
    def noted_error(self: Any, job_info: Any, msg: Any = None, **kwargs: Any) -> Any:
        quietly(note_error, job_info, msg)
        return failed(self, job_info, msg, **kwargs)

    executor.report_job_submission, executor.report_job_error = told_submission, noted_error

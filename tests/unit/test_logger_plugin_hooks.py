"""The plugin's hooks into Snakemake: they look on, whatever happens in them, and stand each for itself."""

from __future__ import annotations

import asyncio
import logging
import logging.handlers
import queue
import sys
import time
import types
from typing import Any

import pytest

from tests.support import logger_plugin

LOCAL = "snakemake.executors.local"
SCHEDULER = "snakemake.scheduling.job_scheduler"
BASE = "snakemake_interface_executor_plugins.executors.base"


class Task:
    jobid = 7
    attempt = 1
    pipe_group = None
    rule = types.SimpleNamespace(name="align")
    log = ("align.log",)

    def is_group(self) -> bool:
        return False

    def get_log_error_info(self) -> dict[str, Any]:
        return {"jobid": self.jobid, "rule_name": "align"}


def answering(answer: Any) -> Any:
    return lambda *_, **__: answer


def failing(error: Exception) -> Any:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    return fail


async def update(*_: Any) -> bool:
    return True


def snakemake() -> dict[str, Any]:
    """As much of Snakemake as is hooked into."""
    base = {
        "run_job_pre": failing(ValueError("no such wildcard")),
        "report_job_submission": answering("submitted"),
        "report_job_error": answering("reported"),
    }
    local = {"run_job": answering("running"), "cached_or_run": failing(OSError("no room"))}
    abstract = type("AbstractExecutor", (), base)
    executor = type("Executor", (abstract,), local)
    scheduler = type("JobScheduler", (), {"__init__": answering(None), "_handle_error": answering("handled")})
    dag = type("DAG", (), {"update_checkpoint_dependencies": update})
    handler = logging.handlers.QueueHandler(queue.Queue())
    modules: dict[str, dict[str, Any]] = {
        BASE: {"AbstractExecutor": abstract},
        LOCAL: {"Executor": executor},
        SCHEDULER: {"JobScheduler": scheduler},
        "snakemake.dag": {"DAG": dag},
        "snakemake.workflow": {"parse": failing(SyntaxError("half a rule"))},
        "snakemake.logging": {"logger": types.SimpleNamespace(handlers=[handler])},
    }
    return {name: types.SimpleNamespace(**values) for name, values in modules.items()}


class Broken:
    """Stands for a plan, for failures or for the way to the file: nothing of it works."""

    def __getattr__(self, name: str) -> Any:
        return failing(RuntimeError(name))

    def __call__(self, *_: Any) -> None:
        raise RuntimeError("sent")


def gathered() -> Any:
    def is_wanted(record: logging.LogRecord) -> bool:
        if record.msg == "odd":
            raise TypeError(record.msg)
        return record.msg == "wanted"

    return logger_plugin.part("gathering").Gathering(is_wanted)


def install(
    monkeypatch: pytest.MonkeyPatch, modules: dict[str, Any], *without: str, gathering: Any = None
) -> list[Any]:
    """Hook into it; what has been sent."""
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, None if name in without else module)
    sent: list[Any] = []
    failures = logger_plugin.part("failures").Failures()
    plan = types.SimpleNamespace(
        begin=lambda dag: sent.append(("begin", dag)),
        changed=lambda: sent.append(("changed",)),
        catch_up=lambda: sent.append(("caught up",)),
    )
    logger_plugin.part("hooks").install(
        lambda name, told: sent.append((name, told)), plan, failures, gathering or gathered()
    )
    return sent


def test_whatever_breaks_in_a_hook_the_run_goes_on_as_it_would(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = snakemake()
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    logger_plugin.part("hooks").install(Broken(), Broken(), Broken(), Broken())
    executor, task = modules[LOCAL].Executor(), Task()
    info = types.SimpleNamespace(job=task, external_jobid="1")
    assert executor.run_job(task) == "running"
    assert executor.report_job_submission(info) == "submitted"
    assert executor.report_job_error(info, msg="x") == "reported"
    with pytest.raises(OSError, match="no room"):
        executor.cached_or_run(task)
    with pytest.raises(ValueError, match="no such wildcard"):
        executor.run_job_pre(task)
    with pytest.raises(SyntaxError, match="half a rule"):
        modules["snakemake.workflow"].parse("Snakefile")
    assert modules[SCHEDULER].JobScheduler("workflow")._handle_error(task, postprocess_job=False) == "handled"
    assert asyncio.run(modules["snakemake.dag"].DAG().update_checkpoint_dependencies()) is True


@pytest.mark.parametrize(
    "without", [LOCAL, SCHEDULER, BASE, "snakemake.dag", "snakemake.logging", "snakemake.workflow"]
)
def test_a_version_without_one_of_the_places_keeps_the_other_hooks(
    monkeypatch: pytest.MonkeyPatch, without: str
) -> None:
    modules = snakemake()
    originals = (modules[LOCAL].Executor.cached_or_run, modules[SCHEDULER].JobScheduler._handle_error)
    sent = install(monkeypatch, modules, without)
    changed = (
        modules[LOCAL].Executor.cached_or_run is not originals[0],
        modules[SCHEDULER].JobScheduler._handle_error is not originals[1],
    )
    assert changed == (without != LOCAL, without != SCHEDULER)
    modules[SCHEDULER].JobScheduler(types.SimpleNamespace(dag=None))
    info = types.SimpleNamespace(job=Task(), external_jobid="slurm-5")
    assert modules[BASE].AbstractExecutor().report_job_submission(info) == "submitted"
    assert (("task_external", {"jobid": 7, "external_id": "slurm-5"}) in sent) == (without != BASE)


def test_what_they_see_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = snakemake()
    sent = install(monkeypatch, modules)
    scheduler = modules[SCHEDULER].JobScheduler(types.SimpleNamespace(dag="the graph"))
    assert sent.pop() == ("begin", "the graph")
    assert asyncio.run(modules["snakemake.dag"].DAG().update_checkpoint_dependencies()) is True
    assert [sent.pop() for _ in range(2)] == [("caught up",), ("changed",)]
    try:
        int("empty")
    except ValueError:
        scheduler._handle_error(Task(), postprocess_job=False)
    assert sent.pop() == ("job_error", {"jobid": 7, "rule_name": "align"})
    scheduler._handle_error(Task())
    with pytest.raises(ValueError, match="wildcard"):
        modules[BASE].AbstractExecutor().run_job_pre(Task())
    assert sent == [("job_error", {"jobid": 7, "rule_name": "align", "log": ["align.log"]})]


def test_the_listener_is_woken_once_for_all_that_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    modules, gathering = snakemake(), gathered()
    install(monkeypatch, modules, gathering=gathering)
    (handler,) = modules["snakemake.logging"].logger.handlers
    assert not gathering.is_on
    modules[SCHEDULER].JobScheduler(types.SimpleNamespace(dag=None))
    assert gathering.is_on

    def log(message: str, number: int) -> None:
        handler.handle(logging.makeLogRecord({"msg": message, "number": number}))

    for number in range(400):
        log(("wanted", "other", "wanted", "odd")[number % 4], number)
    assert handler.queue.qsize() == 1
    assert vars(handler.queue.get())["is_gathered"]
    began = time.monotonic()
    assert [vars(record)["number"] for record in gathering.hand_out()] == list(range(0, 400, 2))
    assert handler.queue.qsize() == 0
    log("wanted", 400)
    assert handler.queue.qsize() == 1
    assert len(list(gathering.hand_out())) == 1
    assert time.monotonic() - began >= 0.09  # much is told by now: it may wait for more

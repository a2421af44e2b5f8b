"""A task as people see it: what the table knows, with what the run told of it at its places in the file."""

from __future__ import annotations

import math
import signal
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from runner.engines.event_lines import LATEST_S, MAX_NAME, is_count, items_of
from runner.engines.task_table import COMPLETED, FAILED, PENDING, RUNNING, signal_of
from runner.jobs import Reason
from runner.plain_text import clean, encodable, plain
from runner.tasks import Task, TaskError, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.engines.task_table import Row
    from runner.tasks import RunEnd

MESSAGE_CHARS: Final = 4096
_MAX_EXIT_CODE: Final = 255
_LARGEST: Final = 2**53

_WHILE_RUNNING: Final[Mapping[int, TaskStatus]] = {
    PENDING: TaskStatus.PENDING,
    RUNNING: TaskStatus.RUNNING,
    COMPLETED: TaskStatus.COMPLETED,
    FAILED: TaskStatus.FAILED,
}
# Why what was running then has failed, by how the run was ended.
_STOPPED: Final[Mapping[Reason | None, str]] = {
    Reason.TIMED_OUT: "It was stopped: the job had run for as long as it may.",
    Reason.OUT_OF_MEMORY: "It was running when the job ran out of memory.",
    Reason.KILLED_BY_SIGNAL: "It was running when the run was killed.",
    Reason.LOST: "It was running when the run was lost: what became of it is not known.",
}
_FAILED: Final = "It failed; its log may say why."
_ENDED_BEFORE: Final = "It was running when the run ended, and has told no end of its own."


def statuses(end: RunEnd | None) -> Mapping[int, TaskStatus]:
    """What each state in the table means, by how the run has ended; None while it has not."""
    if end is None:
        return _WHILE_RUNNING
    stopped = TaskStatus.FAILED
    if end.is_interrupted or end.reason is Reason.CANCEL_REQUESTED:
        stopped = TaskStatus.CANCELLED
    elif end.reason is Reason.EXITED_ZERO:
        stopped = TaskStatus.COMPLETED  # it exits so when all are done: their ends have not been told
    return {**_WHILE_RUNNING, PENDING: TaskStatus.CANCELLED, RUNNING: stopped}


def task_of(
    row: Row,
    *,
    told: dict[str, Any],
    planned: object,
    failure: dict[str, Any],
    external: dict[str, Any],
    end: RunEnd | None,
    others_failed: bool,
) -> Task:
    """The task of this row; `planned` are the wildcards of its plan.

    The events are those at its places, or empty; what does not fit is left out.
    """
    if not _is_about(told, row):
        told = {}
    wildcards = told.get("wildcards") or planned
    status = statuses(end)[row.state]
    ended = _moment(row.ended)
    if end is not None and (row.state == RUNNING or (ended is None and row.state != PENDING)):
        ended = end.at
    return Task(
        number=row.number,
        rule=row.rule,
        status=status,
        wildcards={encodable(name): _text(value) or "" for name, value in _dict(wildcards).items()},
        attempt=row.starts,
        started_at=_moment(row.started),
        ended_at=ended,
        reason=_text(told.get("reason")),
        message=_text(told.get("message")),
        threads=_count(told.get("threads")),
        priority=_whole(told.get("priority")),
        resources=_resources(told.get("resources")),
        input=texts(told.get("input")),
        output=texts(told.get("output")),
        log=_logs(told, failure if status is TaskStatus.FAILED else {}),
        benchmark=texts(told.get("benchmark")),
        shell_command=_text(told.get("shellcmd")),
        script=_text(told.get("script")),
        is_checkpoint=told.get("checkpoint") is True,
        is_local=told.get("local") is True,
        group=row.group or _text(told.get("group")),
        external_id=_text(external.get("external_id")) or _text(failure.get("external_id")),
        error=_error(row, status, failure, end, script=told.get("script"), others_failed=others_failed),
    )


def _logs(told: dict[str, Any], failure: dict[str, Any]) -> tuple[str, ...]:
    """Its own; and that of a cluster, which an executor names when the task has failed."""
    named = texts(told.get("log"))
    return named + tuple(path for path in texts(failure.get("log")) if path not in named)


def _error(
    row: Row,
    status: TaskStatus,
    failure: dict[str, Any],
    end: RunEnd | None,
    *,
    script: object,
    others_failed: bool,
) -> TaskError | None:
    if status is not TaskStatus.FAILED:
        return None
    if row.state == RUNNING:
        reason = end.reason if end is not None else None
        return TaskError(_STOPPED.get(reason, _ENDED_BEFORE), is_root=not others_failed)
    is_root = row.is_blamed and failure.get("knock_on") is not True
    return TaskError(what_happened(failure, script) or _FAILED, exit_code(failure), is_root=is_root)


def what_happened(failure: dict[str, Any], script: object = None) -> str:
    """Why a task failed, in one line or a few, by the event that says so; empty when it does not."""
    what = f"its script {clean(script, MAX_NAME)}" if isinstance(script, str) and script else "its command"
    code, number = exit_code(failure), signal_of(failure)
    if code is not None:
        return f"{what} exited with {code}" + (f", as after {signal_name(number)}" if number else "")
    if number:
        return f"{what} was ended by {signal_name(number)}"
    message = failure.get("message")
    return plain(message[: 4 * MESSAGE_CHARS]).strip()[:MESSAGE_CHARS] if isinstance(message, str) else ""


def exit_code(failure: dict[str, Any]) -> int | None:
    code = failure.get("exit_code")
    return code if type(code) is int and 0 <= code <= _MAX_EXIT_CODE else None


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _is_about(event: dict[str, Any], row: Row) -> bool:
    """Whether the event at a task's place is its own: the job may have written its file anew."""
    rule = event.get("rule")
    return event.get("jobid") == row.number and isinstance(rule, str) and clean(rule, MAX_NAME) == row.rule


def planned_wildcards(event: dict[str, Any]) -> dict[int, object]:
    """What a line of planned tasks says of each, by its number."""
    tasks = (each for each in items_of(event, "tasks") if isinstance(each, list) and len(each) > 2)
    return {each[0]: each[2] for each in tasks if is_count(each[0])}


def _moment(at: float) -> datetime | None:
    return datetime.fromtimestamp(at, UTC) if 0 < at < LATEST_S else None


def _text(value: object) -> str | None:
    if isinstance(value, str):
        return encodable(value) or None
    return None if value is None or isinstance(value, (dict, list)) else str(value)


def texts(value: object) -> tuple[str, ...]:
    texts = value if isinstance(value, list) else ()
    return tuple(encodable(each) for each in texts if isinstance(each, str))


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: object) -> int | None:
    return value if is_count(value) else None


def _whole(value: object) -> int | None:
    return value if type(value) is int and abs(value) < _LARGEST else None


def _resources(value: object) -> dict[str, Any]:
    return {encodable(name): _resource(each) for name, each in _dict(value).items()}


def _resource(value: object) -> str | int | float | None:
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return _whole(value) if type(value) is int else _text(value)

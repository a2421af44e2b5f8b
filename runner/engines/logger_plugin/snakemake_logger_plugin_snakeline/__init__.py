"""Snakemake's logger plugin `snakeline`: the run's events as one JSON object a line, as docs/events.md says.

Runs in Snakemake's interpreter. It can lose events (full disk, missing path, limits) but never slows or
breaks the run it watches. When the file fills up, details go first; errors and totals have room to the last.
"""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from logging import LogRecord
from typing import Any, Optional

from snakemake_interface_logger_plugins.base import (  # type: ignore[import-not-found,unused-ignore]
    LogHandlerBase,
)
from snakemake_interface_logger_plugins.settings import (  # type: ignore[import-not-found,unused-ignore]
    LogHandlerSettingsBase,
)

from . import elsewhere, fields, hooks
from .events_file import LIMIT_BYTES, EventsFile
from .failures import Failures
from .gathering import Gathering
from .plan import Plan

_MIB = 2**20
_LINE_BYTES = 512 * 2**10
_WHOLE_BYTES = LIMIT_BYTES // 2  # from here on, tasks are told in brief
_PROGRESS_EVERY = 1000
# Up to which size of the file an event is still told. The rest may fill it.
_ROOM = {
    "tasks_planned": LIMIT_BYTES // 4,
    "rule_graph": LIMIT_BYTES - 8 * _MIB,
    "job_info": LIMIT_BYTES - 8 * _MIB,
    "job_started": LIMIT_BYTES - 8 * _MIB,
    "group_info": LIMIT_BYTES - 8 * _MIB,
    "task_external": LIMIT_BYTES - 8 * _MIB,
    "job_finished": LIMIT_BYTES - 2 * _MIB,
    "progress": LIMIT_BYTES - 2 * _MIB,
    "job_error": LIMIT_BYTES - _MIB // 2,
}
_OURS = -1  # the level of records that are for this handler alone


@dataclass
class LogHandlerSettings(LogHandlerSettingsBase):  # type: ignore[misc,unused-ignore]
    # Snakemake looks at the annotation at run time and knows Optional alone.
    path: Optional[str] = field(  # noqa: UP045
        default=None, metadata={"help": "The file to append the events to.", "required": True}
    )


class LogHandler(LogHandlerBase):  # type: ignore[misc,unused-ignore]
    """Called on the queue listener's thread, in the order the events were logged."""

    def __post_init__(self) -> None:
        self._file = EventsFile(self.settings.path)
        self._cores: Any = None
        self._running: set[int] = set()
        # By task: its group's name, which others may have too, and all tasks of the group.
        self._groups: dict[int, tuple[str, tuple[int, ...]]] = {}
        self._explained: set[tuple[int, ...]] = set()  # groups of which the cause of failure has been told
        self._failures = Failures()
        self._plan = Plan(self._send)
        self._gathering = Gathering(_is_wanted)
        self._progress: Optional[LogRecord] = None  # noqa: UP045 - the latest, not told yet
        hooks.quietly(elsewhere.install)
        if self._file.is_open:
            self.setLevel(_OURS)
            is_alone = len(getattr(self.common_settings, "log_handler_settings", ())) == 1
            hooks.install(self._send, self._plan, self._failures, self._gathering if is_alone else None)

    def _send(self, name: str, told: dict[str, Any]) -> None:
        """Tell of something that Snakemake does not, behind everything it has logged so far."""
        record = logging.makeLogRecord({"levelno": _OURS, "event": name, "snakeline": told})
        if not self._gathering.is_on or self._gathering.take(record):
            for handler in hooks.queue_handlers():
                handler.enqueue(record)

    def emit(self, record: LogRecord) -> None:
        if not self._file.is_open:
            return
        if not getattr(record, "is_gathered", False):
            hooks.quietly(self._tell, record)
        for gathered in self._gathering.hand_out():
            hooks.quietly(self._tell, gathered)
        hooks.quietly(self._flush)

    def _flush(self) -> None:
        if self._progress is not None:
            record, self._progress = self._progress, None
            self._write("progress", record.created, fields.progress(record))
        self._file.flush()

    def _tell(self, record: LogRecord) -> None:
        name = str(getattr(record, "event", None))
        ours: dict[str, Any] | None = getattr(record, "snakeline", None)
        if ours is None:
            handler = _HANDLERS.get(name)
            if handler is not None:
                handler(self, record)
        elif name == "job_error":
            self._on_job_error(logging.makeLogRecord({**ours, "created": record.created}))
        else:
            self._write(name, record.created, ours)

    # ------------------------------------------------------------ one method per event

    def _on_workflow_started(self, record: LogRecord) -> None:
        self._write("workflow_started", record.created, fields.workflow_started(record))

    def _on_resources_info(self, record: LogRecord) -> None:
        self._cores = fields.number(getattr(record, "cores", self._cores))

    def _on_run_info(self, record: LogRecord) -> None:
        self._write("run_info", record.created, {**fields.run_info(record), "cores": self._cores})

    def _on_job_started(self, record: LogRecord) -> None:
        told = fields.job_started(record)
        self._running.update(told["jobids"])
        if told["jobids"]:
            self._write("job_started", record.created, told)

    def _on_job_info(self, record: LogRecord) -> None:
        brief = self._file.used_bytes > _WHOLE_BYTES
        try:
            told = fields.brief_job_info(record) if brief else fields.job_info(record)
        except Exception:  # noqa: BLE001 - a value that cannot be told
            told = {"jobid": record.jobid, "rule": str(record.rule_name)}  # type: ignore[attr-defined]
        jobid = told["jobid"]
        self._running.add(jobid)
        told["group"] = self._groups.get(jobid, (None,))[0]
        told["script"] = self._plan.scripts.get(str(told["rule"]))
        self._write("job_info", record.created, told)

    def _on_job_finished(self, record: LogRecord) -> None:
        told = fields.job_finished(record)
        self._running.discard(told["jobid"])
        self._write("job_finished", record.created, told)

    def _on_job_error(self, record: LogRecord) -> None:
        told = fields.job_error(record)
        jobid = told["jobid"]
        if jobid not in self._running:
            return  # Snakemake's older versions repeat every error at the end
        self._running.discard(jobid)
        known = self._failures.take(jobid)
        if jobid in self._groups:
            _, members = self._groups[jobid]
            if known:
                self._explained.add(members)
            elif members in self._explained or any(map(self._failures.has, members)):
                known = {"knock_on": True}  # ended because another of its group has failed
        told.update((name, value) for name, value in known.items() if told.get(name) is None)
        self._write("job_error", record.created, told)

    def _on_group_info(self, record: LogRecord) -> None:
        told = fields.group_info(record)
        jobids = told["jobids"]
        members = tuple(jobids)
        self._groups.update(dict.fromkeys(jobids, (told["group"], members)))
        self._explained.discard(members)
        self._write("group_info", record.created, told)
        # Its start was told under the group's name alone.
        self._running.update(jobids)
        self._write("job_started", record.created, {"jobids": jobids})

    def _on_group_error(self, record: LogRecord) -> None:
        told = fields.group_error(record)
        message = self._failures.words(told["jobids"])
        self._write("group_error", record.created, {**told, "message": message})

    def _on_progress(self, record: LogRecord) -> None:
        if self._is_due(fields.progress(record)):
            self._progress = record

    def _on_error(self, record: LogRecord) -> None:
        message = self._failures.placed(record.getMessage())
        if not message.rstrip().endswith("SpawnedJobError"):
            told = {**fields.error(message), "jobid": self._failures.whose(message)}
            self._write("error", record.created, told)
        # Else the Snakemake inside has said why, and this one only that.

    # ------------------------------------------------------------ to the file

    def _is_due(self, progress: dict[str, Any]) -> bool:
        done, total = progress["done"], progress["total"]
        return self._file.used_bytes < _WHOLE_BYTES or done == total or done % _PROGRESS_EVERY == 0

    def _write(self, name: str, created: float, told: dict[str, Any]) -> None:
        if self._file.used_bytes > _ROOM.get(name, LIMIT_BYTES):
            return
        line = {"v": 2, "event": name, "t": round(created, 3)}
        line.update((key, value) for key, value in told.items() if _is_told(value))
        data = _encoded(line)
        while len(data) > _LINE_BYTES and (longest := _longest(line)) is not None:
            # Only a very wide graph or text beyond measure: the rest of it is worth more than nothing.
            del line[longest]
            data = _encoded(line)
        self._file.append(data)

    def close(self) -> None:
        hooks.quietly(self._end)
        self._file.close()
        super().close()

    def _end(self) -> None:
        # The listener has ended by now: what is still to be told of the graph goes straight to the file.
        for record in self._gathering.rest():
            hooks.quietly(self._tell, record)
        self._plan.end(lambda name, told: self._write(name, time.time(), told))
        self._flush()

    @property
    def writes_to_stream(self) -> bool:
        return False

    @property
    def writes_to_file(self) -> bool:
        # "To a file" means Snakemake's own kind of log file, which it announces at the end of a run.
        return False

    @property
    def has_filter(self) -> bool:
        return True  # the default filter would drop events under --quiet

    @property
    def has_formatter(self) -> bool:
        return True

    @property
    def needs_rulegraph(self) -> bool:
        return False


def _is_wanted(record: LogRecord) -> bool:
    return getattr(record, "event", None) in _HANDLERS


def _longest(line: dict[str, Any]) -> "str | None":
    """Which of its lists and objects takes most of the line."""
    sizes = {key: len(_encode(value)) for key, value in line.items() if isinstance(value, (list, dict))}
    return max(sizes, key=sizes.__getitem__, default=None)


def _is_told(value: object) -> bool:
    return bool(value) or (isinstance(value, (int, float)) and not isinstance(value, bool))


_encode = json.JSONEncoder(
    separators=(",", ":"), ensure_ascii=False, allow_nan=False, check_circular=False, default=fields.text
).encode


def _encoded(line: dict[str, Any]) -> bytes:
    return _encode(line).encode("utf-8", "replace")


_HANDLERS: dict[str, Callable[[LogHandler, LogRecord], None]] = {
    "workflow_started": LogHandler._on_workflow_started,  # noqa: SLF001 - the table belongs to the class
    "resources_info": LogHandler._on_resources_info,  # noqa: SLF001
    "run_info": LogHandler._on_run_info,  # noqa: SLF001
    "job_started": LogHandler._on_job_started,  # noqa: SLF001
    "job_info": LogHandler._on_job_info,  # noqa: SLF001
    "job_finished": LogHandler._on_job_finished,  # noqa: SLF001
    "job_error": LogHandler._on_job_error,  # noqa: SLF001
    "group_info": LogHandler._on_group_info,  # noqa: SLF001
    "group_error": LogHandler._on_group_error,  # noqa: SLF001
    "progress": LogHandler._on_progress,  # noqa: SLF001
    "error": LogHandler._on_error,  # noqa: SLF001
}

"""Snakemake's logger plugin `snakeline`: the run's events as one JSON object a line.

Runs in Snakemake's interpreter. It can lose events (full disk, missing path, limits) but never slows or
breaks the run it watches.
"""

import json
import os
from dataclasses import dataclass, field
from logging import LogRecord
from typing import Any, Optional

from snakemake_interface_logger_plugins.base import (  # type: ignore[import-not-found,unused-ignore]
    LogHandlerBase,
)
from snakemake_interface_logger_plugins.settings import (  # type: ignore[import-not-found,unused-ignore]
    LogHandlerSettingsBase,
)

FILE_LIMIT_BYTES = 64 * 2**20
_MAX_ITEMS = 100
_MAX_TEXT = 4096


@dataclass
class LogHandlerSettings(LogHandlerSettingsBase):  # type: ignore[misc,unused-ignore]
    # Snakemake looks at the annotation at run time and knows Optional alone.
    path: Optional[str] = field(  # noqa: UP045
        default=None, metadata={"help": "The file to append the events to.", "required": True}
    )


class LogHandler(LogHandlerBase):  # type: ignore[misc,unused-ignore]
    """Called on the queue listener's thread, in the order the events were logged."""

    def __post_init__(self) -> None:
        self._fd: Optional[int] = None  # noqa: UP045
        self._room_bytes = FILE_LIMIT_BYTES
        self._cores: Any = None
        try:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
            self._fd = os.open(self.settings.path, flags, 0o600)
            self._room_bytes -= os.fstat(self._fd).st_size
        except Exception:  # noqa: BLE001 - a run without events is better than none
            self._room_bytes = 0

    def emit(self, record: LogRecord) -> None:
        event = str(getattr(record, "event", None))
        if event == "resources_info":
            self._cores = getattr(record, "cores", self._cores)
        describe = _EVENTS.get(event)
        if describe is None or self._fd is None or self._room_bytes <= 0:
            return
        try:
            name, fields = describe(record)
            if name == "run_info":
                fields["cores"] = self._cores
            line = {"v": 1, "event": name, "t": record.created, **fields}
            data = json.dumps(line, separators=(",", ":"), default=_short).encode() + b"\n"
            self._room_bytes -= len(data)
            os.write(self._fd, data)
        except Exception:  # noqa: BLE001 - see above
            return

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        super().close()

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


def _short(value: object) -> "str | None":
    return None if value is None else str(value)[:_MAX_TEXT]


def _texts(values: Any) -> list[str]:
    return [str(value)[:_MAX_TEXT] for value in list(values or ())[:_MAX_ITEMS]]


def _pairs(values: Any) -> dict[str, Any]:
    items = list(dict(values.items()).items())[:_MAX_ITEMS] if values else []
    return {
        str(name): value if isinstance(value, (int, float)) else _short(value)
        for name, value in items
        if not str(name).startswith("_")
    }


def _get(record: LogRecord, name: str) -> Any:
    return getattr(record, name, None)


def _workflow_started(record: LogRecord) -> tuple[str, dict[str, Any]]:
    return "workflow_started", {
        "snakefile": _short(_get(record, "snakefile_main") or _get(record, "snakefile")),
        "snakemake_version": _short(_get(record, "snakemake_version")),
    }


def _run_info(record: LogRecord) -> tuple[str, dict[str, Any]]:
    stats = dict(_get(record, "stats") or {})
    total = stats.pop("total", None) or sum(stats.values())
    return "run_info", {"total": total, "rules": stats}


def _job_info(record: LogRecord) -> tuple[str, dict[str, Any]]:
    return "job_info", {
        "jobid": _get(record, "jobid"),
        "rule": _get(record, "rule_name"),
        "wildcards": _pairs(_get(record, "wildcards")),
        "input": _texts(_get(record, "input")),
        "output": _texts(_get(record, "output")),
        "log": _texts(_get(record, "log")),
        "threads": _get(record, "threads"),
        "resources": _pairs(_get(record, "resources")),
        "reason": _short(_get(record, "reason")),
        "shellcmd": _short(_get(record, "shellcmd")),
        "message": _short(_get(record, "rule_msg")),
    }


def _job_started(record: LogRecord) -> tuple[str, dict[str, Any]]:
    jobs = _get(record, "jobs")
    return "job_started", {"jobids": jobs if isinstance(jobs, list) else [jobs]}


def _job_finished(record: LogRecord) -> tuple[str, dict[str, Any]]:
    return "job_finished", {"jobid": _get(record, "job_id")}


def _job_error(record: LogRecord) -> tuple[str, dict[str, Any]]:
    return "job_error", {
        "jobid": _get(record, "jobid"),
        "rule": _get(record, "rule_name"),
        "log": _texts(_get(record, "log")),
        "shellcmd": _short(_get(record, "shellcmd")),
    }


def _progress(record: LogRecord) -> tuple[str, dict[str, Any]]:
    return "progress", {"done": _get(record, "done"), "total": _get(record, "total")}


def _error(record: LogRecord) -> tuple[str, dict[str, Any]]:
    return "error", {"message": record.getMessage()[:_MAX_TEXT]}


_EVENTS = {
    "workflow_started": _workflow_started,
    "run_info": _run_info,
    "job_info": _job_info,
    "job_started": _job_started,
    "job_finished": _job_finished,
    "job_error": _job_error,
    "progress": _progress,
    "error": _error,
}

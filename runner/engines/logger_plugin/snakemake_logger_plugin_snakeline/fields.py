"""What is told of each of Snakemake's own events: names and bounded values. Nothing here knows a file.

A field without a value is left out. Each function takes Snakemake's record and returns plain values.
"""

import os
import re
import sys
from collections.abc import Iterable
from logging import LogRecord
from typing import Any

MAX_TEXT = 4096
_MAX_SHELL = 16 * 2**10
_MAX_ITEMS = 1000
_LIST_CHARS = 32 * 2**10
_MAX_PAIRS = 100
_MAX_NUMBER = 2**53  # beyond it, JSON's readers disagree
_ADVICE = "For further error details see the cluster/cloud log"

# What Snakemake says of a file behind its name.
_LABEL = r"(?:pipe|service|nodelocal|update|before update|cached|access: \w+)"
_STORAGE = r"(?:retrieve from storage|only provide storage uri|send to storage|in storage)"
_REMARK = re.compile(rf" \((?:{_LABEL}(?:, {_STORAGE})?|{_STORAGE})\)$")
_PLACE = re.compile(
    r"(?:RuleException:\n)?\w+(?: in rule (?P<rule>\S+?))?"
    r"(?: in file \"(?P<file>[^\"\n]+)\", line (?P<line>\d+))?[:.]"
)


def text(value: object, limit: int = MAX_TEXT) -> "str | None":
    """At most `limit` characters; what is cut ends in an ellipsis."""
    if value is None:
        return None
    told = str(value)
    return told if len(told) <= limit else told[: limit - 1] + "…"


def number(value: object) -> "int | float | None":
    """A number that every reader of JSON takes for the same one."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if is_number and -_MAX_NUMBER < value < _MAX_NUMBER else None  # type: ignore[operator,return-value]


def paths(values: Any) -> "tuple[list[str], int]":
    """The first of them, at most a thousand and 32 KiB, and how many are left out."""
    if isinstance(values, str):
        values = [values]
    told: list[str] = []
    room = _LIST_CHARS
    values = list(values or ())
    for value in values[:_MAX_ITEMS]:
        path = _REMARK.sub("", str(value))
        room -= len(path)
        if room < 0:
            break
        told.append(path)
    return told, len(values) - len(told)


def pairs(values: Any) -> dict[str, Any]:
    """Names with numbers or texts, without what Snakemake adds for itself."""
    found: dict[str, Any] = {}
    for name, value in list(values.items()) if values else ():
        if str(name).startswith("_") or name == "tmpdir":
            continue
        if len(found) == _MAX_PAIRS:
            break
        found[str(name)[:MAX_TEXT]] = value if number(value) is not None else text(value)
    return found


def wildcards(values: Any) -> dict[str, str]:
    return (
        {str(name): str(value)[:MAX_TEXT] for name, value in list(values.items())[:_MAX_PAIRS]}
        if values
        else {}
    )


def integers(values: Iterable[object]) -> list[int]:
    return [value for value in values if isinstance(value, int)]


def _get(record: LogRecord, name: str) -> Any:
    return getattr(record, name, None)


def workflow_started(record: LogRecord) -> dict[str, Any]:
    return {
        "snakefile": text(_get(record, "snakefile_main") or _get(record, "snakefile")),
        "snakemake_version": text(_get(record, "snakemake_version") or _version()),
    }


def _version() -> object:
    # The first versions with events do not tell it.
    return getattr(sys.modules.get("snakemake"), "__version__", None)


def run_info(record: LogRecord) -> dict[str, Any]:
    stats = dict(_get(record, "stats") or {})
    total = stats.pop("total", None) or sum(stats.values())
    return {"total": number(total), "rules": pairs(stats)}


def job_info(record: LogRecord) -> dict[str, Any]:
    told: dict[str, Any] = {
        **brief_job_info(record),
        "threads": number(_get(record, "threads")),
        "priority": number(_get(record, "priority")),
        "resources": pairs(_get(record, "resources")),
        "reason": text(_get(record, "reason")),
        "shellcmd": text(_get(record, "shellcmd"), _MAX_SHELL),
        "message": text(_get(record, "rule_msg")),
        "checkpoint": bool(_get(record, "is_checkpoint")),
        "local": bool(_get(record, "local")),
    }
    left_out = {}
    for name in ("input", "output", "log", "benchmark"):
        told[name], missing = paths(_get(record, name))
        if missing:
            left_out[name] = missing
    return {**told, "left_out": left_out}


def brief_job_info(record: LogRecord) -> dict[str, Any]:
    """What a task cannot be told apart without."""
    return {
        "jobid": _get(record, "jobid"),
        "rule": text(_get(record, "rule_name")),
        "wildcards": wildcards(_get(record, "wildcards")),
    }


def job_started(record: LogRecord) -> dict[str, Any]:
    jobs = _get(record, "jobs")
    # A group has no number: its tasks are told of with the group.
    return {"jobids": integers(jobs if isinstance(jobs, list) else [jobs])}


def job_finished(record: LogRecord) -> dict[str, Any]:
    return {"jobid": _get(record, "job_id")}


def job_error(record: LogRecord) -> dict[str, Any]:
    aux = _get(record, "aux")
    return {
        "jobid": _get(record, "jobid"),
        "rule": text(_get(record, "rule_name")),
        "log": _from_here(paths(_get(record, "log"))[0]),
        "shellcmd": text(_get(record, "shellcmd"), _MAX_SHELL),
        "message": _without_advice(text(_get(record, "rule_msg"))),
        "external_id": text(aux.get("external_jobid")) if isinstance(aux, dict) else None,
    }


def _from_here(names: list[str]) -> list[str]:
    """As the workflow names its files: executors name their own logs from the root on."""
    here = os.getcwd() + "/"
    return [name.removeprefix(here) for name in names]


def _without_advice(message: "str | None") -> "str | None":
    return message and message.partition(_ADVICE)[0].rstrip()


def group_info(record: LogRecord) -> dict[str, Any]:
    return {
        "group": text(_get(record, "group_id")),
        "jobids": sorted(job.jobid for job in _get(record, "jobs")),
    }


def group_error(record: LogRecord) -> dict[str, Any]:
    infos = _get(record, "job_error_info") or ()
    return {
        "group": text(_get(record, "groupid")),
        "jobids": integers(info.get("jobid") for info in infos),
    }


def progress(record: LogRecord) -> dict[str, Any]:
    return {"done": number(_get(record, "done")), "total": number(_get(record, "total"))}


def error(message: str) -> dict[str, Any]:
    """The text, with the rule and the place that its first line names."""
    found = _PLACE.match(message)
    place: dict[str, Any] = found.groupdict() if found else {}
    if place.get("line"):
        place["line"] = int(place["line"][:9])
    return {"message": text(message), **place}

"""Snakemake's logger plugin without Snakemake: loaded into this interpreter, given records by hand."""

from __future__ import annotations

import importlib
import json
import logging
import sys
import types
from pathlib import Path
from typing import Any

from tests.support.engines import ROOT

PLUGINS = ROOT / "runner" / "engines" / "logger_plugin"
NAME = "snakemake_logger_plugin_snakeline"
SCHEMA: dict[str, Any] = json.loads((ROOT / "runner/engines/events.schema.json").read_text())


class _Base(logging.Handler):
    """As much of the interface's handler as the plugin builds on."""

    def __init__(self, common_settings: object, settings: object) -> None:
        super().__init__()
        self.common_settings = common_settings
        self.settings = settings
        self.__post_init__()

    def __post_init__(self) -> None: ...


def part(name: str = "") -> Any:
    """The plugin's package, or a module of it."""
    if NAME not in sys.modules:
        interface = "snakemake_interface_logger_plugins"
        base, settings = types.ModuleType(f"{interface}.base"), types.ModuleType(f"{interface}.settings")
        base.LogHandlerBase = _Base  # type: ignore[attr-defined]
        settings.LogHandlerSettingsBase = object  # type: ignore[attr-defined]
        stand_ins = {module.__name__: module for module in (types.ModuleType(interface), base, settings)}
        sys.modules.update(stand_ins)
        sys.path.append(str(PLUGINS))
        try:
            importlib.import_module(NAME)
        finally:
            sys.path.remove(str(PLUGINS))
            for module in stand_ins:
                del sys.modules[module]
    return importlib.import_module(f"{NAME}.{name}" if name else NAME)


def handler(path: Path | str | None) -> Any:
    return part().LogHandler(types.SimpleNamespace(), types.SimpleNamespace(path=path and str(path)))


def record(event: str, **attributes: Any) -> logging.LogRecord:
    return logging.makeLogRecord({"event": event, "created": 1795786610.4279, "msg": "", **attributes})


def job_info(number: int, **attributes: Any) -> logging.LogRecord:
    """What Snakemake tells of a task as it starts."""
    told = {
        "jobid": number,
        "rule_name": "align",
        "wildcards": {"sample": f"sample{number}"},
        "rule_msg": None,
        "local": True,
        "input": [f"reads/sample{number}.fastq.gz", "reference/genome.fa"],
        "output": [f"results/align/sample{number}.bam"],
        "log": [f"logs/align/sample{number}.log"],
        "benchmark": None,
        "reason": f"Missing output files: results/align/sample{number}.bam",
        "resources": {"_cores": 4, "_nodes": 1, "mem_mb": 8000, "tmpdir": "/tmp"},
        "priority": 0,
        "threads": 4,
        "is_checkpoint": False,
        "shellcmd": f"bwa mem -t 4 reference/genome.fa reads/sample{number}.fastq.gz "
        f"2> logs/align/sample{number}.log | samtools sort -o results/align/sample{number}.bam -",
    }
    return record("job_info", **{**told, **attributes})


def told(path: Path) -> list[dict[str, Any]]:
    """Every whole line of the file."""
    return [json.loads(line) for line in path.read_bytes().splitlines()]


class Task:
    """As much of Snakemake's job as is looked at."""

    def __init__(self, number: int, rule: str = "align", group: object = None) -> None:
        self.jobid = number
        self.rule = type("Rule", (), {"name": rule, "is_checkpoint": rule == "split", "script": None})()
        self.wildcards_dict = {"n": str(number)}
        self.pipe_group = group
        self.attempt = 1

"""What the events cost a run of many of the cheapest tasks there are: CPU with and without, and bytes."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Final

from benchmarks.rows import Row, absent, compared, limited

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.rows import Options

_SNAKEFILE: Final = """
rule all:
    input: expand("done/{{n}}.txt", n=range({tasks} - 1))

rule one:
    output: touch("done/{{n}}.txt")
    shell: ":"
"""
_TASKS: Final = 1000
_QUICK_TASKS: Final = 300
_RUN: Final = "runner/engines/snakemake_run.py"


def run(options: Options) -> list[Row]:
    if not options.snakemake.exists():
        return [absent("real Snakemake", "make snakemake-env")]
    tasks, rounds = (_QUICK_TASKS, 2) if options.quick else (_TASKS, 4)
    bare, told, size = [], [], 0
    for number in range(rounds):
        bare.append(_cpu_s(options, options.directory / f"bare{number}", tasks, events=False))
        folder = options.directory / f"told{number}"
        told.append(_cpu_s(options, folder, tasks, events=True))
        size = (folder / "events.jsonl").stat().st_size
    against = "the same without events"
    return [
        # The least of each: whatever else the machine does only adds.
        compared(f"CPU of {tasks:,} tasks", min(told), "s", against, min(bare), at_most=1.02),
        limited("events of a task", size / tasks, "bytes", at_most=3355),  # 10,000 whole in half of 64 MiB
    ]


def _cpu_s(options: Options, folder: Path, tasks: int, *, events: bool) -> float:
    """User and system time of one run, of its commands too."""
    folder.mkdir()
    (folder / "Snakefile").write_text(_SNAKEFILE.format(tasks=tasks))
    argv = [str(options.snakemake.parent / "python"), "-I", str(options.root / _RUN)]
    argv += ["--snakefile", "Snakefile", "--cores", "2", "--scheduler", "greedy"]
    argv += ["--profile", "none", "--workflow-profile", "none"]
    if events:
        argv += ["--logger", "snakeline", "--logger-snakeline-path", "events.jsonl"]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen([*argv, "--"], cwd=folder, stdout=log, stderr=log)
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError((folder / "log").read_text()[-2000:])
    return used.ru_utime + used.ru_stime

"""Events files of attempts that never ran."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from runner.attempt_files import AttemptFiles

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class EventsFile:
    """The events of one attempt, told by a test."""

    def __init__(self, data_dir: Path, job_id: str = "job", attempt: int = 1) -> None:
        self.files = AttemptFiles.of(data_dir, job_id, attempt)
        os.makedirs(self.files.directory, exist_ok=True)
        os.makedirs(self.files.work, exist_ok=True)

    def append(self, data: bytes) -> None:
        with open(self.files.events, "ab") as file:
            file.write(data)

    def tell(self, event: str, *, t: float = 1.0, **fields: Any) -> None:
        self.append(json.dumps({"v": 2, "event": event, "t": t, **fields}).encode() + b"\n")

    def run_task(self, number: int, rule: str, *, t: float = 1.0, **fields: Any) -> None:
        """A task that has begun."""
        self.tell("job_started", t=t, jobids=[number])
        self.tell("job_info", t=t, jobid=number, rule=rule, **fields)

    def tell_long_run(self, tasks: int) -> None:
        """A run of so many tasks of two rules, all of them done."""
        self.append(b"".join(_long_run(tasks)))


def _long_run(tasks: int) -> Iterable[bytes]:
    encode = json.JSONEncoder(separators=(",", ":")).encode

    def line(event: str, **fields: Any) -> bytes:
        return encode({"v": 2, "event": event, "t": 1.5e9, **fields}).encode() + b"\n"

    rule = {number: "align" if number % 2 else "sort" for number in range(tasks)}
    yield line("run_info", total=tasks, rules={"align": tasks // 2, "sort": tasks - tasks // 2})
    for first in range(0, tasks, 200):
        chunk = range(first, min(first + 200, tasks))
        yield line("tasks_planned", tasks=[[n, rule[n], {"sample": f"s{n:05}"}] for n in chunk])
    for n in range(tasks):
        sample = f"s{n:05}"
        yield line("job_started", jobids=[n])
        yield line(
            "job_info",
            jobid=n,
            rule=rule[n],
            wildcards={"sample": sample},
            input=[f"reads/{sample}_1.fastq.gz", f"reads/{sample}_2.fastq.gz", "reference/genome.fa"],
            output=[f"results/{rule[n]}/{sample}.bam"],
            log=[f"logs/{rule[n]}/{sample}.log"],
            threads=4,
            priority=0,
            reason=f"Missing output files: results/{rule[n]}/{sample}.bam",
            shellcmd=f"bwa mem -t 4 reference/genome.fa reads/{sample}_1.fastq.gz reads/{sample}_2.fastq.gz "
            f"2> logs/{rule[n]}/{sample}.log | samtools sort -o results/{rule[n]}/{sample}.bam -",
            local=True,
        )
        yield line("job_finished", jobid=n)
        yield line("progress", done=n + 1, total=tasks)

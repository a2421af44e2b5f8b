"""One workflow in which everything happens that Snakemake has an event for, and what its run has told."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.support import engines

if TYPE_CHECKING:
    from pathlib import Path

    from runner.jobs import JobSpec
    from runner.ports import Workflow

SNAKEFILE = """
import os

rule all:
    input: "gathered.txt", "final.txt", "old.txt", "piped.txt"

checkpoint split:
    output: directory("parts")
    shell: "mkdir {output}; touch {output}/a.txt {output}/b.txt"

def parts(wildcards):
    directory = checkpoints.split.get().output[0]
    return ["made/" + name for name in os.listdir(directory) if name.endswith(".txt")]

rule part:
    input: "parts/{name}.txt"
    output: "made/{name}.txt"
    log: "logs/{name}.log"
    benchmark: "benchmarks/{name}.tsv"
    threads: 2
    priority: 3
    resources: mem_mb=10
    message: "Makes {output}"
    shell: "echo {wildcards.name} > {output} 2> {log}"

rule gather:
    input: parts
    output: "gathered.txt"
    shell: "cat {input} > {output}"

rule old:
    output: "old.txt"
    shell: "touch {output}"

rule produce:
    output: pipe("stream.txt")
    shell: "echo x > {output}"

rule consume:
    input: "stream.txt"
    output: "piped.txt"
    shell: "cat {input} > {output}"

# After the checkpoint: Snakemake 9 forgets a task that waits for its second try when a checkpoint ends.
rule flaky:
    input: "parts"
    output: temp("flaky.txt")
    retries: 1
    shell: "mkdir tried || {{ touch {output}; exit 0; }}; exit 3"

rule final:
    input: "flaky.txt"
    output: "final.txt"
    shell: "cp {input} {output}"

rule bad:
    input:
        "bad_shell.txt", "bad_signal.txt", "bad_script.txt", "bad_run.txt", "bad_ensure.txt",
        "bad_missing.txt", "bad_piped.txt", "gathered.txt", "final.txt", "old.txt", "piped.txt"

rule bad_shell:
    output: "bad_shell.txt"
    log: "logs/bad_shell.log"
    shell: "echo oh no > {log}; exit 7"

rule bad_signal:
    output: "bad_signal.txt"
    shell: "kill -9 $$"

rule bad_script:
    output: "bad_script.txt"
    script: "bad.py"

rule bad_run:
    output: "bad_run.txt"
    run:
        raise ValueError("run failed")

rule bad_ensure:
    output: ensure("bad_ensure.txt", non_empty=True)
    shell: "touch {output}"

rule bad_missing:
    output: "bad_missing.txt"
    shell: "true"

rule bad_produce:
    output: pipe("bad_stream.txt")
    shell: "touch begun; sleep 600; echo x > {output}"

rule bad_consume:
    input: "bad_stream.txt"
    output: "bad_piped.txt"
    # Snakemake ends the other of the two only where it knows of its process by now.
    shell: "until [ -e begun ]; do sleep 0.05; done; sleep 0.5; exit 5"
"""

UNREADABLE = """
rule a:
    output: "a.txt"
    shell: "echo {unknown} > {output}"
"""


@dataclass
class Told:
    """One run: what it has told, and what it has written to its log."""

    exit_code: int
    log: bytes
    events: list[dict[str, Any]]
    lines: list[bytes]

    def of(self, name: str, **values: Any) -> list[dict[str, Any]]:
        """The events of that name with these values."""
        wanted = {"event": name, **values}
        return [event for event in self.events if {key: event.get(key) for key in wanted} == wanted]

    def numbers(self, rule: str) -> list[int]:
        """The tasks of that rule, as they were planned."""
        return [task[0] for line in self.of("tasks_planned") for task in line["tasks"] if task[1] == rule]


def write(folder: Path, snakefile: str = SNAKEFILE) -> Workflow:
    folder.mkdir()
    (folder / "Snakefile").write_text(snakefile)
    (folder / "bad.py").write_text("raise RuntimeError('script failed')\n")
    (folder / "old.txt").write_text("is there")
    return engines.workflow_of(folder)


def run(bench: engines.Bench, workflow: Workflow, spec: JobSpec) -> Told:
    """Run the next attempt. Missing outputs are not waited for."""
    command = bench.command(workflow, spec)
    place = command.argv.index("--logger")
    waits = () if bench.engine.name == "mock" else ("--latency-wait", "0")
    finished = bench.start_command(command, (*command.argv[:place], *waits, *command.argv[place:])).wait()
    with open(bench.files(bench.attempts).events, "rb") as file:
        lines = file.read().splitlines()
    return Told(finished.exit_code, finished.log, [json.loads(line) for line in lines], lines)

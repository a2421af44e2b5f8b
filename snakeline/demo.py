"""`snakeline demo`: ten jobs through a service of its own, by nothing but the public HTTP API."""

from __future__ import annotations

import csv
import gc
import json
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from snakeline.client import ClientError
from snakeline.service_process import ServiceFailed, ServiceProcess

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from snakeline.client import Client, Job

EngineName = Literal["mock", "snakemake"]

JOBS: Final = 10
_JOB_TIMEOUT_S: Final = 300.0
_LOOKS: Final = {
    "pending": ("○", "dim"),
    "running": ("●", "cyan"),
    "completed": ("✓", "green"),
    "failed": ("✗", "red"),
    "cancelled": ("⊘", "yellow"),
}
_SHOWN_RESULT: Final = 4  # min-length-5: the words that tell the texts apart
_FULL_ID_WIDTH: Final = 108
_WHAT_RUNS: Final[Mapping[EngineName, str]] = {
    "mock": "mock, a stand-in: no rule is really run",
    "snakemake": "real Snakemake",
}


class DemoFailed(Exception):
    """The demonstration could not be shown; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Planned:
    workflow: str
    name: str
    parameters: Mapping[str, Any]


def run(
    *,
    engine: EngineName,
    snakemake: str,
    keep: bool,
    svg: str | None,
    as_json: bool = False,
    quiet: bool = False,
) -> None:
    """Show the whole life of ten jobs. Raises DemoFailed; on any way out nothing is left running.

    With `as_json` the ended jobs are printed instead, with `quiet` nothing.
    """
    if engine == "mock":
        # Its runs only sleep, so all of them fit on any machine.
        settings = {"ENGINE": "mock", "MAX_CORES": str(JOBS), "MOCK_MIN_S": "1", "MOCK_MAX_S": "3"}
    else:
        settings = {"ENGINE": "snakemake", "SNAKEMAKE": _found(snakemake)}
    gc.enable()  # the command has none at its start
    console = Console(highlight=False, record=svg is not None, quiet=as_json or quiet)
    interrupts: list[int] = []

    def interrupt(number: int, _frame: object) -> None:
        interrupts.append(number)
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    directory = Path(tempfile.mkdtemp(prefix="snakeline-demo-"))
    try:
        with ServiceProcess(directory, settings) as service:
            ended = _show(console, service, directory, engine)
            if interrupts:  # what a destructor or a callback raises is printed, and goes no further
                raise KeyboardInterrupt
    except (ClientError, ServiceFailed) as error:
        raise DemoFailed(str(error)) from error
    finally:
        if keep:
            console.print(f"Kept: {directory}", soft_wrap=True)
        else:
            shutil.rmtree(directory)
    if as_json:
        print(json.dumps({"engine": engine, "jobs": [dict(job.raw) for job in ended]}, indent=2))
    if svg is not None:
        picture = console.export_svg(title=f"snakeline demo --engine {engine}")
        # Without the fonts that would be fetched from elsewhere: the reader's own will do.
        Path(svg).write_text(re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL))


def _found(snakemake: str) -> str:
    path = shutil.which(snakemake)
    if path is None:
        raise DemoFailed(f"There is no command {snakemake!r}. {_where_snakemake_is()}")
    # Not resolved: the folder of the link says which environment it belongs to.
    return str(Path(path).absolute())


def _where_snakemake_is() -> str:
    """What to do without it; that depends on how this was installed."""
    again = "snakeline demo --engine snakemake --snakemake"
    installed = Path(sys.prefix) / "snakemake" / "bin" / "snakemake"
    if installed.exists():
        return f"Snakemake is installed here: {again} {installed}"
    if (Path(__file__).resolve().parents[1] / "requirements-snakemake.lock").exists():
        return (
            "`make snakemake-env` installs Snakemake in an environment of its own; then: "
            f"{again} .venv-snakemake/bin/snakemake"
        )
    return f"Install Snakemake in a virtual environment of its own; then: {again} ENVIRONMENT/bin/snakemake"


def _plan(engine: EngineName) -> Sequence[Planned]:
    if engine == "mock":
        good = [Planned("demo", f"sample-{n}", {}) for n in range(1, JOBS)]
        # One in five runs of the stand-in fails by chance; this one by intent, so that a failure is seen.
        mock = {"fail_rule": "check", "stderr_text": "sample 10 has no reads"}
        return [*good, Planned("failing", f"sample-{JOBS}", {"mock": mock})]
    return [
        Planned("wordcount", f"min-length-{n}", {"min_length": n, "top_n": 6}) for n in range(1, JOBS + 1)
    ]


def _show(console: Console, service: ServiceProcess, directory: Path, engine: EngineName) -> list[Job]:
    version = service.require_ready()["engine"]["version"]
    what = _WHAT_RUNS[engine] + (f" {version}" if engine == "snakemake" else "")
    client = service.client
    console.print(Text.assemble(("Engine   ", "bold"), what))
    console.print(
        Text.assemble(("Service  ", "bold"), client.base_url, f", data in {directory}"), soft_wrap=True
    )

    began = time.monotonic()
    jobs = [
        client.submit(p.workflow, name=p.name, parameters=p.parameters, idempotency_key=p.name)
        for p in _plan(engine)
    ]
    console.print(f"\nPOST /jobs, {JOBS} times: accepted in {1000 * (time.monotonic() - began):.0f} ms\n")

    console.print(Text.assemble(("The log of ", "bold"), (jobs[0].name or jobs[0].id, "bold"), ", live:"))
    for line in _lines(client, jobs[0]):
        console.print(Text.assemble(("  │ ", "dim"), Text.from_ansi(line)), no_wrap=True, overflow="ellipsis")

    ended = [client.wait(job.id, timeout_s=_JOB_TIMEOUT_S) for job in jobs]
    took_s = time.monotonic() - began
    console.print()
    console.print(_table(ended, full_id=console.width >= _FULL_ID_WIDTH))
    for job in ended:
        if job.error_message:
            console.print(Text(f"{job.name}: {job.error_message.splitlines()[0]}", "red"))
    counts = Counter(job.status for job in ended)
    summary = ", ".join(f"{n} {status}" for status, n in sorted(counts.items()))
    console.print(Text.assemble(f"\n{JOBS} jobs in {took_s:.1f} s: {summary}. Engine: ", (what, "bold"), "."))
    if engine == "snakemake":
        if counts["completed"] < JOBS:
            raise DemoFailed("Not every job of the real workflow completed; the table above says which.")
        _show_result(console, directory, ended[_SHOWN_RESULT])
    return ended


def _lines(client: Client, job: Job) -> Iterator[str]:
    rest = ""
    for piece in client.follow_log(job.id):
        *lines, rest = (rest + piece).split("\n")
        yield from lines
    if rest:
        yield rest


def _plain_table(*headings: str) -> Table:
    return Table(*headings, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))


def _table(jobs: Sequence[Job], *, full_id: bool) -> Table:
    table = _plain_table("Job", "Name", "Workflow", "Status", "Reason", "Exit", "Seconds")
    for column in table.columns:
        column.no_wrap = True
    for column in table.columns[-2:]:
        column.justify = "right"
    for job in jobs:
        icon, style = _LOOKS[job.status]
        table.add_row(
            job.id if full_id else f"…{job.id[-8:]}",
            job.name,
            job.workflow,
            Text(f"{icon} {job.status}", style),
            job.reason,
            "-" if job.exit_code is None else str(job.exit_code),
            "-" if job.duration_s is None else f"{job.duration_s:.1f}",
        )
    return table


def _show_result(console: Console, directory: Path, job: Job) -> None:
    path = directory / "data/jobs" / job.id / "work/results/words.tsv"
    with path.open(encoding="utf-8", newline="") as file:
        heading, *rows = csv.reader(file, delimiter="\t")
    table = _plain_table(*heading)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*row)
    console.print(f"\nThe result of {job.name}, results/words.tsv:")
    console.print(table)

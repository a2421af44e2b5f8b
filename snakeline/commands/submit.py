"""`snakeline submit` and `snakeline plan`."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snakeline.commands import completing, following, parameters, words
from snakeline.commands.plain import plain
from snakeline.commands.session import (
    EXIT_REFUSED,
    AsJson,
    Profile,
    Quiet,
    Url,
    asking,
    exit_code_of,
    note,
    print_json,
    print_lines,
    print_table,
)
from snakeline.commands.waits import Waits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_WORKFLOW = typer.Argument(
    metavar="WORKFLOW",
    help="A registered workflow.",
    show_default=False,
    autocompletion=completing.behind_tab(completing.workflow),
)
_TARGETS = typer.Argument(
    metavar="TARGET...", help="Files or rules to make; by default the workflow's own.", show_default=False
)
_PARAMETER = typer.Option(
    "-p",
    "--parameter",
    metavar="KEY=VALUE",
    help="A parameter: a number, true, false, null, JSON, else a text (so are 007, 1e3). KEY:=JSON is JSON.",
)
_PARAMETER_FILE = typer.Option(
    "-f",
    "--parameters",
    metavar="FILE",
    help="A file of parameters, YAML or JSON; -p goes before it. - is stdin.",
)
_OPTION = typer.Option(
    "-o", "--option", metavar="NAME=VALUE", help="An option of Snakemake, as in keep_going=true."
)
_CORES = typer.Option(min=1, help="Cores; by default as the service says.", metavar="N")
_MEMORY = typer.Option(min=1, help="Memory of all its processes together, in MiB.", metavar="MB")


def submit(
    workflow: Annotated[str | None, _WORKFLOW] = None,
    targets: Annotated[list[str] | None, _TARGETS] = None,
    *,
    parameter: Annotated[list[str] | None, _PARAMETER] = None,
    parameter_file: Annotated[list[str] | None, _PARAMETER_FILE] = None,
    attach: Annotated[
        list[str] | None,
        typer.Option(
            "-a", "--attach", metavar="[NAME=]FILE", help="A file that goes with the job, into its input/."
        ),
    ] = None,
    workflow_file: Annotated[
        str | None,
        typer.Option(help="A Snakefile of your own, or an archive with one.", metavar="FILE"),
    ] = None,
    name: Annotated[str | None, typer.Option(help="For people.", metavar="TEXT")] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            "-l",
            "--label",
            metavar="KEY=TEXT",
            help="To find it by.",
            autocompletion=completing.behind_tab(completing.label),
        ),
    ] = None,
    cores: Annotated[int | None, _CORES] = None,
    memory_mb: Annotated[int | None, _MEMORY] = None,
    priority: Annotated[int, typer.Option(help="Higher starts earlier.", metavar="N")] = 0,
    timeout: Annotated[
        str | None, typer.Option(metavar="TIME", help="How long an attempt may run, as in 90s, 30m, 2h.")
    ] = None,
    max_retries: Annotated[int, typer.Option(min=0, help="New attempts after failures.", metavar="N")] = 0,
    retry_lost: Annotated[
        bool, typer.Option("--retry-lost", help="Also after an attempt that is lost.")
    ] = False,
    option: Annotated[list[str] | None, _OPTION] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="The same key and job are one job, however often sent.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", "-w", help="Wait for the end: the exit code is the job's.")
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Show its log until the end: the exit code is the job's.")
    ] = False,
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Submit a job. Its id is on standard output once it is durably stored.

    With --wait or --follow the exit code is the job's: 0 when it completed, else the engine's code, or
    128 and the number of the signal that ended it.
    """
    if workflow is None and workflow_file is None:
        raise typer.BadParameter("name a workflow, or give one by --workflow-file")
    if as_json and follow:
        raise typer.BadParameter(
            "--follow shows a log: with --json take --wait, or `snakeline logs -f --json`"
        )
    waits = Waits(quiet=quiet, is_transient=not follow)
    with asking(url, profile, waits=waits) as client:
        job = client.submit(
            workflow or "uploaded",
            parameters=_parameters(parameter, parameter_file),
            targets=targets or (),
            cores=cores,
            name=name,
            labels=parameters.texts(label or (), what="--label"),
            priority=priority,
            timeout_s=_timeout(timeout),
            memory_mb=memory_mb,
            max_retries=max_retries,
            retry_lost=retry_lost,
            options=parameters.pairs(option or (), what="--option"),
            files=_attachments(attach or ()),
            workflow_file=workflow_file,
            idempotency_key=idempotency_key,
        )
        if follow:
            note(f"Job {job.id} is {job.status}.", quiet=quiet)
            with following.may_be_left(job.id, url=url, profile=profile, quiet=quiet):
                job = following.to_its_end(client, job, waits=waits, quiet=quiet)
            raise typer.Exit(exit_code_of(job))
        if not as_json:
            print(job.id, flush=True)
        if wait:
            with following.may_be_left(job.id, url=url, profile=profile, quiet=quiet):
                job = client.wait(job.id)
            following.tell_end(job, quiet=quiet or as_json)
        if as_json:
            print_json(job.raw)
        raise typer.Exit(exit_code_of(job) if wait else 0)


def _parameters(given: Sequence[str] | None, files: Sequence[str] | None) -> dict[str, Any]:
    return parameters.from_files(files or ()) | parameters.pairs(given or (), what="-p")


def _timeout(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return words.seconds(text)
    except ValueError as error:
        raise parameters.NotUnderstood(
            f"--timeout: {text!r} is no length of time: write 90s, 30m, 2h or 1d"
        ) from error


def _attachments(given: Sequence[str]) -> Mapping[str, str]:
    files: dict[str, str] = {}
    for each in given:
        name, equals, path = each.partition("=")
        if not equals or os.path.exists(each):
            name, path = os.path.basename(each), each
        if name in files:
            raise parameters.NotUnderstood(f"--attach: two files would be called {name!r}: write NAME=FILE")
        files[name] = path
    return files


def plan(
    workflow: Annotated[str, _WORKFLOW],
    targets: Annotated[list[str] | None, _TARGETS] = None,
    *,
    parameter: Annotated[list[str] | None, _PARAMETER] = None,
    parameter_file: Annotated[list[str] | None, _PARAMETER_FILE] = None,
    attach: Annotated[
        list[str] | None,
        typer.Option(
            "-a", "--attach", metavar="NAME", help="A file that would go with the job, below input/."
        ),
    ] = None,
    cores: Annotated[int | None, _CORES] = None,
    memory_mb: Annotated[int | None, _MEMORY] = None,
    option: Annotated[list[str] | None, _OPTION] = None,
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Say what a job would do, without one. Exit code 0 when it can be planned, else 65."""
    with asking(url, profile, quiet=quiet) as client:
        found = client.plan(
            workflow,
            parameters=_parameters(parameter, parameter_file),
            targets=targets or (),
            cores=cores,
            memory_mb=memory_mb,
            options=parameters.pairs(option or (), what="--option"),
            attachments=attach or (),
        )
        if as_json:
            print_json(found)
        elif quiet:
            print_lines([f"{rule}\t{count}" for rule, count in found["rules"].items()])
        else:
            _show_plan(found)
        raise typer.Exit(0 if found["ok"] else EXIT_REFUSED)


def _show_plan(found: Mapping[str, Any]) -> None:
    if found["rules"]:
        print_table(("Rule", "Tasks"), [(rule, str(count)) for rule, count in found["rules"].items()])
    print_lines([f"{found['tasks']['total']} tasks would run, {found['up_to_date']} are up to date."])
    sys.stdout.flush()
    for missing in found["missing_input"]:
        note(f"Missing: {', '.join(missing['files'])}, which rule {missing['rule']} needs")
    for error in found["errors"]:
        print(plain(error), file=sys.stderr)

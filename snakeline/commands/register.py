"""Which commands there are besides those for the machine of the service."""

from __future__ import annotations

import typer

from snakeline.commands import jobs, logs, outputs, submit, watch


def add_to(app: typer.Typer) -> None:
    """Those that ask a service about its jobs."""
    app.command()(submit.submit)
    app.command("list")(jobs.list_jobs)
    for each in (jobs.show, jobs.tasks, logs.logs, watch.watch, jobs.cancel, jobs.retry, jobs.delete):
        app.command()(each)
    of_outputs = typer.Typer(help="List and fetch the files of a job.", no_args_is_help=True)
    of_outputs.command("list")(outputs.list_outputs)
    of_outputs.command("get")(outputs.get_outputs)
    app.add_typer(of_outputs, name="outputs")
    app.command()(submit.plan)

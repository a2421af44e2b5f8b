"""The `snakeline` command. Heavy modules are imported by the command that needs them: `--help` is instant."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

app = typer.Typer(
    name="snakeline",
    help="Run Snakemake jobs as a service: submit over REST, watch, read the log, cancel, retry.",
    epilog="Settings are environment variables with the prefix SNAKELINE_; see docs/settings.md.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)

EXIT_UNUSABLE_SETTINGS = 2


def main() -> None:
    """The entry point of the console script."""
    app(prog_name="snakeline")


def _stop(message: str, code: int) -> NoReturn:
    """End with one line on stderr: what is wrong and what to do."""
    typer.echo(f"snakeline: {' '.join(message.split())}", err=True)
    raise typer.Exit(code)


@app.command()
def serve() -> None:
    """Start the service in the foreground; Ctrl-C or SIGTERM stops it.

    What becomes of running jobs then is SNAKELINE_ON_SHUTDOWN: they go on without it, or resume later.
    """
    from api import server, settings

    try:
        given = settings.from_environment()
    except settings.SettingsError as error:
        _stop(str(error), EXIT_UNUSABLE_SETTINGS)
    raise typer.Exit(server.serve(given))


@app.command()
def check(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Look for damage in the store and in jobs' files instead.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --repair: do what it says.")] = False,
) -> None:
    """Say what is there, what is missing and what to do: settings, store, engine, isolation.

    Exit code 0 when all that is needed is there, else 1. A running service is not disturbed.

    With --repair: say what is damaged in the data directory of a stopped service and what would be done;
    do it only with --yes. What is damaged is kept under another name. Exit code 0 when nothing is damaged
    or all of it was repaired, else 1.
    """
    from snakeline import checks

    if yes and not repair:
        raise typer.BadParameter("--yes goes with --repair")
    if repair:
        _repair(apply=yes, as_json=as_json)
    report = checks.run()
    checks.show(report, as_json=as_json)
    raise typer.Exit(0 if report.ok else 1)


def _repair(*, apply: bool, as_json: bool) -> NoReturn:
    from api.settings import SettingsError
    from snakeline import repair as repairs

    try:
        done = repairs.run(apply=apply)
    except (SettingsError, repairs.Failed) as error:
        _stop(str(error), EXIT_UNUSABLE_SETTINGS)
    repairs.show(done, as_json=as_json)
    raise typer.Exit(0 if done.ok else 1)


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="The file to write.", show_default=False)],
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
) -> None:
    """Copy the store (every job's row, not its files) to FILE, consistent while a service runs."""
    from api.settings import SettingsError
    from snakeline import backup as backups

    try:
        typer.echo(backups.take(file, force=force))
    except (SettingsError, backups.Failed) as error:
        _stop(str(error), EXIT_UNUSABLE_SETTINGS)


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="What `snakeline backup` has written.", show_default=False)],
) -> None:
    """Put a backup in the store's place. Stop the service first; what was there is kept beside it."""
    from api.settings import SettingsError
    from snakeline import backup as backups

    try:
        typer.echo(backups.put_back(file))
    except (SettingsError, backups.Failed) as error:
        _stop(str(error), EXIT_UNUSABLE_SETTINGS)


@app.command()
def demo(
    *,
    engine: Annotated[
        Literal["mock", "snakemake"],
        typer.Option(help="`mock` needs nothing; `snakemake` runs a real workflow."),
    ] = "mock",
    snakemake: Annotated[
        str, typer.Option(metavar="PATH", help="How real Snakemake is started.")
    ] = "snakemake",
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the data directory and say where it is.")
    ] = False,
    svg: Annotated[
        str | None, typer.Option(metavar="FILE", hidden=True, help="Also save what was shown as a picture.")
    ] = None,
) -> None:
    """Start a service of its own, run ten jobs through it over REST, and leave nothing behind."""
    from snakeline import demo as show

    try:
        show.run(engine=engine, snakemake=snakemake, keep=keep, svg=svg)
    except show.DemoFailed as error:
        _stop(str(error), 1)


@app.command()
def version() -> None:
    """Print the versions of Snakeline and Python."""
    from importlib.metadata import version as installed

    typer.echo(f"snakeline {installed('snakeline')} (Python {sys.version.split()[0]})")

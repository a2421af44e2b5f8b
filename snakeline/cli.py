"""The `snakeline` command. Heavy modules are imported by the command that needs them: `--help` is instant."""

from __future__ import annotations

import gc
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from snakeline.access_commands import keys, tenants
from snakeline.commands.register import add_to
from snakeline.commands.session import AsJson, Quiet, print_json
from snakeline.workflow_commands import workflows

app = typer.Typer(
    name="snakeline",
    help="Run Snakemake jobs as a service: submit over REST, watch, read the log, cancel, retry.",
    epilog="Settings are environment variables with the prefix SNAKELINE_; see docs/settings.md.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
add_to(app)
app.add_typer(workflows, name="workflows")
app.add_typer(keys, name="keys")
app.add_typer(tenants, name="tenants")

EXIT_UNUSABLE_SETTINGS = 2
_OURS = ("api", "runner", "snakeline", "mock_snakemake")


if TYPE_CHECKING:
    from typer.models import CommandInfo


def main() -> None:
    """The entry point of the console script."""
    gc.disable()  # what a command makes of garbage before its end is little; the service looks for its own
    _keep(sys.argv[1:2])
    _prepare_output()
    try:
        app(prog_name="snakeline")
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] in _OURS:
            raise
        sys.exit(
            f"snakeline: {missing.name} is not installed: this command needs what the service needs. "
            "pip install 'snakeline[server]'"
        )


def _prepare_output() -> None:
    if isinstance(getattr(sys.stdout, "buffer", None), io.RawIOBase):
        # PYTHONUNBUFFERED: what is written to it may be written in part, and nobody would notice.
        buffered = io.BufferedWriter(sys.stdout.detach())  # type: ignore[union-attr]
        sys.stdout = io.TextIOWrapper(buffered, encoding="utf-8", line_buffering=True)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show it gets its code


@app.callback()
def _group() -> None:
    """Keep commands under their names, also where there is only one."""


def _keep(wanted: list[str]) -> None:
    """Leave out all commands but the wanted one: to prepare each takes a millisecond or two."""
    commands = [c for c in app.registered_commands if [_name(c)] == wanted]
    groups = [g for g in app.registered_groups if [g.name] == wanted]
    if commands or groups:
        app.registered_commands, app.registered_groups = commands, groups


def _name(command: CommandInfo) -> str:
    function = getattr(command.callback, "__name__", "")
    return command.name or function.replace("_", "-")


def _stop(message: str, code: int) -> NoReturn:
    """End with one line on stderr: what is wrong and what to do."""
    typer.echo(f"snakeline: {' '.join(message.split())}", err=True)
    raise typer.Exit(code)


def _tell(text: str, *, as_json: bool, quiet: bool) -> None:
    if as_json:
        print_json({"ok": True, "told": text.splitlines()})
    elif not quiet:
        typer.echo(text)


@app.command()
def serve(
    *,
    restart: Annotated[
        bool,
        typer.Option("--restart", help="Start it again when it crashed, as a supervisor of services does."),
    ] = False,
) -> None:
    """Start the service in the foreground; Ctrl-C or SIGTERM stops it.

    What becomes of running jobs then is SNAKELINE_ON_SHUTDOWN: they go on without it, or resume later.
    """
    if restart:
        from snakeline.restarter import become_restarter

        become_restarter()

    from api import settings

    try:
        given = settings.from_environment()
    except settings.SettingsError as error:
        _stop(str(error), EXIT_UNUSABLE_SETTINGS)

    gc.disable()  # nothing imported is garbage: to look for some is a tenth of the start
    from api import server

    gc.enable()
    raise typer.Exit(server.serve(given))


@app.command()
def check(
    *,
    as_json: AsJson = False,
    quiet: Quiet = False,
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
        _repair(apply=yes, as_json=as_json, quiet=quiet)
    report = checks.run()
    checks.show(report, as_json=as_json, quiet=quiet)
    raise typer.Exit(0 if report.ok else 1)


def _repair(*, apply: bool, as_json: bool, quiet: bool) -> NoReturn:
    from api.settings import SettingsError
    from snakeline import repair as repairs

    try:
        done = repairs.run(apply=apply)
    except (SettingsError, repairs.Failed) as error:
        _stop(str(error), EXIT_UNUSABLE_SETTINGS)
    repairs.show(done, as_json=as_json, quiet=quiet)
    raise typer.Exit(0 if done.ok else 1)


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="The file to write.", show_default=False)],
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Copy the store (every job's row, not its files) to FILE, consistent while a service runs."""
    from api.settings import SettingsError
    from snakeline import backup as backups

    try:
        _tell(backups.take(file, force=force), as_json=as_json, quiet=quiet)
    except (SettingsError, backups.Failed) as error:
        _stop(str(error), EXIT_UNUSABLE_SETTINGS)


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="What `snakeline backup` has written.", show_default=False)],
    *,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Put a backup in the store's place. Stop the service first; what was there is kept beside it."""
    from api.settings import SettingsError
    from snakeline import backup as backups

    try:
        _tell(backups.put_back(file), as_json=as_json, quiet=quiet)
    except (SettingsError, backups.Failed) as error:
        _stop(str(error), EXIT_UNUSABLE_SETTINGS)


@app.command()
def upgrade(
    *,
    copy: Annotated[
        Path | None,
        typer.Option(help="Where to keep the store as it was before; by default beside it.", metavar="FILE"),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Upgrade the store of an older version, as the next start would. Stop the service first."""
    from api.settings import SettingsError
    from snakeline import backup as backups

    try:
        _tell(backups.bring_up(copy), as_json=as_json, quiet=quiet)
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
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Start a service of its own, run ten jobs through it over REST, and leave nothing behind."""
    from snakeline import demo as show

    try:
        show.run(engine=engine, snakemake=snakemake, keep=keep, svg=svg, as_json=as_json, quiet=quiet)
    except show.DemoFailed as error:
        _stop(str(error), 1)


@app.command()
def version(*, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Print the versions of Snakeline and Python. --quiet: that of Snakeline alone."""
    from importlib.metadata import version as installed

    ours, python = installed("snakeline"), sys.version.split()[0]
    if as_json:
        print_json({"snakeline": ours, "python": python})
    else:
        typer.echo(ours if quiet else f"snakeline {ours} (Python {python})")

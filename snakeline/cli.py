"""The `snakeline` command. Heavy modules are imported by the command that needs them: `--help` is instant."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from snakeline.access_commands import keys, tenants
from snakeline.commands.quick import QuickCommand, QuickGroup
from snakeline.commands.register import add_to
from snakeline.commands.session import AsJson, Quiet, print_json, stop
from snakeline.commands.streams import prepare_output, readers_may_leave
from snakeline.here_or_there import doing_here
from snakeline.workflow_commands import workflows

app = typer.Typer(
    name="snakeline",
    cls=QuickGroup,
    help="Run Snakemake jobs as a service: submit over REST, watch, read the log, cancel, retry.",
    epilog=(
        "Exit codes: 2 bad usage, 65 the service refused, 69 it does not answer; of --wait, --follow and "
        "watch the job's own (docs/cli.md). Settings of the service are environment variables with the "
        "prefix SNAKELINE_ (docs/settings.md)."
    ),
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
    """Run the command that `sys.argv` names."""
    gc.disable()  # what a command makes of garbage before its end is little; the service looks for its own
    _keep(sys.argv[1:2])
    prepare_output()
    try:
        with readers_may_leave():
            app(prog_name="snakeline")
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] in _OURS:
            raise
        sys.exit(
            f"snakeline: {missing.name} is not installed: this command needs what the service needs. "
            "pip install 'snakeline[server]'"
        )


@app.callback()
def _group() -> None:
    """Keep commands under their names, also where there is only one."""


def _keep(wanted: list[str]) -> None:
    """Leave out all commands but the wanted one: to prepare each takes a millisecond or two."""
    commands = [c for c in app.registered_commands if [_name(c)] == wanted]
    groups = [g for g in app.registered_groups if [g.name] == wanted]
    if commands or groups:
        app.registered_commands, app.registered_groups = commands, groups
        for group in groups:
            commands = [
                *commands,
                *(group.typer_instance.registered_commands if group.typer_instance else ()),
            ]
        for command in commands:
            command.cls = QuickCommand


def _name(command: CommandInfo) -> str:
    function = getattr(command.callback, "__name__", "")
    return command.name or function.replace("_", "-")


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
    """Start the service in the foreground.

    Ctrl-C or SIGTERM stops it. What becomes of running jobs then is SNAKELINE_ON_SHUTDOWN: they go on
    without it, or resume later.
    """
    if restart:
        from snakeline.restarter import become_restarter

        become_restarter()

    from api import settings

    try:
        given = settings.from_environment()
    except settings.SettingsError as error:
        stop(str(error), EXIT_UNUSABLE_SETTINGS)

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
    """Check settings, store, engine and isolation; say what to do.

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
    from snakeline import repair as repairs

    with doing_here(EXIT_UNUSABLE_SETTINGS):
        done = repairs.run(apply=apply)
    repairs.show(done, as_json=as_json, quiet=quiet)
    raise typer.Exit(0 if done.ok else 1)


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.", show_default=False)],
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Copy the store to FILE, consistent while a service runs.

    It has every job's row, not its files.
    """
    from snakeline import backup as backups

    with doing_here(EXIT_UNUSABLE_SETTINGS):
        _tell(backups.take(file, force=force), as_json=as_json, quiet=quiet)


@app.command()
def restore(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="What `snakeline backup` has written.", show_default=False)
    ],
    *,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Put a backup in the store's place. Stop the service first; what was there is kept beside it."""
    from snakeline import backup as backups

    with doing_here(EXIT_UNUSABLE_SETTINGS):
        _tell(backups.put_back(file), as_json=as_json, quiet=quiet)


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
    from snakeline import backup as backups

    with doing_here(EXIT_UNUSABLE_SETTINGS):
        _tell(backups.bring_up(copy), as_json=as_json, quiet=quiet)


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
    """Run ten jobs in a service of its own, over REST.

    Nothing is left behind, unless --keep says so.
    """
    from snakeline import demo as show

    try:
        show.run(engine=engine, snakemake=snakemake, keep=keep, svg=svg, as_json=as_json, quiet=quiet)
    except show.DemoFailed as error:
        stop(str(error), 1)


@app.command()
def version(*, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Print the versions of Snakeline and Python. --quiet: that of Snakeline alone."""
    from importlib.metadata import version as installed

    ours, python = installed("snakeline"), sys.version.split()[0]
    if as_json:
        print_json({"snakeline": ours, "python": python})
    else:
        typer.echo(ours if quiet else f"snakeline {ours} (Python {python})")

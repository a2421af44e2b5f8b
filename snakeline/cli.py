"""The `snakeline` command. Heavy modules are imported by the command that needs them: `--help` is instant."""

from __future__ import annotations

import gc
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

app = typer.Typer(
    name="snakeline",
    help="Run Snakemake jobs as a service: submit over REST, watch, read the log, cancel, retry.",
    epilog="Settings are environment variables with the prefix SNAKELINE_; see docs/settings.md.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)

keys = typer.Typer(help="Make, list, replace and revoke API keys.", no_args_is_help=True)
tenants = typer.Typer(help="List tenants and set their quotas.", no_args_is_help=True)
workflows = typer.Typer(help="List, fetch and check the registered workflows.", no_args_is_help=True)
app.add_typer(keys, name="keys")
app.add_typer(tenants, name="tenants")
app.add_typer(workflows, name="workflows")

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


@contextmanager
def _telling_failures() -> Iterator[None]:
    """End with one line on stderr where the command cannot do what it is asked to."""
    from api.settings import SettingsError
    from snakeline import access

    try:
        yield
    except SettingsError as error:
        _stop(str(error), EXIT_UNUSABLE_SETTINGS)
    except access.Failed as error:
        _stop(str(error), 1)


_AS_JSON = typer.Option("--json", help="Print one JSON document instead of text.")
_PREFIX = typer.Argument(metavar="PREFIX", help="The key's part before the dot.", show_default=False)


@keys.command("create")
def create_key(
    *,
    name: Annotated[str, typer.Option(help="Who will use it.", show_default=False)],
    scopes: Annotated[str, typer.Option(help="What it may do: read, submit, admin.")] = "read,submit",
    tenant: Annotated[str | None, typer.Option(help="Whose jobs it sees; * for every tenant.")] = None,
    expires: Annotated[
        str | None, typer.Option(metavar="TIME", help="How long it is good, as in 90d or 12h.")
    ] = None,
    as_json: Annotated[bool, _AS_JSON] = False,
) -> None:
    """Make a key. It is shown once, alone on standard output, and stored as a digest."""
    from snakeline import access

    with _telling_failures():
        key, text = access.create(name, scopes, tenant, expires)
        access.show_created(key, text, as_json=as_json)


@keys.command("list")
def list_keys(*, as_json: Annotated[bool, _AS_JSON] = False) -> None:
    """List all keys, without their secrets."""
    from snakeline import access

    with _telling_failures(), access.opened() as opened:
        access.show_keys(opened.keys(), as_json=as_json)


@keys.command("revoke")
def revoke_key(prefix: Annotated[str, _PREFIX]) -> None:
    """End a key at once: a running service refuses it from the next request on."""
    from snakeline import access

    with _telling_failures(), access.opened() as opened:
        opened.revoke_key(prefix)
    typer.echo(f"{prefix} is revoked.")


@keys.command("rotate")
def rotate_key(
    prefix: Annotated[str, _PREFIX],
    *,
    overlap: Annotated[
        str | None, typer.Option(metavar="TIME", help="How long the old key stays good, as in 1d.")
    ] = None,
    as_json: Annotated[bool, _AS_JSON] = False,
) -> None:
    """Make a new key in a key's place: same name, tenant, scopes and length of time."""
    from snakeline import access

    with _telling_failures():
        key, text = access.rotate(prefix, overlap)
        access.show_created(key, text, as_json=as_json)


@contextmanager
def _telling_workflow_failures() -> Iterator[None]:
    from api.settings import SettingsError
    from snakeline import workflows as registered

    try:
        yield
    except SettingsError as error:
        _stop(str(error), EXIT_UNUSABLE_SETTINGS)
    except registered.Failed as error:
        _stop(str(error), 1)


@workflows.command("list")
def list_workflows(*, as_json: Annotated[bool, _AS_JSON] = False) -> None:
    """List what is in SNAKELINE_WORKFLOWS_DIR, usable or not."""
    from snakeline import workflows as registered

    with _telling_workflow_failures():
        registered.show_listed(registered.listed(), as_json=as_json)


@workflows.command("fetch")
def fetch_workflows(
    name: Annotated[str | None, typer.Argument(help="One workflow; by default all.")] = None,
) -> None:
    """Fetch the commits that NAME.git.toml files name. A running service uses them from then on.

    Exit code 1 when one could not be fetched.
    """
    from snakeline import workflows as registered

    ok = True
    with _telling_workflow_failures():
        for pin, told, is_there in registered.fetch_pinned(name):
            ok = ok and is_there
            typer.echo(f"{pin.name} {pin.commit[:12]}: {told}")
    raise typer.Exit(0 if ok else 1)


@workflows.command("check")
def check_workflows(
    name: Annotated[str | None, typer.Argument(help="One workflow; by default all.")] = None,
    *,
    strict: Annotated[bool, typer.Option("--strict", help="Take warnings for errors.")] = False,
    as_json: Annotated[bool, _AS_JSON] = False,
) -> None:
    """Check workflows: their files, Snakemake's lints, and a dry run with the schema's defaults.

    It runs the workflows' own code, as you. Exit code 1 when something keeps jobs from running.
    """
    from snakeline import workflows as registered

    with _telling_workflow_failures():
        ok = registered.show_checked(registered.check(name), as_json=as_json, strict=strict)
    raise typer.Exit(0 if ok else 1)


@tenants.command("list")
def list_tenants(*, as_json: Annotated[bool, _AS_JSON] = False) -> None:
    """List every tenant that has a job, a key or a quota."""
    from snakeline import access

    with _telling_failures(), access.opened() as opened:
        access.show_tenants(opened.quotas(), as_json=as_json)


@tenants.command("set")
def set_tenant(
    tenant: Annotated[str, typer.Argument(help="Its name.", show_default=False)],
    *,
    cores: Annotated[str | None, typer.Option(help="Cores of its running jobs together.")] = None,
    pending: Annotated[str | None, typer.Option(help="Pending jobs.")] = None,
    gb: Annotated[str | None, typer.Option(help="GiB of its jobs' files.")] = None,
    as_json: Annotated[bool, _AS_JSON] = False,
) -> None:
    """Change what is named of a tenant's quota; `default` gives it back to the settings."""
    from snakeline import access

    with _telling_failures():
        access.show_tenants([access.set_quota(tenant, cores, pending, gb)], as_json=as_json)


@app.command()
def version() -> None:
    """Print the versions of Snakeline and Python."""
    from importlib.metadata import version as installed

    typer.echo(f"snakeline {installed('snakeline')} (Python {sys.version.split()[0]})")

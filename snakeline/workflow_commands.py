"""`snakeline workflows`: on the machine of the service, or by asking it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from snakeline.commands import access_tables
from snakeline.commands.plain import plain
from snakeline.commands.session import (
    EXIT_USAGE,
    AsJson,
    Profile,
    Quiet,
    Remote,
    Url,
    asking,
    is_remote,
    print_json,
    print_table,
    stop,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

workflows = typer.Typer(help="List, fetch and check the registered workflows.", no_args_is_help=True)


@contextmanager
def _telling_failures() -> Iterator[None]:
    from api.settings import SettingsError
    from snakeline import workflows as registered

    try:
        yield
    except SettingsError as error:
        stop(str(error), EXIT_USAGE)
    except registered.Failed as error:
        stop(str(error), 1)


@workflows.command("list")
def list_workflows(
    *,
    remote: Remote = False,
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """List what is in SNAKELINE_WORKFLOWS_DIR, usable or not; with --remote what the service offers."""
    if is_remote(remote, url, profile):
        with asking(url, profile) as client:
            access_tables.show_workflows(client.workflows(), as_json=as_json, quiet=quiet)
        return
    from snakeline import workflows as registered

    with _telling_failures():
        access_tables.show_workflows(registered.listed(), as_json=as_json, quiet=quiet)


@workflows.command("show")
def show_workflow(
    name: Annotated[str, typer.Argument(help="One that the service offers.", show_default=False)],
    *,
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Say what a workflow of the service does and which parameters it takes. --quiet: its version."""
    with asking(url, profile) as client:
        found = client.workflow(name)
        if as_json:
            print_json(found)
            return
        if quiet:
            print(plain(found["version"]))
            return
        print(plain(f"{found['name']}: {found['description'] or ''}\n{found['version']}"))
        schema = found["parameters_schema"] or {}
        must = schema.get("required", ())
        rows = [
            (
                key,
                str(each.get("type", "") if isinstance(each, dict) else ""),
                "(needed)" if key in must else str(each.get("default", "") if isinstance(each, dict) else ""),
                str(each.get("description", "") if isinstance(each, dict) else ""),
            )
            for key, each in schema.get("properties", {}).items()
        ]
        if rows:
            print_table(("Parameter", "Type", "Default", "Description"), rows)


@workflows.command("fetch")
def fetch_workflows(
    name: Annotated[str | None, typer.Argument(help="One workflow; by default all.")] = None,
    *,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Fetch the commits that NAME.git.toml files name. A running service uses them from then on.

    Exit code 1 when one could not be fetched.
    """
    from snakeline import workflows as registered

    documents = []
    with _telling_failures():
        for pin, told, is_there in registered.fetch_pinned(name):
            documents.append({"name": pin.name, "commit": pin.commit, "fetched": is_there, "detail": told})
            if not as_json and not (quiet and is_there):
                typer.echo(f"{pin.name} {pin.commit[:12]}: {told}")
    ok = all(each["fetched"] for each in documents)
    if as_json:
        print_json({"items": documents, "ok": ok})
    raise typer.Exit(0 if ok else 1)


@workflows.command("check")
def check_workflows(
    name: Annotated[str | None, typer.Argument(help="One workflow; by default all.")] = None,
    *,
    strict: Annotated[bool, typer.Option("--strict", help="Take warnings for errors.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Check workflows: their files, Snakemake's lints, and a dry run with the schema's defaults.

    It runs the workflows' own code, as you. Exit code 1 when something keeps jobs from running. --quiet tells
    of those alone.
    """
    from snakeline import workflows as registered

    with _telling_failures():
        ok = registered.show_checked(registered.check(name), as_json=as_json, strict=strict, quiet=quiet)
    raise typer.Exit(0 if ok else 1)

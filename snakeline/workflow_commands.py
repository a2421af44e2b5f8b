"""`snakeline workflows`: on the machine of the service, or by asking it."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from snakeline.commands import access_tables, completing
from snakeline.commands.plain import plain
from snakeline.commands.session import (
    AsJson,
    Profile,
    Quiet,
    Remote,
    Url,
    asking,
    print_json,
    print_table,
)
from snakeline.here_or_there import answer_of, doing_here

workflows = typer.Typer(help="List, fetch and check the registered workflows.", no_args_is_help=True)


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

    def here() -> list[dict[str, Any]]:
        from snakeline import workflows as registered

        return registered.listed()

    found = answer_of(
        lambda client: client.workflows(), here, remote=remote, url=url, profile=profile, quiet=quiet
    )
    access_tables.show_workflows(found, as_json=as_json, quiet=quiet)


@workflows.command("show")
def show_workflow(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="One that the service offers.",
            show_default=False,
            autocompletion=completing.behind_tab(completing.workflow),
        ),
    ],
    *,
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Say what a workflow of the service does and which parameters it takes. --quiet: its version."""
    with asking(url, profile, quiet=quiet) as client:
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
            (key, *_told(each if isinstance(each, dict) else {}, is_needed=key in must))
            for key, each in schema.get("properties", {}).items()
        ]
        if rows:
            print_table(("Parameter", "Type", "Default", "Description"), rows)


def _told(parameter: dict[str, Any], *, is_needed: bool) -> tuple[str, str, str]:
    """Its type, its default as `-p` takes it, and what it is for."""
    kind, default = parameter.get("type", ""), ""
    if "default" in parameter:
        default = json.dumps(parameter["default"], ensure_ascii=False)
    text = kind if isinstance(kind, str) else " or ".join(map(str, kind))
    return text, "(needed)" if is_needed else default, str(parameter.get("description", ""))


@workflows.command("fetch")
def fetch_workflows(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="One workflow; by default all.")] = None,
    *,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Fetch the commits that NAME.git.toml files name. A running service uses them from then on.

    Exit code 1 when one could not be fetched.
    """
    from snakeline import workflows as registered

    documents = []
    with doing_here():
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
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="One workflow; by default all.")] = None,
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

    with doing_here():
        ok = registered.show_checked(registered.check(name), as_json=as_json, strict=strict, quiet=quiet)
    raise typer.Exit(0 if ok else 1)

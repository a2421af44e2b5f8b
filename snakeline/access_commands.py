"""`snakeline keys` and `snakeline tenants`: on the machine of the service, or by asking it."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snakeline.commands import access_tables, words
from snakeline.commands.access_tables import BY_SETTINGS
from snakeline.commands.parameters import NotUnderstood
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
    stop,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

keys = typer.Typer(help="Make, list, replace and revoke API keys.", no_args_is_help=True)
tenants = typer.Typer(help="List tenants and set their quotas.", no_args_is_help=True)

_Prefix = Annotated[
    str, typer.Argument(metavar="PREFIX", help="The key's part before the dot.", show_default=False)
]


@contextmanager
def _telling_failures() -> Iterator[None]:
    """End with one line on stderr where the command cannot do what it is asked to."""
    from api.settings import SettingsError
    from snakeline import access

    try:
        yield
    except SettingsError as error:
        stop(str(error), EXIT_USAGE)
    except access.Failed as error:
        stop(str(error), 1)


@keys.command("create")
def create_key(
    *,
    name: Annotated[str, typer.Option(help="Who will use it.", show_default=False)],
    scopes: Annotated[str, typer.Option(help="What it may do: read, submit, admin.")] = "read,submit",
    tenant: Annotated[str | None, typer.Option(help="Whose jobs it sees; * for every tenant.")] = None,
    expires: Annotated[
        str | None, typer.Option(metavar="TIME", help="How long it is good, as in 90d or 12h.")
    ] = None,
    remote: Remote = False,
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Make a key. It is shown once, alone on standard output, and stored as a digest."""
    if is_remote(remote, url, profile):
        with asking(url, profile) as client:
            until = None if expires is None else datetime.now(UTC) + timedelta(seconds=_seconds(expires))
            wanted = scopes.replace(",", " ").split()
            made = client.create_key(name, wanted, tenant=tenant, expires_at=until)
            access_tables.show_created(made, as_json=as_json, quiet=quiet)
        return
    from snakeline import access

    with _telling_failures():
        made = access.create(name, scopes, tenant, expires)
        access_tables.show_created(made, as_json=as_json, quiet=quiet)


@keys.command("list")
def list_keys(
    *,
    remote: Remote = False,
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """List all keys, without their secrets."""
    if is_remote(remote, url, profile):
        with asking(url, profile) as client:
            access_tables.show_keys(client.keys(), as_json=as_json, quiet=quiet)
        return
    from snakeline import access

    with _telling_failures():
        access_tables.show_keys(access.keys(), as_json=as_json, quiet=quiet)


@keys.command("revoke")
def revoke_key(
    prefix: _Prefix,
    *,
    remote: Remote = False,
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """End a key at once: a running service refuses it from the next request on."""
    if is_remote(remote, url, profile):
        with asking(url, profile) as client:
            client.revoke_key(prefix)
    else:
        from snakeline import access

        with _telling_failures():
            access.revoke(prefix)
    if as_json:
        print_json({"prefix": prefix, "status": "revoked"})
    elif not quiet:
        typer.echo(f"{prefix} is revoked.")


@keys.command("rotate")
def rotate_key(
    prefix: _Prefix,
    *,
    overlap: Annotated[
        str | None, typer.Option(metavar="TIME", help="How long the old key stays good, as in 1d.")
    ] = None,
    remote: Remote = False,
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Make a new key in a key's place: same name, tenant, scopes and length of time."""
    if is_remote(remote, url, profile):
        with asking(url, profile) as client:
            made = client.rotate_key(prefix, overlap_s=0.0 if overlap is None else _seconds(overlap))
            access_tables.show_created(made, as_json=as_json, quiet=quiet)
        return
    from snakeline import access

    with _telling_failures():
        access_tables.show_created(access.rotate(prefix, overlap), as_json=as_json, quiet=quiet)


@tenants.command("list")
def list_tenants(
    *,
    remote: Remote = False,
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """List every tenant that has a job, a key or a quota."""
    if is_remote(remote, url, profile):
        with asking(url, profile) as client:
            access_tables.show_tenants(client.tenants(), as_json=as_json, quiet=quiet)
        return
    from snakeline import access

    with _telling_failures():
        access_tables.show_tenants(access.tenants(), as_json=as_json, quiet=quiet)


@tenants.command("set")
def set_tenant(
    tenant: Annotated[str, typer.Argument(help="Its name.", show_default=False)],
    *,
    cores: Annotated[str | None, typer.Option(help="Cores of its running jobs together.")] = None,
    pending: Annotated[str | None, typer.Option(help="Pending jobs.")] = None,
    gb: Annotated[str | None, typer.Option(help="GiB of its jobs' files.")] = None,
    remote: Remote = False,
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Change what is named of a tenant's quota; `default` gives it back to the settings."""
    if is_remote(remote, url, profile):
        with asking(url, profile) as client:
            before = next((each for each in client.tenants() if each["name"] == tenant), {})
            after = client.set_quota(
                tenant,
                max_cores=_limit("--cores", cores, before.get("max_cores"), int),
                max_pending=_limit("--pending", pending, before.get("max_pending"), int),
                max_gb=_limit("--gb", gb, before.get("max_gb"), float),
            )
    else:
        from snakeline import access

        with _telling_failures():
            after = access.set_quota(tenant, cores, pending, gb)
    if as_json or not quiet:
        access_tables.show_tenants([after], as_json=as_json)


def _seconds(text: str) -> float:
    try:
        return words.seconds(text)
    except ValueError as error:
        said = f"{text!r} is no length of time: write 90d, 12h, 30m, 45s or 2w"
        raise NotUnderstood(said) from error


def _limit(option: str, text: str | None, before: Any, parse: Callable[[str], Any]) -> Any:
    if text is None or text == BY_SETTINGS:
        return before if text is None else None
    try:
        return parse(text)
    except ValueError as error:
        raise NotUnderstood(f"{option}: {text!r} is neither a number above 0 nor {BY_SETTINGS}") from error

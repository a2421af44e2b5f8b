"""`snakeline keys` and `snakeline tenants`: on the machine of the service, or by asking it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snakeline.commands import access_tables, words
from snakeline.commands.access_tables import BY_SETTINGS
from snakeline.commands.parameters import NotUnderstood
from snakeline.commands.session import (
    AsJson,
    Profile,
    Quiet,
    Remote,
    Url,
    print_json,
)
from snakeline.here_or_there import answer_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from snakeline.client import Client

keys = typer.Typer(help="Make, list, replace and revoke API keys.", no_args_is_help=True)
tenants = typer.Typer(help="List tenants and set their quotas.", no_args_is_help=True)

_Prefix = Annotated[
    str, typer.Argument(metavar="PREFIX", help="The key's part before the dot.", show_default=False)
]


@keys.command("create")
def create_key(
    *,
    name: Annotated[str, typer.Option(help="Who will use it.", metavar="TEXT", show_default=False)],
    scopes: Annotated[
        str, typer.Option(help="What it may do: read, submit, admin.", metavar="SCOPES")
    ] = "read,submit",
    tenant: Annotated[
        str | None, typer.Option(help="Whose jobs it sees; * for every tenant.", metavar="TENANT")
    ] = None,
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

    def there(client: Client) -> dict[str, Any]:
        until = None if expires is None else datetime.now(UTC) + timedelta(seconds=_seconds(expires))
        return client.create_key(name, scopes.replace(",", " ").split(), tenant=tenant, expires_at=until)

    def here() -> dict[str, Any]:
        from snakeline import access

        return access.create(name, scopes, tenant, expires)

    made = answer_of(there, here, remote=remote, url=url, profile=profile, quiet=quiet)
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

    def here() -> list[dict[str, Any]]:
        from snakeline import access

        return access.keys()

    found = answer_of(
        lambda client: client.keys(), here, remote=remote, url=url, profile=profile, quiet=quiet
    )
    access_tables.show_keys(found, as_json=as_json, quiet=quiet)


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

    def here() -> None:
        from snakeline import access

        access.revoke(prefix)

    answer_of(
        lambda client: client.revoke_key(prefix), here, remote=remote, url=url, profile=profile, quiet=quiet
    )
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

    def there(client: Client) -> dict[str, Any]:
        return client.rotate_key(prefix, overlap_s=0.0 if overlap is None else _seconds(overlap))

    def here() -> dict[str, Any]:
        from snakeline import access

        return access.rotate(prefix, overlap)

    made = answer_of(there, here, remote=remote, url=url, profile=profile, quiet=quiet)
    access_tables.show_created(made, as_json=as_json, quiet=quiet)


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

    def here() -> list[dict[str, Any]]:
        from snakeline import access

        return access.tenants()

    found = answer_of(
        lambda client: client.tenants(), here, remote=remote, url=url, profile=profile, quiet=quiet
    )
    access_tables.show_tenants(found, as_json=as_json, quiet=quiet)


@tenants.command("set")
def set_tenant(
    tenant: Annotated[str, typer.Argument(metavar="TENANT", help="Its name.", show_default=False)],
    *,
    cores: Annotated[
        str | None, typer.Option(help="Cores of its running jobs together.", metavar="N")
    ] = None,
    pending: Annotated[str | None, typer.Option(help="Pending jobs.", metavar="N")] = None,
    gb: Annotated[str | None, typer.Option(help="GiB of its jobs' files.", metavar="GIB")] = None,
    remote: Remote = False,
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Change what is named of a tenant's quota; `default` gives it back to the settings."""

    def there(client: Client) -> dict[str, Any]:
        before = next((each for each in client.tenants() if each["name"] == tenant), {})
        return client.set_quota(
            tenant,
            max_cores=_limit("--cores", cores, before.get("max_cores"), int),
            max_pending=_limit("--pending", pending, before.get("max_pending"), int),
            max_gb=_limit("--gb", gb, before.get("max_gb"), float),
        )

    def here() -> dict[str, Any]:
        from snakeline import access

        return access.set_quota(tenant, cores, pending, gb)

    after = answer_of(there, here, remote=remote, url=url, profile=profile, quiet=quiet)
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

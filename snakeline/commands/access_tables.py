"""Keys, tenants and workflows as tables: the same from a service and from its own store."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from snakeline.commands.session import note, print_json, print_lines, print_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BY_SETTINGS: Final = "default"
_SCOPES: Final = ("read", "submit", "admin")


def show_created(key: Mapping[str, Any], *, as_json: bool, quiet: bool = False) -> None:
    """The key's text alone on standard output, ready for a script; what it is on standard error."""
    if as_json:
        print_json(dict(key))
        return
    until = f", until {_day(key['expires_at'])}" if key["expires_at"] else ""
    said = f"{key['prefix']}: {key['name']}, tenant {key['tenant']}, {_listed(key)}{until}. Shown this once:"
    note(said, quiet=quiet)
    print_lines([key["key"]])


def show_keys(keys: Sequence[Mapping[str, Any]], *, as_json: bool, quiet: bool = False) -> None:
    if as_json:
        print_json({"items": [*keys], "total": len(keys)})
        return
    if quiet:
        print_lines([key["prefix"] for key in keys])
        return
    rows = [
        (
            *(key["prefix"], key["name"], key["tenant"], _listed(key), key["status"]),
            *(_day(key["created_at"]), _day(key["expires_at"])),
        )
        for key in keys
    ]
    print_table(("Prefix", "Name", "Tenant", "Scopes", "Status", "Created", "Expires"), rows)


def show_tenants(tenants: Sequence[Mapping[str, Any]], *, as_json: bool, quiet: bool = False) -> None:
    if as_json:
        print_json({"items": [*tenants], "total": len(tenants)})
        return
    if quiet:
        print_lines([tenant["name"] for tenant in tenants])
        return
    names = ("name", "max_cores", "max_pending", "max_gb")
    rows = [tuple(BY_SETTINGS if each[n] is None else str(each[n]) for n in names) for each in tenants]
    print_table(("Tenant", "Cores", "Pending", "GB"), rows)


def show_workflows(items: Sequence[Mapping[str, Any]], *, as_json: bool, quiet: bool = False) -> None:
    """`usable` and `fetched` are told on the machine of the service alone; it offers what is usable."""
    if as_json:
        print_json({"items": [*items], "total": len(items)})
        return
    if quiet:
        print_lines([each["name"] for each in items])
        return
    rows = []
    for each in items:
        source = "folder" if each["commit"] is None else f"git {each['commit'][:12]}"
        usable = each.get("usable", True)
        state = "usable" if usable else "not fetched" if each["fetched"] is False else "unusable"
        rows.append((each["name"], source, state, (each["description"] or "").split(". ")[0]))
    print_table(("Name", "Source", "State", "Description"), rows)


def _listed(key: Mapping[str, Any]) -> str:
    return ",".join(scope for scope in _SCOPES if scope in key["scopes"])


def _day(at: str | None) -> str:
    return "never" if at is None else datetime.fromisoformat(at).strftime("%Y-%m-%d %H:%M")

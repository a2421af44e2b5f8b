"""`snakeline keys` and `snakeline tenants`: on the machine of the service, while it runs or not."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import to_json

from api import settings as api_settings
from api.access_documents import key_document, quota_document
from runner import bootstrap
from runner.access import OPERATOR, Quota, Scope
from runner.callers_access import CallersAccess
from runner.errors import InvalidAccess, RunnerError
from snakeline.failures import Failed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runner.access import ApiKey

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_LONGEST_S: Final = 100 * 366 * 86_400
_BY_SETTINGS: Final = "default"
_GIB: Final = 2**30


@contextmanager
def opened() -> Iterator[CallersAccess]:
    """The store of the settings in the environment, for the operator. Raises Failed, SettingsError."""
    try:
        store = bootstrap.open_access(api_settings.from_environment().runner())
        try:
            yield CallersAccess(store, OPERATOR)
        finally:
            store.close()
    except InvalidAccess as error:
        told = (f"--{each.pointer.lstrip('/').replace('_at', '')}: {each.detail}" for each in error.errors)
        raise Failed("; ".join(told)) from error
    except (RunnerError, OSError) as error:
        raise Failed(str(error)) from error


def seconds(text: str) -> float:
    """`90d`, `12h`, `30m`, `45s` or `2w` in seconds. Raises Failed."""
    found = re.fullmatch(r"([0-9]{1,9})([smhdw])", text.strip())
    if found is None or not 0 < int(found[1]) * _UNITS[found[2]] <= _LONGEST_S:
        raise Failed(f"{text!r} is no length of time: write 90d, 12h, 30m, 45s or 2w")
    return int(found[1]) * _UNITS[found[2]]


def scopes(text: str) -> frozenset[Scope]:
    """`read,submit` as scopes. Raises Failed."""
    named = {each for each in text.replace(",", " ").split() if each}
    unknown = sorted(named - {scope.value for scope in Scope})
    if unknown or not named:
        what = f"{', '.join(unknown)} is no scope" if unknown else "name a scope"
        raise Failed(f"--scopes: {what}: read, submit, admin, with commas between")
    return frozenset(map(Scope, named))


def create(name: str, scope_names: str, tenant: str | None, expires: str | None) -> dict[str, Any]:
    """A new key, its text as `key`. Raises Failed, SettingsError."""
    wanted = scopes(scope_names)
    expires_at = None if expires is None else datetime.now(UTC) + timedelta(seconds=seconds(expires))
    with opened() as access:
        made, text = access.create_key(name=name, scopes=wanted, tenant=tenant, expires_at=expires_at)
    return _created(made, text)


def rotate(prefix: str, overlap: str | None) -> dict[str, Any]:
    """The key in the place of the old one, its text as `key`. Raises Failed, SettingsError."""
    overlap_s = 0.0 if overlap is None else seconds(overlap)
    with opened() as access:
        made, text = access.rotate_key(prefix, overlap_s=overlap_s)
    return _created(made, text)


def revoke(prefix: str) -> None:
    """Raises Failed, SettingsError."""
    with opened() as access:
        access.revoke_key(prefix)


def keys() -> list[dict[str, Any]]:
    """All of them, without their secrets. Raises Failed, SettingsError."""
    now = datetime.now(UTC)
    with opened() as access:
        return [_plain(key_document(key, now)) for key in access.keys()]  # noqa: SIM118 - no dict


def tenants() -> list[dict[str, Any]]:
    """All of them with their quotas. Raises Failed, SettingsError."""
    with opened() as access:
        return [_plain(quota_document(name, quota)) for name, quota in access.quotas()]


def _created(key: ApiKey, text: str) -> dict[str, Any]:
    return _plain({**key_document(key, datetime.now(UTC)), "key": text})


def set_quota(tenant: str, cores: str | None, pending: str | None, gb: str | None) -> dict[str, Any]:
    """Change what is named of a tenant's quota; `default` gives it back to the settings. Raises Failed."""
    with opened() as access:
        before = dict(access.quotas()).get(tenant, Quota())
        after = Quota(
            _limit("--cores", cores, before.max_cores, int),
            _limit("--pending", pending, before.max_pending, int),
            _limit("--gb", gb, before.max_bytes, lambda text: round(float(text) * _GIB)),
        )
        access.set_quota(tenant, after)
    return _plain(quota_document(tenant, after))


def _limit(option: str, text: str | None, before: int | None, parse: Callable[[str], int]) -> int | None:
    if text is None:
        return before
    if text == _BY_SETTINGS:
        return None
    try:
        value = parse(text)
    except (ValueError, OverflowError):
        value = 0
    if not 0 < value < 2**62:
        raise Failed(f"{option}: {text!r} is neither a number above 0 nor {_BY_SETTINGS}")
    return value


def _plain(document: dict[str, Any]) -> dict[str, Any]:
    """As it comes over the wire."""
    found: dict[str, Any] = json.loads(to_json(document))
    return found

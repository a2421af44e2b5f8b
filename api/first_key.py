"""The key that a service makes for itself when it needs keys and has none that is good."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from runner.access import ALL_SCOPES, ALL_TENANTS, OPERATOR
from runner.callers_access import CallersAccess

if TYPE_CHECKING:
    from runner.access_store import AccessStore

FIRST_KEY_NAME = "first-admin"


def make_first_key(store: AccessStore) -> str | None:
    """A new key for everything, as text to be shown once; None where there is a good key already.

    Raises StoreUnavailable, StorageFull.
    """
    access = CallersAccess(store, OPERATOR)
    now = datetime.now(UTC)
    if any(key.is_usable(now) for key in access.keys()):  # noqa: SIM118 - no dict
        return None
    _, text = access.create_key(name=FIRST_KEY_NAME, scopes=ALL_SCOPES, tenant=ALL_TENANTS)
    return text

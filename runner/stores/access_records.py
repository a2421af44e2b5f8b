"""What changes of keys and quotas leave in the record, and the rules for them, the same in every store."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from runner.access import ALL_TENANTS, Action, audit_of
from runner.errors import FieldError, InvalidAccess

if TYPE_CHECKING:
    from datetime import datetime

    from runner.access import ApiKey, AuditRecord, Caller, Quota

# Records looked at for one page: an actor that nobody knows must not make the store read all there are.
EXAMINED_AT_MOST: Final = 5_000


# Every change makes the service read all keys again: one tenant must not make that long for the others.
KEYS_AT_MOST: Final = 1_000


def no_room_for_keys() -> InvalidAccess:
    detail = f"has {KEYS_AT_MOST} keys, the most there may be, and all of them are good: revoke some first"
    return InvalidAccess((FieldError("/tenant", detail),))


def key_added(key: ApiKey, by: Caller) -> AuditRecord:
    return audit_of(by, Action.KEY_CREATED, key.prefix, tenant=key.tenant, at=key.created_at, **_told(key))


def key_revoked(key: ApiKey, at: datetime, by: Caller) -> AuditRecord:
    return audit_of(by, Action.KEY_REVOKED, key.prefix, tenant=key.tenant, at=at, name=key.name)


def key_rotated(
    old: ApiKey, new: ApiKey, at: datetime, by: Caller, old_expires_at: datetime | None
) -> AuditRecord:
    ends = rotated(old, at, old_expires_at)
    end = ends.revoked_at or ends.expires_at
    told = {**_told(new), "new": new.prefix, "old_ends_at": end.isoformat() if end else None}
    return audit_of(by, Action.KEY_ROTATED, old.prefix, tenant=old.tenant, at=at, **told)


def quota_set(tenant: str, quota: Quota, at: datetime, by: Caller) -> AuditRecord:
    """Raises Forbidden for anybody but an operator."""
    by.require_admin_of(ALL_TENANTS)
    return audit_of(
        by,
        Action.QUOTA_SET,
        tenant,
        tenant=tenant,
        at=at,
        max_cores=quota.max_cores,
        max_pending=quota.max_pending,
        max_bytes=quota.max_bytes,
    )


def rotated(old: ApiKey, at: datetime, expires_at: datetime | None) -> ApiKey:
    """The old key after it was replaced: revoked now, or good until then and never longer than before."""
    if expires_at is None or expires_at <= at:
        return replace(old, revoked_at=at)
    return replace(old, expires_at=min(expires_at, old.expires_at or expires_at))


def require_same_tenant(old: ApiKey, new: ApiKey) -> None:
    """Raises ValueError."""
    if new.tenant != old.tenant:
        raise ValueError("a key is rotated within its tenant")


def _told(key: ApiKey) -> dict[str, object]:
    return {
        "name": key.name,
        "scopes": sorted(scope.value for scope in key.scopes),
        "expires_at": key.expires_at.isoformat() if key.expires_at else None,
    }

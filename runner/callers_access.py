"""Keys, quotas and the record of changes for one caller: an admin's own tenant, an operator's all of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from runner.access import (
    ALL_TENANTS,
    OPERATOR_NAME,
    RETENTION_NAME,
    ApiKey,
    AuditPage,
    AuditQuery,
    Quota,
    Scope,
    is_name,
)
from runner.errors import FieldError, Forbidden, InvalidAccess, KeyNotActive, KeyNotFound
from runner.key_texts import is_key_prefix, new_key_text

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from runner.access import Caller
    from runner.access_store import AccessStore


class CallersAccess:
    """Every method may wait for the disk, and raises Forbidden without the scope admin.

    What belongs to another tenant is as if it were not there.
    """

    def __init__(self, store: AccessStore, caller: Caller) -> None:
        self._store = store
        self._caller = caller

    # ------------------------------------------------------------ keys

    def keys(self) -> Sequence[ApiKey]:
        """The keys the caller administers, the earliest first; revoked and expired ones as well."""
        self._caller.require(Scope.ADMIN)
        return self._store.keys(tenant=self._caller.visible_tenant)

    def create_key(
        self,
        *,
        name: str,
        scopes: Collection[Scope],
        tenant: str | None = None,
        expires_at: datetime | None = None,
    ) -> tuple[ApiKey, str]:
        """A new key, and its text: this is the only time it can be seen. The tenant is the caller's own.

        Raises InvalidAccess; Forbidden for another tenant, or for all, unless the caller is an operator,
        and for scopes that the caller has not got.
        """
        tenant = self._caller.tenant if tenant is None else tenant
        now = datetime.now(UTC)
        _check_key(name, scopes, tenant, expires_at, now)
        self._caller.require_admin_of(tenant)
        self._require_all(scopes)
        made = new_key_text()
        key = ApiKey(
            prefix=made.prefix,
            name=name,
            tenant=tenant,
            scopes=frozenset(scopes),
            secret_sha256=made.secret_sha256,
            created_at=now,
            created_by=self._caller.name,
            expires_at=expires_at,
        )
        self._store.add_key(key, self._caller).result()
        return key, made.text

    def revoke_key(self, prefix: str) -> None:
        """End a key at once; one that is revoked already stays so. Raises KeyNotFound."""
        self._key(prefix)
        self._store.revoke_key(prefix, datetime.now(UTC), self._caller).result()

    def rotate_key(self, prefix: str, *, overlap_s: float = 0) -> tuple[ApiKey, str]:
        """A new key in a key's place, for the same name, tenant, scopes and length of time; and its text.

        The old one ends now, or after `overlap_s`. Raises KeyNotFound, KeyNotActive; Forbidden for a key
        that may do more than the caller.
        """
        old = self._key(prefix)
        self._require_all(old.scopes)
        now = datetime.now(UTC)
        made = new_key_text()
        new = replace(
            old,
            prefix=made.prefix,
            secret_sha256=made.secret_sha256,
            created_at=now,
            created_by=self._caller.name,
            expires_at=None if old.expires_at is None else now + (old.expires_at - old.created_at),
            revoked_at=None,
        )
        old_expires_at = now + timedelta(seconds=overlap_s) if overlap_s > 0 else None
        if not old.is_usable(now) or not (
            self._store.rotate_key(prefix, new, now, self._caller, old_expires_at=old_expires_at).result()
        ):
            raise KeyNotActive(prefix)
        return new, made.text

    def _require_all(self, scopes: Collection[Scope]) -> None:
        """Raises Forbidden: nobody comes by a key that may do more than they may."""
        if beyond := sorted(scope.value for scope in set(scopes) - self._caller.scopes):
            raise Forbidden(f"You do not have the scope {' and '.join(beyond)}, so you cannot give it.")

    def _key(self, prefix: str) -> ApiKey:
        self._caller.require(Scope.ADMIN)
        key = self._store.key(prefix) if is_key_prefix(prefix) else None
        if key is None or not (self._caller.all_tenants or key.tenant == self._caller.tenant):
            raise KeyNotFound(prefix)
        return key

    # ------------------------------------------------------------ the record, and quotas

    def audit(self, query: AuditQuery) -> AuditPage:
        """A page of what was done; of another tenant than the caller's there is nothing."""
        self._caller.require(Scope.ADMIN)
        own = self._caller.visible_tenant
        if own is not None:
            if query.tenant not in (None, own):
                return AuditPage((), None)
            query = replace(query, tenant=own)
        return self._store.audit(query)

    def quotas(self) -> list[tuple[str, Quota]]:
        """Every tenant with what was set for it, in order; an admin's own alone."""
        self._caller.require(Scope.ADMIN)
        own = self._caller.visible_tenant
        if own is not None:
            return [(own, self._store.quota(own) or Quota())]
        known = self._store.quotas()
        tenants = {*self._store.tenants(), *known} - {ALL_TENANTS}
        return [(tenant, known.get(tenant, Quota())) for tenant in sorted(tenants)]

    def set_quota(self, tenant: str, quota: Quota) -> None:
        """Replace a tenant's quota. Raises InvalidAccess; Forbidden unless the caller is an operator."""
        self._caller.require(Scope.ADMIN)
        if not self._caller.all_tenants:
            raise Forbidden("Only an operator sets quotas: use a key made for the tenant *.")
        if not is_name(tenant):
            raise InvalidAccess((FieldError("/name", _NAME_RULE),))
        self._store.set_quota(tenant, quota, datetime.now(UTC), self._caller).result()


_SERVICES_OWN = {OPERATOR_NAME: "who calls without a key", RETENTION_NAME: "who deletes old jobs"}
_LONGEST = timedelta(days=36_525)
_NAME_RULE = "must be 1 to 63 of a-z, 0-9, '.', '_', '-', beginning with a letter or a digit"


def _check_key(
    name: str, scopes: Collection[Scope], tenant: str, expires_at: datetime | None, now: datetime
) -> None:
    errors = []
    if not is_name(name):
        errors.append(FieldError("/name", _NAME_RULE))
    elif name in _SERVICES_OWN:
        errors.append(FieldError("/name", f"must not be {name}: that is {_SERVICES_OWN[name]}"))
    if not scopes:
        errors.append(FieldError("/scopes", "must have one at least"))
    if tenant != ALL_TENANTS and not is_name(tenant):
        errors.append(FieldError("/tenant", f"{_NAME_RULE}; or {ALL_TENANTS} for every tenant"))
    if expires_at is not None and not now < expires_at <= now + _LONGEST:
        errors.append(FieldError("/expires_at", "must be in the future, within 100 years"))
    if errors:
        raise InvalidAccess(tuple(errors))

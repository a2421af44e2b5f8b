"""The interface to keys, quotas and the record of changes; the same stores implement it as the jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from concurrent.futures import Future
    from datetime import datetime

    from runner.access import ApiKey, AuditPage, AuditQuery, Caller, Quota


class AccessStore(Protocol):
    """Thread-safe and durable as a `JobStore` is; every write leaves its audit record in the same commit.

    Another process may write too: nothing is remembered here between two calls. Every method may raise
    StoreUnavailable; writes may raise StorageFull, and Forbidden where `by` does not administer the
    tenant: the audit record names `by`.
    """

    def keys_version(self) -> int:
        """A number that every change of keys and quotas changes, whichever process made it. Cheap."""

    def cursor_secret(self) -> bytes:
        """Random bytes that stay with this store and are known to nobody else."""

    def keys(self, *, tenant: str | None = None) -> Sequence[ApiKey]:
        """All keys, or those made for this tenant, the earliest first; revoked and expired ones as well."""

    def key(self, prefix: str) -> ApiKey | None: ...

    def add_key(self, key: ApiKey, by: Caller) -> Future[None]:
        """Raises ValueError, in the future, when there is a key with this prefix.

        A tenant has 1,000 keys at most: beyond that the earliest that has ended is forgotten, and
        InvalidAccess raised where all of them are good.
        """

    def revoke_key(self, prefix: str, at: datetime, by: Caller) -> Future[bool]:
        """False, and nothing changed, when there is no such key that `by` sees, or it is revoked."""

    def rotate_key(
        self,
        old_prefix: str,
        new: ApiKey,
        at: datetime,
        by: Caller,
        *,
        old_expires_at: datetime | None = None,
    ) -> Future[bool]:
        """Add `new` and end the old key: now, or at `old_expires_at` if that is before its own end.

        False, and nothing changed, when the old one is none that `by` sees, or not usable any more.
        `new` must be of the same tenant, else ValueError. For the number of keys see `add_key`.
        """

    def tenants(self) -> Sequence[str]:
        """Every tenant that has a job, a key or a quota, in order."""

    def quota(self, tenant: str) -> Quota | None:
        """What was set for this tenant; None when nothing was."""

    def quotas(self) -> Mapping[str, Quota]: ...

    def set_quota(self, tenant: str, quota: Quota, at: datetime, by: Caller) -> Future[None]:
        """Replace the tenant's quota; an empty one takes it away. Only for an operator: else Forbidden."""

    def audit(self, query: AuditQuery) -> AuditPage: ...

    def forget_audit(self, before: datetime, *, limit: int = 500) -> Future[int]:
        """Remove the oldest records, at most `limit`, that are older than `before`; how many they were."""

    def close(self) -> None:
        """Finish the writes already asked for, then release everything. Safe to repeat."""

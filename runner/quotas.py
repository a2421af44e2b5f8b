"""What a tenant may have: the store's quota for it, or else what the settings say for every tenant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.access import Quota
from runner.errors import FieldError, InvalidSpec, StorageQuotaExceeded, TenantQueueFull

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runner.access_store import AccessStore
    from runner.jobs import Job


def effective(own: Quota | None, default: Quota) -> Quota:
    """Each limit as the tenant's own quota says, or else the default."""
    if own is None:
        return default
    return Quota(
        max_cores=default.max_cores if own.max_cores is None else own.max_cores,
        max_pending=default.max_pending if own.max_pending is None else own.max_pending,
        max_bytes=default.max_bytes if own.max_bytes is None else own.max_bytes,
    )


def require_room(job: Job, quota: Quota, *, pending: Callable[[], int], used_bytes: int | None) -> None:
    """Whether the tenant may have this job as well.

    `pending` tells how many of its jobs wait, `used_bytes` what the files of all of them took when last
    measured. Raises InvalidSpec, TenantQueueFull, StorageQuotaExceeded.
    """
    if quota.max_cores is not None and job.spec.cores > quota.max_cores:
        detail = f"at most {quota.max_cores}, the quota of tenant {job.tenant!r}: it could never start"
        raise InvalidSpec((FieldError("/cores", detail),))
    if quota.max_pending is not None and pending() >= quota.max_pending:
        raise TenantQueueFull(job.tenant, quota.max_pending)
    if quota.max_bytes is not None and used_bytes is not None and used_bytes >= quota.max_bytes:
        raise StorageQuotaExceeded(job.tenant, used_bytes, quota.max_bytes)


class CoreQuotas:
    """How many cores each tenant may have at a time. Belongs to one thread."""

    def __init__(self, store: AccessStore, default: Quota, max_cores: int) -> None:
        self._store = store
        self._default = max_cores if default.max_cores is None else min(default.max_cores, max_cores)
        self._max_cores = max_cores
        self._version: int | None = None
        self._own: Mapping[str, Quota] = {}

    def refresh(self) -> None:
        """Take up what was changed since, by whichever process. Raises StoreUnavailable."""
        version = self._store.keys_version()
        if version != self._version:
            self._own = self._store.quotas()
            self._version = version

    def of(self, tenant: str) -> int:
        """As of the last `refresh`; never more than all there are."""
        own = self._own.get(tenant)
        return self._default if own is None or own.max_cores is None else min(own.max_cores, self._max_cores)

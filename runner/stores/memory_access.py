"""Keys, quotas and the record of changes as dicts under a lock: the one half of `MemoryStore`."""

from __future__ import annotations

import secrets
import threading
from bisect import bisect_left
from concurrent.futures import Future
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from runner.access import AuditPage, AuditRecord, Quota
from runner.errors import StoreUnavailable
from runner.stores.access_records import (
    EXAMINED_AT_MOST,
    KEYS_AT_MOST,
    key_added,
    key_revoked,
    key_rotated,
    no_room_for_keys,
    quota_set,
    require_same_tenant,
    rotated,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from runner.access import ApiKey, AuditQuery, Caller

T = TypeVar("T")


class MemoryAccess:
    """An `AccessStore` with the contract of the durable one. Its futures are resolved when returned."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._closed = False
        self._version = 0
        self._cursor_secret = secrets.token_bytes(16)
        self._api_keys: dict[str, ApiKey] = {}
        self._quotas: dict[str, Quota] = {}
        self._audit: list[AuditRecord] = []  # by seq
        self._last_audit = 0

    # ------------------------------------------------------------ writes

    def add_key(self, key: ApiKey, by: Caller) -> Future[None]:
        def add() -> None:
            by.require_admin_of(key.tenant)
            self._add_key(key)
            self._record(key_added(key, by))

        return self._resolved(add)

    def _add_key(self, key: ApiKey) -> None:
        if key.prefix in self._api_keys:
            raise ValueError(f"there is a key {key.prefix!r}")
        of_tenant = [each for each in self._api_keys.values() if each.tenant == key.tenant]
        if len(of_tenant) >= KEYS_AT_MOST:
            ended = [each for each in of_tenant if not each.is_usable(key.created_at)]
            if not ended:
                raise no_room_for_keys()
            del self._api_keys[min(ended, key=lambda each: (each.created_at, each.prefix)).prefix]
        self._api_keys[key.prefix] = key
        self._version += 1

    def revoke_key(self, prefix: str, at: datetime, by: Caller) -> Future[bool]:
        def revoke() -> bool:
            key = self._visible(prefix, by)
            if key is None or key.revoked_at is not None:
                return False
            by.require_admin_of(key.tenant)
            self._api_keys[prefix] = replace(key, revoked_at=at)
            self._version += 1
            self._record(key_revoked(key, at, by))
            return True

        return self._resolved(revoke)

    def rotate_key(
        self,
        old_prefix: str,
        new: ApiKey,
        at: datetime,
        by: Caller,
        *,
        old_expires_at: datetime | None = None,
    ) -> Future[bool]:
        def rotate() -> bool:
            old = self._visible(old_prefix, by)
            if old is None or not old.is_usable(at):
                return False
            by.require_admin_of(old.tenant)
            require_same_tenant(old, new)
            self._add_key(new)
            self._api_keys[old_prefix] = rotated(old, at, old_expires_at)
            self._record(key_rotated(old, new, at, by, old_expires_at))
            return True

        return self._resolved(rotate)

    def _visible(self, prefix: str, by: Caller) -> ApiKey | None:
        key = self._api_keys.get(prefix)
        return key if key is not None and by.visible_tenant in (None, key.tenant) else None

    def set_quota(self, tenant: str, quota: Quota, at: datetime, by: Caller) -> Future[None]:
        def set_() -> None:
            record = quota_set(tenant, quota, at, by)
            if quota == Quota():
                self._quotas.pop(tenant, None)
            else:
                self._quotas[tenant] = quota
            self._version += 1
            self._record(record)

        return self._resolved(set_)

    def forget_audit(self, before: datetime, *, limit: int = 500) -> Future[int]:
        def forget() -> int:
            oldest, rest = self._audit[:limit], self._audit[limit:]
            kept = [record for record in oldest if record.at >= before]
            self._audit = kept + rest
            return len(oldest) - len(kept)

        return self._resolved(forget)

    def _record(self, record: AuditRecord | None) -> None:
        if record is not None:
            self._last_audit += 1
            self._audit.append(replace(record, seq=self._last_audit))

    def _resolved(self, change: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()
        with self._lock:
            try:
                self._require_open()
                answer = change()
            except Exception as error:  # noqa: BLE001 - every failure belongs in the future
                future.set_exception(error)
                return future
        future.set_result(answer)
        return future

    # ------------------------------------------------------------ reads

    def keys_version(self) -> int:
        with self._lock:
            self._require_open()
            return self._version

    def cursor_secret(self) -> bytes:
        return self._cursor_secret

    def keys(self, *, tenant: str | None = None) -> Sequence[ApiKey]:
        with self._lock:
            self._require_open()
            keys = [key for key in self._api_keys.values() if tenant in (None, key.tenant)]
        return sorted(keys, key=lambda key: (key.created_at, key.prefix))

    def key(self, prefix: str) -> ApiKey | None:
        with self._lock:
            self._require_open()
            return self._api_keys.get(prefix)

    def tenants(self) -> Sequence[str]:
        with self._lock:
            self._require_open()
            named = {key.tenant for key in self._api_keys.values()} - {"*"}
            return sorted(named | self._quotas.keys() | self._tenants_with_jobs())

    def _tenants_with_jobs(self) -> set[str]:
        return set()

    def quota(self, tenant: str) -> Quota | None:
        with self._lock:
            self._require_open()
            return self._quotas.get(tenant)

    def quotas(self) -> Mapping[str, Quota]:
        with self._lock:
            self._require_open()
            return dict(self._quotas)

    def audit(self, query: AuditQuery) -> AuditPage:
        with self._lock:
            self._require_open()
            end = (
                len(self._audit)
                if query.before_seq is None
                else bisect_left(self._audit, query.before_seq, key=lambda record: record.seq)
            )
            wanted = (self._audit[i] for i in range(end - 1, -1, -1) if self._audit[i].seq > query.after_seq)
            seen = (
                r for r in wanted if query.tenant in (None, r.tenant) and query.subject in (None, r.subject)
            )
            items: list[AuditRecord] = []
            last = 0
            for number, record in enumerate(islice(seen, EXAMINED_AT_MOST + 1)):
                if len(items) == query.limit or number == EXAMINED_AT_MOST:
                    return AuditPage(tuple(items), last)
                last = record.seq
                if query.actor in (None, record.actor) and query.action in (None, record.action):
                    items.append(record)
            return AuditPage(tuple(items), None)

    # ------------------------------------------------------------ condition

    def close(self) -> None:
        with self._lock:
            self._closed = True

    def _require_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("The store is closed.")

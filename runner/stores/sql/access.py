"""Keys, quotas and the record of changes in a database: the one half of `SqlStore`."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from runner.access import AuditPage, Quota
from runner.errors import StoreUnavailable
from runner.measurements import StoreMeasurements
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
from runner.stores.sql import sqlite
from runner.stores.sql.access_rows import audit_record_of, key_of, key_values
from runner.stores.sql.access_statements import access_statements_in
from runner.stores.sql.rows import micros
from runner.stores.sql.schema import ACCESS_VERSION, CURSOR_KEYS
from runner.stores.sql.statements import statements_in
from runner.stores.sql.writer import Writer

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from concurrent.futures import Future
    from datetime import datetime

    from runner.access import ApiKey, AuditQuery, AuditRecord, Caller
    from runner.jobs import JobEvent
    from runner.stores.sql.batch import Batch

_HIGHEST: Final = 2**63 - 1


class SqlAccess:
    """An `AccessStore` over one database file, and what its reads and writes go through.

    Writes go through one thread that commits them in groups; reads run on the caller's thread and are
    never held up by a write.
    """

    def __init__(
        self,
        file: sqlite.SqliteFile,
        *,
        on_commit: Callable[[Sequence[JobEvent]], None] | None = None,
        measurements: StoreMeasurements | None = None,
    ) -> None:
        dialect = sqlite.dialect()
        self._file = file
        self._statements = statements_in(dialect)
        self._access = access_statements_in(dialect)
        self._closed = False
        self._is_damaged = False  # as far as readers have met with it
        self._measurements = measurements or StoreMeasurements()
        self._writer = Writer(file, self._statements, on_commit, self._measurements)

    # ------------------------------------------------------------ writes

    def add_key(self, key: ApiKey, by: Caller) -> Future[None]:
        def add(batch: Batch) -> None:
            by.require_admin_of(key.tenant)
            self._insert(batch, key)
            self._changed(batch, key_added(key, by))

        return self._writer.submit(add)

    def revoke_key(self, prefix: str, at: datetime, by: Caller) -> Future[bool]:
        def revoke(batch: Batch) -> bool:
            key = self._visible(batch, prefix, by)
            if key is None or key.revoked_at is not None:
                return False
            by.require_admin_of(key.tenant)
            expires_at = None if key.expires_at is None else micros(key.expires_at)
            values = {"prefix": prefix, "expires_at": expires_at, "revoked_at": micros(at)}
            batch.execute(self._access.end_key, values)
            self._changed(batch, key_revoked(key, at, by))
            return True

        return self._writer.submit(revoke)

    def rotate_key(
        self,
        old_prefix: str,
        new: ApiKey,
        at: datetime,
        by: Caller,
        *,
        old_expires_at: datetime | None = None,
    ) -> Future[bool]:
        def rotate(batch: Batch) -> bool:
            old = self._visible(batch, old_prefix, by)
            if old is None or not old.is_usable(at):
                return False
            by.require_admin_of(old.tenant)
            require_same_tenant(old, new)
            self._insert(batch, new)
            ended = key_values(rotated(old, at, old_expires_at))
            batch.execute(
                self._access.end_key, {name: ended[name] for name in ("prefix", "expires_at", "revoked_at")}
            )
            self._changed(batch, key_rotated(old, new, at, by, old_expires_at))
            return True

        return self._writer.submit(rotate)

    def set_quota(self, tenant: str, quota: Quota, at: datetime, by: Caller) -> Future[None]:
        def set_(batch: Batch) -> None:
            record = quota_set(tenant, quota, at, by)
            batch.execute(self._access.delete_quota, {"name": tenant})
            if quota != Quota():
                values = {
                    "name": tenant,
                    "max_cores": quota.max_cores,
                    "max_pending": quota.max_pending,
                    "max_bytes": quota.max_bytes,
                }
                batch.execute(self._access.add_quota, values)
            batch.forget_quotas()
            self._changed(batch, record)

        return self._writer.submit(set_)

    def forget_audit(self, before: datetime, *, limit: int = 500) -> Future[int]:
        values = {"before": micros(before), "n": limit}
        return self._writer.submit(lambda batch: batch.execute(self._access.forget_audit, values).rowcount)

    def _insert(self, batch: Batch, key: ApiKey) -> None:
        if batch.execute(self._access.key, {"prefix": key.prefix}).fetchone() is not None:
            raise ValueError(f"there is a key {key.prefix!r}")
        if batch.execute(self._access.count_keys, {"tenant": key.tenant}).fetchone()[0] >= KEYS_AT_MOST:
            values = {"tenant": key.tenant, "at": micros(key.created_at)}
            if batch.execute(self._access.forget_ended_key, values).rowcount == 0:
                raise no_room_for_keys()
        batch.execute(self._access.add_key, key_values(key))

    def _visible(self, batch: Batch, prefix: str, by: Caller) -> ApiKey | None:
        row = batch.execute(self._access.key, {"prefix": prefix}).fetchone()
        key = None if row is None else key_of(row)
        return key if key is not None and by.visible_tenant in (None, key.tenant) else None

    def _changed(self, batch: Batch, record: AuditRecord) -> None:
        batch.execute(self._access.next_version)
        batch.record(record)

    # ------------------------------------------------------------ reads

    def keys_version(self) -> int:
        with self._reading() as connection:
            row = connection.execute(self._statements.fact, {"name": ACCESS_VERSION}).fetchone()
        return 0 if row is None else int(row[0])

    def cursor_secret(self) -> bytes:
        with self._reading() as connection:
            rows = [
                connection.execute(self._statements.fact, {"name": name}).fetchone() for name in CURSOR_KEYS
            ]
        if None in rows:
            raise StoreUnavailable(f"The store {self._file.path} has lost a part: {sqlite.REMEDY}.")
        return b"".join(int(row[0]).to_bytes(8) for row in rows)

    def keys(self, *, tenant: str | None = None) -> Sequence[ApiKey]:
        with self._reading() as connection:
            return [key_of(row) for row in connection.execute(self._access.keys, {"tenant": tenant})]

    def key(self, prefix: str) -> ApiKey | None:
        try:
            with self._reading() as connection:
                row = connection.execute(self._access.key, {"prefix": prefix}).fetchone()
        except UnicodeEncodeError:  # a lone surrogate: no text in the store has one
            return None
        return None if row is None else key_of(row)

    def tenants(self) -> Sequence[str]:
        with self._reading() as connection:
            return [row[0] for row in connection.execute(self._access.tenants)]

    def quota(self, tenant: str) -> Quota | None:
        with self._reading() as connection:
            row = connection.execute(self._statements.quota, {"name": tenant}).fetchone()
        return None if row is None else Quota(*row)

    def quotas(self) -> Mapping[str, Quota]:
        with self._reading() as connection:
            return {row[0]: Quota(*row[1:]) for row in connection.execute(self._access.quotas)}

    def audit(self, query: AuditQuery) -> AuditPage:
        statement = self._access.audit(tenant=query.tenant is not None, subject=query.subject is not None)
        values = {
            "tenant": query.tenant,
            "subject": query.subject,
            "after_seq": query.after_seq,
            "before_seq": _HIGHEST if query.before_seq is None else query.before_seq,
            "n": EXAMINED_AT_MOST + 1,
        }
        items: list[AuditRecord] = []
        last = 0
        with self._reading() as connection:
            for number, row in enumerate(connection.execute(statement, values)):
                if len(items) == query.limit or number == EXAMINED_AT_MOST:
                    return AuditPage(tuple(items), last)
                last, _, actor, _, action, *_ = row
                if query.actor in (None, actor) and query.action in (None, action):
                    items.append(audit_record_of(row))
        return AuditPage(tuple(items), None)

    # ------------------------------------------------------------ connections

    def close(self) -> None:
        self._writer.close()
        self._closed = True
        self._file.close_readers()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        if self._closed:
            raise StoreUnavailable("The store is closed.")
        begun = time.perf_counter()
        try:
            with self._file.reading() as connection:
                yield connection
        except StoreUnavailable as error:
            self._is_damaged = self._is_damaged or sqlite.is_damage(error.__cause__)
            self._measurements.failures.add("unavailable")
            raise
        finally:
            self._measurements.reads.observe(time.perf_counter() - begun)

    @contextmanager
    def _snapshot(self) -> Iterator[sqlite3.Connection]:
        """As `_reading`, with every statement seeing the same moment."""
        with self._reading() as connection:
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.rollback()

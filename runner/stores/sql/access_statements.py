"""The statements about keys, quotas and the record of changes, compiled once."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from runner.stores.sql.schema import ACCESS_VERSION, API_KEYS, AUDIT, TENANTS
from runner.stores.sql.statements import sql_of

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import Dialect

_P: Final = sa.bindparam
_KEY_COLUMNS: Final = tuple(column.name for column in API_KEYS.c)


@cache
def access_statements_in(dialect: Dialect) -> AccessStatements:
    """Compiled once in a process, whatever it opens."""
    return AccessStatements(dialect)


class AccessStatements:
    def __init__(self, dialect: Dialect) -> None:
        def made(element: Any) -> str:
            return sql_of(element, dialect)

        self.next_version = (
            f"INSERT INTO store_facts (name, value) VALUES ('{ACCESS_VERSION}', 1) "  # noqa: S608 - our own name
            "ON CONFLICT (name) DO UPDATE SET value = store_facts.value + 1"
        )
        self.keys = made(
            sa.select(*API_KEYS.c)
            .where(sa.or_(_P("tenant").is_(sa.null()), API_KEYS.c.tenant == _P("tenant")))
            .order_by(API_KEYS.c.created_at, API_KEYS.c.prefix)
        )
        self.key = made(sa.select(*API_KEYS.c).where(API_KEYS.c.prefix == _P("prefix")))
        self.add_key = (
            f"INSERT INTO api_keys ({', '.join(_KEY_COLUMNS)}) "  # noqa: S608 - names of our own schema
            f"VALUES ({', '.join(f':{name}' for name in _KEY_COLUMNS)})"
        )
        self.count_keys = "SELECT count(*) FROM api_keys WHERE tenant = :tenant"
        self.forget_ended_key = (
            "DELETE FROM api_keys WHERE prefix = (SELECT prefix FROM api_keys WHERE tenant = :tenant "
            "AND (revoked_at IS NOT NULL OR expires_at <= :at) ORDER BY created_at, prefix LIMIT 1)"
        )
        self.end_key = (
            "UPDATE api_keys SET expires_at = :expires_at, revoked_at = :revoked_at WHERE prefix = :prefix"
        )
        self.quotas = made(sa.select(*TENANTS.c).order_by(TENANTS.c.name))
        self.delete_quota = made(sa.delete(TENANTS).where(TENANTS.c.name == _P("name")))
        self.add_quota = (
            "INSERT INTO tenants (name, max_cores, max_pending, max_bytes) "
            "VALUES (:name, :max_cores, :max_pending, :max_bytes)"
        )
        # From one tenant to the next by one step down the index, however many rows each has.
        self.tenants = (
            "WITH RECURSIVE counted (tenant) AS ("
            "SELECT (SELECT min(tenant) FROM job_counts WHERE tenant > '*') "
            "UNION SELECT (SELECT min(job_counts.tenant) FROM job_counts "
            "WHERE job_counts.tenant > counted.tenant) FROM counted WHERE counted.tenant IS NOT NULL) "
            "SELECT tenant FROM counted WHERE tenant IS NOT NULL AND EXISTS "
            "(SELECT 1 FROM job_counts WHERE job_counts.tenant = counted.tenant AND jobs > 0) "
            "UNION SELECT name FROM tenants UNION SELECT tenant FROM api_keys WHERE tenant <> '*' "
            "ORDER BY 1"
        )
        self._audit = {
            (tenant, subject): made(_records(tenant=tenant, subject=subject))
            for tenant in (False, True)
            for subject in (False, True)
        }
        self.forget_audit = (
            "DELETE FROM audit WHERE seq IN "
            "(SELECT seq FROM (SELECT seq, at FROM audit ORDER BY seq LIMIT :n) WHERE at < :before)"
        )

    def audit(self, *, tenant: bool, subject: bool) -> str:
        """The newest records first, by the index that leaves the fewest to look at."""
        return self._audit[tenant, subject]


def _records(*, tenant: bool, subject: bool) -> Any:
    index = "audit_subject" if subject else "audit_tenant" if tenant else None
    found = sa.select(*AUDIT.c).with_hint(AUDIT, f"INDEXED BY {index}" if index else "NOT INDEXED", "sqlite")
    if subject:
        found = found.where(AUDIT.c.subject == _P("subject"))
    if tenant:
        found = found.where(AUDIT.c.tenant == _P("tenant"))
    return (
        found.where(AUDIT.c.seq > _P("after_seq"), AUDIT.c.seq < _P("before_seq"))
        .order_by(AUDIT.c.seq.desc())
        .limit(_P("n"))
    )

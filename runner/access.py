"""Who may do what: callers, keys, quotas, and the record of what was done. Values, no I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from runner.errors import Forbidden
from runner.trace_context import TraceContext

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME_PATTERN: Final = r"[a-z0-9][a-z0-9._-]{0,62}"
"""What names of tenants, keys and owners look like."""

ALL_TENANTS: Final = "*"
"""The tenant a key is made for when it shall see every tenant."""

DEFAULT_TENANT: Final = "default"
OPERATOR_NAME: Final = "operator"
RETENTION_NAME: Final = "retention"
"""Who deletes old jobs, in the record of changes."""


def is_name(text: str) -> bool:
    """Whether `text` may name a tenant or a key."""
    return re.fullmatch(NAME_PATTERN, text) is not None


class Scope(StrEnum):
    """One thing a caller may do. None of them contains another."""

    READ = "read"
    SUBMIT = "submit"
    ADMIN = "admin"


ALL_SCOPES: Final = frozenset(Scope)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the tenant its new jobs belong to, and what it may do.

    With `all_tenants` it is an operator, who sees the jobs of every tenant. A caller with the scope
    admin but without `all_tenants` administers its own tenant only.
    """

    name: str
    tenant: str
    scopes: frozenset[Scope]
    all_tenants: bool = False
    address: str | None = None
    request_id: str | None = None
    asked_at: datetime | None = None  # when the request came
    trace: TraceContext | None = None  # where in a trace it was made

    @property
    def visible_tenant(self) -> str | None:
        """The one tenant this caller may see and change; None where it may all of them."""
        return None if self.all_tenants else self.tenant

    def require(self, scope: Scope) -> None:
        """Raises Forbidden without the scope."""
        if scope not in self.scopes:
            raise Forbidden(f"This needs the scope {scope.value!r}.")

    def require_admin_of(self, tenant: str) -> None:
        """Raises Forbidden unless the caller administers `tenant`; that of `ALL_TENANTS` is an operator."""
        self.require(Scope.ADMIN)
        if not self.all_tenants and self.tenant != tenant:
            raise Forbidden("This key administers its own tenant only.")


OPERATOR: Final = Caller(OPERATOR_NAME, DEFAULT_TENANT, ALL_SCOPES, all_tenants=True)
"""Whoever calls while nobody has to say who they are; and the operator's own command line."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret, of which there is a SHA-256 only. `prefix` tells keys apart."""

    prefix: str
    name: str
    tenant: str  # or ALL_TENANTS
    scopes: frozenset[Scope]
    secret_sha256: bytes = field(repr=False)
    created_at: datetime
    created_by: str
    expires_at: datetime | None = None
    revoked_at: datetime | None = None

    def is_usable(self, at: datetime) -> bool:
        return self.revoked_at is None and (self.expires_at is None or at < self.expires_at)

    def caller(self, *, address: str | None = None, request_id: str | None = None) -> Caller:
        """Who calls with this key."""
        every = self.tenant == ALL_TENANTS
        tenant = DEFAULT_TENANT if every else self.tenant
        return Caller(self.name, tenant, self.scopes, every, address, request_id)


@dataclass(frozen=True, slots=True)
class Quota:
    """The most a tenant may have at a time; None: what the settings say for every tenant."""

    max_cores: int | None = None
    max_pending: int | None = None
    max_bytes: int | None = None


class Action(StrEnum):
    """What callers do that leaves a record."""

    JOB_SUBMITTED = "job.submitted"
    JOB_CANCELLED = "job.cancelled"
    JOB_RETRIED = "job.retried"
    JOB_DELETED = "job.deleted"
    KEY_CREATED = "key.created"
    KEY_REVOKED = "key.revoked"
    KEY_ROTATED = "key.rotated"
    QUOTA_SET = "quota.set"


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One change: who did what to whom, when, and from where. `seq` is the store's own, growing.

    `tenant` is the one whose job, key or quota was changed, also when an operator changed it.
    """

    at: datetime
    actor: str
    tenant: str
    action: Action
    subject: str  # the job's id, the key's prefix or the tenant's name
    address: str | None = None
    request_id: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    seq: int = 0


def audit_of(
    caller: Caller, action: Action, subject: str, *, tenant: str, at: datetime, **data: Any
) -> AuditRecord:
    """The record of what `caller` does; one who acts for every tenant is told from the tenant's own."""
    if caller.all_tenants:
        data["actor_tenant"] = ALL_TENANTS
    return AuditRecord(at, caller.name, tenant, action, subject, caller.address, caller.request_id, data)


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """A page of the record, the newest first. Everything given must hold together.

    `before_seq` is the `next_before_seq` of the page before; only records behind `after_seq` are wanted.
    """

    tenant: str | None = None
    actor: str | None = None
    action: Action | None = None
    subject: str | None = None
    after_seq: int = 0
    before_seq: int | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True)
class AuditPage:
    """`next_before_seq` asks for the rest; None: there is none.

    A page may have fewer items than asked for, and none, and still be followed by another: so many
    records are looked at for one page, and no more.
    """

    items: tuple[AuditRecord, ...]
    next_before_seq: int | None

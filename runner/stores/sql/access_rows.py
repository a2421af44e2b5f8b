"""Keys, quotas and audit records to rows and back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from runner.access import Action, ApiKey, AuditRecord, Scope
from runner.errors import StoreUnavailable
from runner.stores.sql.rows import data_text, micros, moment
from runner.stores.sql.sqlite import REMEDY

if TYPE_CHECKING:
    from collections.abc import Sequence


def audit_values(record: AuditRecord) -> tuple[Any, ...]:
    """Every column of `audit` but `seq`, in order."""
    return (
        micros(record.at),
        record.actor,
        record.tenant,
        record.action.value,
        record.subject,
        record.address,
        record.request_id,
        data_text(record.data),
    )


def audit_record_of(row: Sequence[Any]) -> AuditRecord:
    """Raises StoreUnavailable when the row holds what nobody can have written."""
    seq, at, actor, tenant, action, subject, address, request_id, data = row
    try:
        told = json.loads(data)
        return AuditRecord(
            moment(at), actor, tenant, Action(action), subject, address, request_id, told, seq=seq
        )
    except (ValueError, TypeError, OverflowError) as error:
        raise StoreUnavailable(f"The row of audit record {seq!r} is damaged: {REMEDY}.") from error


def key_values(key: ApiKey) -> dict[str, Any]:
    return {
        "prefix": key.prefix,
        "name": key.name,
        "tenant": key.tenant,
        "scopes": " ".join(sorted(scope.value for scope in key.scopes)),
        "secret_sha256": key.secret_sha256,
        "created_at": micros(key.created_at),
        "created_by": key.created_by,
        "expires_at": None if key.expires_at is None else micros(key.expires_at),
        "revoked_at": None if key.revoked_at is None else micros(key.revoked_at),
    }


def key_of(row: Sequence[Any]) -> ApiKey:
    """Raises StoreUnavailable as `audit_record_of` does: a key that cannot be read lets nobody in."""
    prefix, name, tenant, scopes, secret_sha256, created_at, created_by, expires_at, revoked_at = row
    try:
        return ApiKey(
            prefix,
            name,
            tenant,
            frozenset(Scope(scope) for scope in scopes.split()),
            bytes(secret_sha256),
            moment(created_at),
            created_by,
            None if expires_at is None else moment(expires_at),
            None if revoked_at is None else moment(revoked_at),
        )
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise StoreUnavailable(f"The row of key {prefix!r} is damaged: {REMEDY}.") from error

"""Keys, quotas and audit records as the JSON of api/access_schemas.py."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from runner.access import Quota

if TYPE_CHECKING:
    from datetime import datetime

    from api.access_schemas import SetQuota
    from runner.access import ApiKey, AuditRecord

_GIB = 2**30


def key_document(key: ApiKey, now: datetime) -> dict[str, Any]:
    """Without anything of its secret, the digest included."""
    status = "active" if key.is_usable(now) else "expired"
    if key.revoked_at is not None:
        status = "revoked"
    return {
        "prefix": key.prefix,
        "name": key.name,
        "tenant": key.tenant,
        "scopes": sorted(scope.value for scope in key.scopes),
        "status": status,
        "created_at": key.created_at,
        "created_by": key.created_by,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
    }


def audit_document(record: AuditRecord) -> dict[str, Any]:
    """Without its number, which would tell how much other tenants do."""
    return {
        "at": record.at,
        "actor": record.actor,
        "tenant": record.tenant,
        "action": record.action.value,
        "subject": record.subject,
        "address": record.address,
        "request_id": record.request_id,
        "data": record.data,
    }


def quota_document(tenant: str, quota: Quota) -> dict[str, Any]:
    return {
        "name": tenant,
        "max_cores": quota.max_cores,
        "max_pending": quota.max_pending,
        "max_gb": None if quota.max_bytes is None else quota.max_bytes / _GIB,
    }


def quota_of(body: SetQuota) -> Quota:
    max_bytes = None if body.max_gb is None else math.ceil(body.max_gb * _GIB)
    return Quota(body.max_cores, body.max_pending, max_bytes)

"""Keys, tenants and the audit record.

Made from `aio/access.py` by `python -m tests.support.sync_client`: change that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from snakeline.client.sync.calls import Calls, named

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime


class AccessCalls(Calls):
    """Who may call: for keys with the scope `admin`."""

    def keys(self) -> list[dict[str, Any]]:
        """The API keys of your tenant, for an operator all, without their secrets."""
        items: list[dict[str, Any]] = (self._document("GET", "/keys"))["items"]
        return items

    def create_key(
        self,
        name: str,
        scopes: Sequence[str],
        *,
        tenant: str | None = None,
        expires_at: datetime | None = None,
    ) -> dict[str, Any]:
        """A new key; its text is `key`, and this is the only time that it is told."""
        until = None if expires_at is None else expires_at.isoformat()
        body = {"name": name, "scopes": [*scopes], **named(tenant=tenant, expires_at=until)}
        return self._document("POST", "/keys", body=body)

    def rotate_key(self, prefix: str, *, overlap_s: float = 0.0) -> dict[str, Any]:
        """A new key in a key's place; the old one stays good for `overlap_s`."""
        path = f"/keys/{quote(prefix, safe='')}/rotate"
        return self._document("POST", path, body={"overlap_s": overlap_s})

    def revoke_key(self, prefix: str) -> None:
        """End a key at once. Twice is no error."""
        self._connection.send("DELETE", f"/keys/{quote(prefix, safe='')}", repeatable=True)

    def tenants(self) -> list[dict[str, Any]]:
        """Tenants with their quotas: your own, for an operator all."""
        items: list[dict[str, Any]] = (self._document("GET", "/tenants"))["items"]
        return items

    def set_quota(
        self,
        tenant: str,
        *,
        max_cores: int | None = None,
        max_pending: int | None = None,
        max_gb: float | None = None,
    ) -> dict[str, Any]:
        """Set a tenant's quota as a whole: what is None goes back to the service's settings."""
        body = {"max_cores": max_cores, "max_pending": max_pending, "max_gb": max_gb}
        return self._document("PUT", f"/tenants/{quote(tenant, safe='')}", body=body)

    def audit(
        self,
        *,
        actor: str | None = None,
        action: str | None = None,
        subject: str | None = None,
        tenant: str | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Who has done what, the newest first, page by page."""
        params = named(actor=actor, action=action, subject=subject, tenant=tenant, limit=500)
        for record in self._items("/audit", params):
            yield record

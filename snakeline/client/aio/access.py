"""Keys, tenants and the audit record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from snakeline.client.aio.calls import AsyncCalls, named

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from datetime import datetime


class AsyncAccessCalls(AsyncCalls):
    """Who may call: for keys with the scope `admin`."""

    async def keys(self) -> list[dict[str, Any]]:
        """The API keys of your tenant, for an operator all, without their secrets."""
        items: list[dict[str, Any]] = (await self._document("GET", "/keys"))["items"]
        return items

    async def create_key(
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
        return await self._document("POST", "/keys", body=body)

    async def rotate_key(self, prefix: str, *, overlap_s: float = 0.0) -> dict[str, Any]:
        """A new key in a key's place; the old one stays good for `overlap_s`."""
        path = f"/keys/{quote(prefix, safe='')}/rotate"
        return await self._document("POST", path, body={"overlap_s": overlap_s})

    async def revoke_key(self, prefix: str) -> None:
        """End a key at once. Twice is no error."""
        await self._connection.send("DELETE", f"/keys/{quote(prefix, safe='')}", repeatable=True)

    async def tenants(self) -> list[dict[str, Any]]:
        """Tenants with their quotas: your own, for an operator all."""
        items: list[dict[str, Any]] = (await self._document("GET", "/tenants"))["items"]
        return items

    async def set_quota(
        self,
        tenant: str,
        *,
        max_cores: int | None = None,
        max_pending: int | None = None,
        max_gb: float | None = None,
    ) -> dict[str, Any]:
        """Set a tenant's quota as a whole: what is None goes back to the service's settings."""
        body = {"max_cores": max_cores, "max_pending": max_pending, "max_gb": max_gb}
        return await self._document("PUT", f"/tenants/{quote(tenant, safe='')}", body=body)

    async def audit(
        self,
        *,
        actor: str | None = None,
        action: str | None = None,
        subject: str | None = None,
        tenant: str | None = None,
    ) -> AsyncIterator[dict[str, Any]]:
        """Who has done what, the newest first, page by page."""
        params = named(actor=actor, action=action, subject=subject, tenant=tenant, limit=500)
        async for record in self._items("/audit", params):
            yield record

"""What all groups of calls share: the connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from snakeline.client.answers import document_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from snakeline.client.aio.connection import AsyncConnection


class AsyncCalls:
    """Calls of the API over one connection."""

    _connection: AsyncConnection

    async def _document(
        self, method: str, path: str, *, params: Mapping[str, Any] | None = None, body: Any = None
    ) -> dict[str, Any]:
        return document_of(await self._connection.send(method, path, params=params, body=body))

    async def _items(self, path: str, params: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """What is on all pages from here on."""
        given = dict(params)
        while True:
            page = await self._document("GET", path, params=given)
            for item in page["items"]:
                yield item
            if page["next_cursor"] is None:
                return
            given["cursor"] = page["next_cursor"]


def job_path(job_id: str, rest: str = "") -> str:
    return f"/jobs/{quote(job_id, safe='')}{rest}"


def named(**given: Any) -> dict[str, Any]:
    """What is not None."""
    return {name: value for name, value in given.items() if value is not None}

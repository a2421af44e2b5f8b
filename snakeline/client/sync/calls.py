"""What all groups of calls share: the connection.

Made from `aio/calls.py` by `python -m tests.support.sync_client`: change that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from snakeline.client.answers import document_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from snakeline.client.sync.connection import Connection


class Calls:
    """Calls of the API over one connection."""

    _connection: Connection

    def _document(
        self, method: str, path: str, *, params: Mapping[str, Any] | None = None, body: Any = None
    ) -> dict[str, Any]:
        return document_of(self._connection.send(method, path, params=params, body=body))

    def _items(self, path: str, params: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """What is on all pages from here on."""
        given = dict(params)
        while True:
            page = self._document("GET", path, params=given)
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

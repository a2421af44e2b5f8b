"""A service that wants keys, and the keys to call it with."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests.support.client import ContractClient
from tests.support.server import running_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.server import LiveServer

FIRST_KEY = re.compile(r"^  (snk_[a-z0-9]{10}\.[A-Za-z0-9_-]{43})$", re.MULTILINE)


class KeyedServer:
    """`admin` calls as the operator, with the key the service printed; `client` with any other."""

    def __init__(self, server: LiveServer) -> None:
        self.server = server
        found = FIRST_KEY.search(server.log)
        assert found, server.log
        self.first_key: str = found[1]
        self.admin = server.client
        self.admin.headers["Authorization"] = f"Bearer {self.first_key}"
        self._clients: list[ContractClient] = []

    def key(self, *scopes: str, tenant: str | None = None, name: str = "test", **more: Any) -> str:
        """The text of a new key, by default with every scope."""
        body = {"name": name, "scopes": scopes or ["read", "submit", "admin"], "tenant": tenant, **more}
        answer = self.admin.post("/keys", json=body)
        assert answer.status_code == 201, answer.text
        text: str = answer.json()["key"]
        return text

    def client(self, key: str | None) -> ContractClient:
        """A client that sends this key, or none."""
        client = ContractClient(self.server.url, alike=self.admin.alike)
        if key is not None:
            client.headers["Authorization"] = f"Bearer {key}"
        self._clients.append(client)
        return client

    def close(self) -> None:
        for client in self._clients:
            client.close()


@contextmanager
def keyed_server(directory: Path, **settings: str) -> Iterator[KeyedServer]:
    with running_server(directory, **{"AUTH": "keys", **settings}) as server:
        keyed = KeyedServer(server)
        try:
            yield keyed
        finally:
            keyed.close()

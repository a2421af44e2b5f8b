"""A job that has ended, and its working directory, where anything may be put."""

from __future__ import annotations

import http.client
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx2

    from tests.support.server import LiveServer

LONG_AGO_NS = 1_700_000_000_123_456_789


class EndedJob:
    """Its files as they are on the disk, and as the service tells of them."""

    def __init__(self, server: LiveServer) -> None:
        self.id: str = server.client.run()["id"]
        self.client = server.client
        self.address = server.url.removeprefix("http://")
        self.url = f"/jobs/{self.id}/outputs"
        self.work: Path = server.data_dir / "jobs" / self.id / "work"

    def put(self, name: str | bytes, content: bytes = b"content") -> Path:
        """A file that was last written long ago."""
        path = self.work / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))
        return path

    def page(self, **params: Any) -> dict[str, Any]:
        answer = self.client.get(self.url, params=params)
        assert answer.status_code == 200, answer.text
        page: dict[str, Any] = answer.json()
        return page

    def paths(self, **params: Any) -> list[str]:
        return [item["path"] for item in self.page(**params)["items"]]

    def fetch(self, path: str, **headers: str) -> httpx2.Response:
        return self.client.get(
            f"{self.url}/{path}", headers={k.replace("_", "-"): v for k, v in headers.items()}
        )

    def raw(self, path: str) -> tuple[int, bytes]:
        """What the server answers to the address exactly as it stands here."""
        connection = http.client.HTTPConnection(self.address, timeout=10)
        connection.putrequest("GET", f"{self.url}/{path}", skip_accept_encoding=True)
        connection.putheader("X-Request-ID", "same")
        connection.endheaders()
        answer = connection.getresponse()
        try:
            return answer.status, answer.read()
        finally:
            connection.close()

    @contextmanager
    def emptied(self) -> Iterator[None]:
        """Meanwhile its working directory is an empty one."""
        kept = self.work.with_name(f"work-{uuid4().hex}")
        self.work.rename(kept)
        self.work.mkdir()
        yield
        self.work.rename(kept.with_suffix(".used"))
        kept.rename(self.work)

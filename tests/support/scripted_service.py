"""Something at an address that answers as it is told to, and notes what it is asked."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

BODY = json.dumps({"type": "busy", "items": [], "status": "ready", "key": "k", "next_cursor": None}).encode()


@dataclass
class Step:
    """One answer; with `cut_at` its connection breaks behind so many bytes of the body."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = BODY
    cut_at: int | None = None


class Scripted(ThreadingHTTPServer):
    """Answers with each of `script` in its turn, then with 200; None breaks the connection."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answering)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.script: list[Step | None] = []
        self.heard: list[tuple[str, str, str | None]] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []


class _Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Scripted

    def _answer(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        self.server.heard.append((self.command, self.path, self.headers.get("Idempotency-Key")))
        self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        step = self.server.script.pop(0) if self.server.script else Step()
        if step is None:
            self.close_connection = True
            return
        self.send_response(step.status)
        for name, value in {"Content-Length": str(len(step.body)), **step.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(step.body[: step.cut_at])
        self.close_connection |= step.cut_at is not None

    do_GET = do_POST = do_DELETE = _answer  # noqa: N815 - as http.server has it

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def scripted_service() -> Iterator[Scripted]:
    with Scripted() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()

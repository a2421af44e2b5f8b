"""The Python client's key goes to the service it was given for, and nowhere else."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from snakeline.client import Client, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = f"snk_abcdefghij.{'s' * 43}"


class Listener:
    """Notes what it is sent; redirects to `target` if there is one."""

    def __init__(self) -> None:
        self.heard: list[str | None] = []
        self.target: str | None = None
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                listener.heard.append(self.headers["Authorization"])
                self.send_response(200 if listener.target is None else 307)
                if listener.target is not None:
                    self.send_header("Location", listener.target + self.path)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def service() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.close()


@pytest.fixture
def stranger() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.close()


def test_the_service_gets_it(service: Listener) -> None:
    with Client(service.url, api_key=KEY) as client:
        client.ready()
    with Client(service.url) as client:
        client.ready()
    assert service.heard == [f"Bearer {KEY}", None]


def test_a_redirect_is_not_followed(service: Listener, stranger: Listener) -> None:
    service.target = stranger.url
    with Client(service.url, api_key=KEY) as client, pytest.raises(Problem) as caught:
        client.get("019ab5f0-1c2d-7e3f-8a4b-5c6d7e8f9a0b")
    assert caught.value.status == 307
    assert KEY not in str(caught.value)
    assert stranger.heard == []


def test_address_and_key_may_come_from_the_environment(
    service: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SNAKELINE_URL", service.url)
    monkeypatch.setenv("SNAKELINE_API_KEY", KEY)
    with Client.from_environment() as client:
        client.ready()
    monkeypatch.delenv("SNAKELINE_URL")
    monkeypatch.setenv("SNAKELINE_API_KEY", "")
    with Client.from_environment() as client:
        assert client.base_url == "http://127.0.0.1:8000"
    assert service.heard == [f"Bearer {KEY}"]


@pytest.mark.parametrize("key", ["snk_a\r\nX-Evil: 1", "with space", "naïve", "tab\t"])
def test_a_key_that_cannot_be_one_is_refused_before_it_is_sent(key: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII"):
        Client("http://127.0.0.1:1", api_key=key)

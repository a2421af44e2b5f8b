"""Clients that mean harm, against the installed service: everybody else is served as ever."""

from __future__ import annotations

import socket
import statistics
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psutil
import pytest

from tests.support.server import running_server
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.server import LiveServer

MIB = 2**20
LOG_BYTES = 64 * MIB
HEAD_TIMEOUT_S = 20
HEALTHZ = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with running_server(tmp_path_factory.mktemp("abused"), MAX_CORES="4") as server:
        yield server


def connect(server: LiveServer, source: str = "127.0.0.1", *, window_bytes: int = 0) -> socket.socket:
    address = urlsplit(server.url)
    client = socket.socket()
    if window_bytes:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window_bytes)
    client.settimeout(20)
    client.bind((source, 0))
    client.connect((str(address.hostname), address.port))
    return client


def answer_of(client: socket.socket) -> bytes:
    """All that comes until the server ends the connection, in whatever way."""
    answer = b""
    with suppress(ConnectionResetError):
        while piece := client.recv(65536):
            answer += piece
    return answer


def whole_answer(client: socket.socket) -> bytes:
    """One answer whose body is JSON; the connection stays."""
    answer = b""
    while not answer.endswith(b"}"):
        answer += client.recv(65536)
    return answer


class Health:
    """How long `/healthz` takes, from two addresses, asked all the time on a thread of its own."""

    def __init__(self, server: LiveServer) -> None:
        self.seconds: list[float] = []
        self._server = server
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    @contextmanager
    def watched(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._over.set()
            self._thread.join()

    def _ask(self) -> None:
        sources = ["127.0.0.1", "127.0.0.2"]
        while not self._over.wait(0.02):
            sources.reverse()
            begun = time.perf_counter()
            with connect(self._server, sources[0]) as client:
                client.sendall(HEALTHZ.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
                assert answer_of(client).startswith(b"HTTP/1.1 200 ")
            self.seconds.append(time.perf_counter() - begun)


class Memory:
    """The most memory that the service takes meanwhile, beyond what it had before."""

    def __init__(self, server: LiveServer) -> None:
        self._process = psutil.Process(server.process.pid)
        self._before = self._process.memory_info().rss
        self._most = self._before

    def look(self) -> None:
        self._most = max(self._most, self._process.memory_info().rss)

    @property
    def more_bytes(self) -> int:
        self.look()
        return self._most - self._before


def test_slow_heads_and_slow_readers_delay_nobody(
    server: LiveServer, record_property: Callable[[str, object], None]
) -> None:
    job = server.client.run(parameters={"mock": {"output_bytes": LOG_BYTES}})
    assert len(server.client.get(f"/jobs/{job['id']}/logs").content) >= LOG_BYTES
    memory, health = Memory(server), Health(server)
    with ExitStack() as clients, health.watched():
        heads = []
        for _ in range(300):
            client = clients.enter_context(connect(server))
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ")
            heads.append(client)
        begun = time.monotonic()
        log = f"/jobs/{job['id']}/logs".encode()
        forms = [
            b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % log,
            b"GET %b HTTP/1.1\r\nHost: x\r\nRange: bytes=1-60000000\r\n\r\n" % log,
            b"GET %b?follow=true HTTP/1.1\r\nHost: x\r\n\r\n" % log,
        ]
        for number in range(45):
            reader = clients.enter_context(connect(server, "127.0.0.3", window_bytes=16384))
            reader.sendall(forms[number % 3])
        # As many as one client may have stay; the others give way, the oldest first.
        wait_until(
            lambda: sum(_is_closed(client) for client in heads) >= 300 - 256,
            timeout_s=5,
            what="slow heads to give way",
        )
        for client in heads:
            with suppress(OSError):
                client.sendall(b"x")  # slowly, but not nothing

        def all_gone() -> bool:
            memory.look()
            return all(_is_closed(client) for client in heads)

        wait_until(all_gone, timeout_s=HEAD_TIMEOUT_S + 5, what="every slow head to be cut off")
        assert time.monotonic() - begun < HEAD_TIMEOUT_S + 5
    record_property("healthz_max_ms", round(max(health.seconds) * 1000, 1))
    record_property("slow_readers_mb", round(memory.more_bytes / 1e6, 1))
    assert memory.more_bytes < 48 * MIB
    assert statistics.quantiles(health.seconds, n=100)[98] < 0.1
    refused = server.client.get("/metrics").text
    assert 'snakeline_http_refused_total{why="gave-way"}' in refused


def _is_closed(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"POST /jobs HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: %d", b"413"),
        (b"POST /jobs HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked", b"413"),
        (b"POST /jobs HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 1000", b"400"),
        (b"POST /jobs/x/cancel HTTP/1.1\r\nTransfer-Encoding: chunked", b"404"),
        (b"GET /healthz HTTP/1.1\r\nContent-Length: %d", b"200"),
    ],
    ids=["content-length", "chunked", "lying content-length", "unread", "of a get"],
)
def test_a_body_of_200_mib_is_answered_early_and_costs_no_memory(
    server: LiveServer, head: bytes, status: bytes, record_property: Callable[[str, object], None]
) -> None:
    size = 200 * MIB
    head = head.replace(b"%d", b"%d" % size) + b"\r\nHost: x\r\nConnection: close\r\n\r\n"
    piece = b" " * MIB if b"chunked" not in head else b"%x\r\n%b\r\n" % (MIB, b" " * MIB)
    with connect(server) as client:
        client.sendall(HEALTHZ)
        whole_answer(client)  # it is there, and has all it needs for a connection
        memory = Memory(server)
        with suppress(OSError):
            client.sendall(head)
            for _ in range(size // MIB):
                client.sendall(piece)
                memory.look()
        answer = answer_of(client)
    record_property("memory_mb", round(memory.more_bytes / 1e6, 1))
    assert answer.startswith(b"HTTP/1.1 %b " % status)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert memory.more_bytes < 10 * MIB
    assert server.client.get("/healthz").status_code == 200


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A service that lets a client have four connections, and three streams among them."""
    with running_server(
        tmp_path_factory.mktemp("strict"),
        DATABASE_URL="memory://",
        MAX_CONNECTIONS_PER_CLIENT="4",
        MAX_STREAMS_PER_CLIENT="3",
        MAX_CORES="1",
    ) as server:
        server.client.run(parameters={"mock": {"output_bytes": 8 * MIB}})
        server.client.submit(parameters={"mock": {"seconds": 60}})
        yield server


def test_streams_of_one_client_are_bounded_and_others_have_theirs(strict: LiveServer) -> None:
    job = strict.client.get("/jobs").json()["items"][0]
    follow = f"GET /jobs/{job['id']}/logs?follow=true HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    wait = f"GET /jobs/{job['id']}?wait=60 HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    with ExitStack() as clients:
        for _ in range(3):
            client = clients.enter_context(connect(strict, "127.0.0.2"))
            client.sendall(follow)
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        refused = clients.enter_context(connect(strict, "127.0.0.2"))
        for request in (follow, wait):
            refused.sendall(request)
            answer = whole_answer(refused)
            assert answer.startswith(b"HTTP/1.1 429 ")
            assert b"too-many-streams" in answer
            assert b"retry-after: " in answer
        other = clients.enter_context(connect(strict, "127.0.0.3"))
        other.sendall(follow)
        assert other.recv(65536).startswith(b"HTTP/1.1 200 ")
    wait_until(
        lambda: "snakeline_http_streams 0.0" in strict.client.get("/metrics").text,
        what="streams to be given back",
    )


def test_connections_of_one_client_are_bounded_and_busy_ones_stay(strict: LiveServer) -> None:
    job = strict.client.get("/jobs?status=completed").json()["items"][0]
    with ExitStack() as clients:
        busy = [clients.enter_context(connect(strict, "127.0.0.2", window_bytes=16384)) for _ in range(4)]
        for client in busy:
            client.sendall(f"GET /jobs/{job['id']}/logs HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert client.recv(100).startswith(b"HTTP/1.1 200 ")
        refused = clients.enter_context(connect(strict, "127.0.0.2"))
        refused.sendall(HEALTHZ)
        answer = answer_of(refused)
        assert answer.startswith(b"HTTP/1.1 429 ")
        assert b"too-many-connections" in answer
        assert b"x-request-id: " in answer
        assert strict.client.get("/healthz").status_code == 200
        for client in busy[1:]:
            assert client.recv(1000)
        busy[0].close()

        def is_served() -> bool:
            with connect(strict, "127.0.0.2") as client:
                client.sendall(HEALTHZ)
                return whole_answer(client).startswith(b"HTTP/1.1 200 ")

        wait_until(is_served, what="the place of the one that has gone")

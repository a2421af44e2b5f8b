"""How long a service takes to answer, measured by a process of its own beside a bare server.

The bare server says what the machine itself costs at that moment: both are asked in turn.
"""

from __future__ import annotations

import http.client
import json
import select
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

_PAUSE_S: Final = 0.01
_ANSWER: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Latencies:
    """Seconds of each answer, in order."""

    service: list[float]
    bare: list[float]

    @classmethod
    def empty(cls) -> Self:
        return cls([], [])

    def __str__(self) -> str:
        return "; ".join(
            f"{len(times)} answers of {who}: half within {1e3 * share(times, 0.5):.1f} ms, 99 % within "
            f"{1e3 * share(times, 0.99):.1f} ms, the slowest {1e3 * max(times):.1f} ms"
            for who, times in (("the service", self.service), ("a bare server", self.bare))
        )


def share(times: list[float], part: float) -> float:
    """Within how many seconds this part of the answers came."""
    return sorted(times)[min(len(times) - 1, int(len(times) * part))]


@contextmanager
def measured(url: str, path: str = "/healthz") -> Iterator[Latencies]:
    """Ask again and again until the end of the block; the result is filled in there."""
    bare = _started("bare")
    assert bare.stdout is not None
    port = bare.stdout.readline().strip()
    asking = _started("ask", url.removeprefix("http://"), path, f"127.0.0.1:{port}")
    result = Latencies.empty()
    try:
        yield result
        told, _ = asking.communicate(timeout=30)  # closes its input, which ends it
        assert asking.returncode == 0
        found = json.loads(told)
        result.service, result.bare = found["service"], found["bare"]
    finally:
        for process in (asking, bare):
            process.kill()
            process.communicate()


def _started(*argv: str) -> subprocess.Popen[str]:
    # In a session of its own each, as the service is: the scheduler shares the processor between sessions.
    return subprocess.Popen(
        [sys.executable, "-I", "-S", str(Path(__file__)), *argv],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _serve() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)  # noqa: T201
        connection, _ = listener.accept()
        with connection:
            while connection.recv(4096):
                connection.sendall(_ANSWER)


def _ask(service: str, path: str, bare: str) -> None:
    """A connection that fails is a failure: it is not tried again."""
    times: dict[str, list[float]] = {"service": [], "bare": []}
    connections = {
        "service": http.client.HTTPConnection(service, timeout=30),
        "bare": http.client.HTTPConnection(bare, timeout=30),
    }
    while not select.select([sys.stdin], [], [], _PAUSE_S)[0]:
        for name, connection in connections.items():
            began = time.perf_counter()
            connection.request("GET", path if name == "service" else "/")
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200
            times[name].append(time.perf_counter() - began)
    print(json.dumps(times))  # noqa: T201


if __name__ == "__main__":
    _serve() if sys.argv[1] == "bare" else _ask(*sys.argv[2:])

"""A small HTTP/1.1 load client: keep-alive connections over asyncio streams, no library in the way."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, TypeVar

import uvloop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from types import TracebackType

T = TypeVar("T")
_LINE_LIMIT_BYTES = 2**20


def run(main: Coroutine[Any, Any, T]) -> T:
    return uvloop.run(main)


class Connection:
    """One keep-alive connection; one request at a time."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(*self._address, limit=_LINE_LIMIT_BYTES)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    async def request(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """The status and the body of an answer that tells its length."""
        status, _, answer = await self.exchange(method, path, body, headers)
        return status, answer

    async def exchange(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[bytes, bytes], bytes]:
        """The status, the header fields and the body of an answer that tells its length."""
        status, fields = await self.head(method, path, body, headers)
        return status, fields, await self._reader.readexactly(int(fields.get(b"content-length", b"0")))

    async def head(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[bytes, bytes]]:
        """The status and the header fields; the body is still to be read from `reader`."""
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
        if body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        self._writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        head = await self._reader.readuntil(b"\r\n\r\n")
        first, *rest = head[:-4].split(b"\r\n")
        pairs = (line.split(b": ", 1) for line in rest)
        return int(first.split(b" ", 2)[1]), {name.lower(): value for name, value in pairs}

    @property
    def reader(self) -> asyncio.StreamReader:
        return self._reader


@dataclass
class Load:
    """What a run of requests took. `client_cpu` is the share of one core that the client itself used."""

    seconds: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    client_cpu: float = 0.0

    @property
    def per_second(self) -> float:
        return len(self.latencies_s) / self.seconds

    def percentile_ms(self, percent: float) -> float:
        return percentile(self.latencies_s, percent) * 1000


def percentile(values: list[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


async def requests(
    address: tuple[str, int],
    method: str,
    path: str,
    *,
    connections: int,
    total: int,
    time_limit_s: float = 60.0,
    body: Callable[[int], bytes] = lambda _: b"",
    keep_bodies: bool = False,
) -> Load:
    """Send `total` requests over so many connections, as fast as they are answered.

    Raises RuntimeError on any answer that is not 2xx, or when time is up.
    """
    load = Load()
    numbers = iter(range(total))

    async def worker() -> None:
        async with Connection(address) as connection:
            for number in numbers:
                begun = time.perf_counter()
                status, answer = await connection.request(method, path, body(number))
                load.latencies_s.append(time.perf_counter() - begun)
                if not 200 <= status < 300:
                    raise RuntimeError(f"{method} {path}: {status} {answer[:500]!r}")
                if keep_bodies:
                    load.bodies.append(answer)

    begun, cpu = time.perf_counter(), time.process_time()
    async with asyncio.timeout(time_limit_s), asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(worker())
    load.seconds = time.perf_counter() - begun
    load.client_cpu = (time.process_time() - cpu) / load.seconds
    return load


def json_body(**document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()

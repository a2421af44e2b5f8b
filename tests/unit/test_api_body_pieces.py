"""Large answers go out in pieces that the client has to take first."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from api import body_pieces
from api.body_pieces import LEAST_BYTES, MOST_BYTES, ContentChanged, send_pieces

if TYPE_CHECKING:
    from collections.abc import Callable

CONTENT = bytes(range(256)) * 40_000  # 10 MB


class Client:
    """Takes what is sent; as a server does, it makes a sender wait while `slow` says that it is full."""

    def __init__(self, slow: Callable[[int], bool] = lambda _taken: False) -> None:
        self.received = b""
        self.read_sizes: list[int] = []
        self._slow = slow

    async def read(self, offset: int, most: int) -> tuple[int, bytes]:
        assert offset == len(self.received), "read ahead of the client"
        self.read_sizes.append(most)
        return offset, CONTENT[offset : offset + most]

    async def send(self, message: Any) -> None:
        if not message["body"] and self._slow(len(self.received)):
            await asyncio.sleep(0.01)
        self.received += message["body"]

    def fetch(self, start: int, end: int) -> None:
        async def run() -> None:
            await send_pieces(self.read, start, end, self.send, asyncio.get_running_loop().create_future())

        asyncio.run(run())


def test_a_client_that_takes_all_at_once_gets_larger_and_larger_pieces() -> None:
    client = Client()
    client.fetch(0, len(CONTENT))
    assert client.received == CONTENT
    assert client.read_sizes[:6] == [LEAST_BYTES * 2**n for n in (0, 1, 2, 3, 4, 4)]
    assert max(client.read_sizes) == MOST_BYTES


def test_a_client_that_is_slow_gets_small_ones_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_pieces, "_AT_ONCE_S", 0.005)
    client = Client(slow=lambda taken: taken > 3_000_000)
    client.fetch(0, 5_000_000)
    assert client.received == CONTENT[:5_000_000]
    assert MOST_BYTES in client.read_sizes
    assert set(client.read_sizes[-10:-1]) == {LEAST_BYTES}


def test_nothing_is_waited_for_behind_the_last_piece() -> None:
    client = Client(slow=lambda _taken: True)
    client.fetch(0, 1000)
    assert client.read_sizes == [1000]


@pytest.mark.parametrize("found", [(0, b""), (7, b"abc")])
def test_bytes_that_are_gone_end_it(found: tuple[int, bytes]) -> None:
    async def read(_offset: int, _most: int) -> tuple[int, bytes]:
        return found

    async def run() -> None:
        await send_pieces(read, 0, 10, Client().send, asyncio.get_running_loop().create_future())

    with pytest.raises(ContentChanged):
        asyncio.run(run())


def test_nothing_is_read_for_a_client_that_has_gone() -> None:
    client = Client()

    async def run() -> None:
        gone = asyncio.get_running_loop().create_future()
        gone.set_result(None)
        await send_pieces(client.read, 0, 10, client.send, gone)

    asyncio.run(run())
    assert client.read_sizes == []

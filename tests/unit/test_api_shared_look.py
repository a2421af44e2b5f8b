"""Many who ask at once cost two looks, and none is answered by one that began before they asked."""

from __future__ import annotations

import asyncio
import threading

from api.shared_look import SharedLook


class Looks:
    """Counts them; each waits for the gate."""

    def __init__(self) -> None:
        self.begun = 0
        self.fails = False
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self) -> int:
        self.begun += 1
        number = self.begun
        assert self.gate.wait(10)
        if self.fails:
            raise OSError
        return number

    async def have_begun(self, number: int) -> None:
        async with asyncio.timeout(10):
            while self.begun < number:  # noqa: ASYNC110 - it is on a thread
                await asyncio.sleep(0.001)


def test_who_asks_while_one_looks_shares_the_next_look() -> None:
    looks = Looks()

    async def ask() -> None:
        shared = SharedLook(looks)
        looks.gate.clear()
        first = asyncio.create_task(shared.get())
        await looks.have_begun(1)
        late = [asyncio.create_task(shared.get()) for _ in range(1000)]
        await asyncio.sleep(0)
        late[0].cancel()  # takes it from nobody
        await asyncio.sleep(0)
        looks.gate.set()
        assert await first == 1
        assert set(await asyncio.gather(*late[1:])) == {2}
        assert await shared.get() == 3

    asyncio.run(ask())


def test_a_look_that_fails_fails_for_those_who_share_it_alone() -> None:
    looks = Looks()

    async def ask() -> None:
        shared = SharedLook(looks)
        looks.fails = True
        answers = await asyncio.gather(*(shared.get() for _ in range(3)), return_exceptions=True)
        assert [type(answer) for answer in answers] == [OSError] * 3
        looks.fails = False
        assert await shared.get() == looks.begun

    asyncio.run(ask())

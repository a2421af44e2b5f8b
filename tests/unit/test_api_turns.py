"""Long work is done in turn for each tenant, and not for those who have gone."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, cast

import pytest
from starlette.requests import Request

from api.problems import Problem
from api.turns import ShortTurns, Turns
from runner.access import ALL_SCOPES, Caller
from runner.callers_jobs import CallersJobs
from runner.errors import TooManySideRuns

if TYPE_CHECKING:
    from runner.service import JobService


def jobs_of(tenant: str) -> CallersJobs:
    return CallersJobs(cast("JobService", None), Caller("a", tenant, ALL_SCOPES))


class Client:
    """What a request sees of its client: it waits for the answer until it has gone."""

    def __init__(self, method: str = "GET") -> None:
        self.gone = asyncio.Event()
        self.request = Request({"type": "http", "method": method}, self._receive)

    async def _receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}


def test_a_tenant_that_asks_for_much_keeps_nobody_else_waiting() -> None:
    begun: list[str] = []
    gate = threading.Event()

    def walk(name: str) -> str:
        begun.append(name)
        assert name == "theirs" or gate.wait(10)
        return name

    async def ask() -> None:
        turns = Turns(2)
        ours = [
            asyncio.create_task(turns.run(Client().request, jobs_of("alpha"), walk, f"ours {n}"))
            for n in range(3)
        ]
        async with asyncio.timeout(10):
            while not begun:  # noqa: ASYNC110 - it is on a thread
                await asyncio.sleep(0.001)
            assert await turns.run(Client().request, jobs_of("omega"), walk, "theirs") == "theirs"
        assert begun == ["ours 0", "theirs"]
        gate.set()
        assert await asyncio.gather(*ours) == ["ours 0", "ours 1", "ours 2"]
        assert not turns._of_tenants

    asyncio.run(ask())


def test_nothing_is_done_for_a_client_who_has_gone_meanwhile() -> None:
    done: list[int] = []
    gate = threading.Event()

    def walk(number: int) -> None:
        assert gate.wait(10)
        done.append(number)

    async def ask() -> None:
        turns = Turns(2)
        clients = [Client() for _ in range(4)]
        jobs = jobs_of("alpha")
        asked = [asyncio.create_task(turns.run(c.request, jobs, walk, n)) for n, c in enumerate(clients)]
        await asyncio.sleep(0)
        for client in clients[:3]:
            client.gone.set()
        gate.set()
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(answer) for answer in answers[1:3]] == [Problem, Problem]
        assert done in ([0, 3], [3])
        assert not turns._of_tenants

    asyncio.run(ask())


def test_a_change_is_made_also_for_a_client_who_has_gone() -> None:
    async def ask() -> None:
        client = Client("DELETE")
        client.gone.set()
        assert await Turns(1).run(client.request, jobs_of("alpha"), int, "7") == 7

    asyncio.run(ask())


def test_a_turn_is_given_up_when_the_work_fails() -> None:
    def fail() -> None:
        raise FileNotFoundError

    async def ask() -> None:
        turns = Turns(1)
        for _ in range(3):
            with pytest.raises(FileNotFoundError):
                await turns.run(Client().request, jobs_of("alpha"), fail)
        assert not turns._of_tenants

    asyncio.run(ask())


def test_where_few_may_wait_the_next_one_is_told_to_come_again() -> None:
    gate = threading.Event()

    async def ask() -> None:
        turns = ShortTurns(2, of_tenant=1, waiting=1)
        gone = Client("POST")
        gone.gone.set()
        going = [
            asyncio.create_task(turns.run(client.request, jobs_of(tenant), gate.wait, 10))
            for client, tenant in ((Client("POST"), "alpha"), (gone, "alpha"), (Client("POST"), "omega"))
        ]
        await asyncio.sleep(0)
        with pytest.raises(TooManySideRuns):
            await turns.run(Client("POST").request, jobs_of("alpha"), gate.wait, 10)
        many = [
            asyncio.create_task(turns.run(Client("POST").request, jobs_of(f"lab {n}"), gate.wait, 10))
            for n in range(8)
        ]
        await asyncio.sleep(0)
        with pytest.raises(TooManySideRuns):  # nobody's own turns are used up, but all are
            await turns.run(Client("POST").request, jobs_of("lab 9"), gate.wait, 10)
        gate.set()
        answers = await asyncio.gather(*going, *many, return_exceptions=True)
        assert [type(answer) for answer in answers[:3]] == [bool, Problem, bool]
        assert answers[3:] == [True] * 7 + [answers[-1]]
        assert isinstance(answers[-1], TooManySideRuns)
        assert not turns._of_tenants

    asyncio.run(ask())

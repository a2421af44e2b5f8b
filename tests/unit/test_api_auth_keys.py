"""Keys are judged by what the store says now."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from api.auth_keys import KeyRing
from runner.access import OPERATOR, ApiKey, Caller, Scope
from runner.callers_access import CallersAccess
from runner.errors import Forbidden, StoreUnavailable
from runner.key_texts import new_key_text
from runner.stores.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Sequence


class Watched(MemoryStore):
    """Counts the looks at it, and holds them back or fails them if a test wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0
        self.readings = 0
        self.is_away = False
        self.gate = threading.Event()
        self.gate.set()

    def keys_version(self) -> int:
        self.looks += 1
        assert self.gate.wait(10)
        if self.is_away:
            raise StoreUnavailable("away")
        return super().keys_version()

    def keys(self, *, tenant: str | None = None) -> Sequence[ApiKey]:
        self.readings += 1
        return super().keys(tenant=tenant)


@pytest.fixture
def store() -> Watched:
    return Watched()


def make(store: MemoryStore, *, expires_at: datetime | None = None) -> str:
    return CallersAccess(store, OPERATOR).create_key(name="a", scopes=[Scope.READ], expires_at=expires_at)[1]


def test_a_key_is_found_by_its_whole_text_alone(store: Watched) -> None:
    text, other = make(store), make(store)
    prefix, _, secret = text.partition(".")

    async def ask() -> None:
        ring = KeyRing(store)
        found = await ring.find(text)
        assert found is not None
        assert found.prefix == prefix
        for wrong in (
            "",
            prefix,
            secret,
            f"{prefix}.{other.partition('.')[2]}",
            text + "A",
            new_key_text().text,
        ):
            assert await ring.find(wrong) is None

    asyncio.run(ask())


def test_what_changes_between_two_requests_counts_for_the_second(store: Watched) -> None:
    text = make(store)

    async def ask() -> None:
        ring = KeyRing(store)
        assert await ring.find(text)
        assert await ring.find(text)
        assert store.readings == 1  # nothing has changed: nothing is read again
        CallersAccess(store, OPERATOR).revoke_key(text.partition(".")[0])
        assert await ring.find(text) is None
        assert await ring.find(make(store)) is not None

    asyncio.run(ask())


def test_a_key_ends_at_its_time(store: Watched) -> None:
    end = datetime.now(UTC) + timedelta(days=1)
    text = make(store, expires_at=end)
    now = end - timedelta(microseconds=1)

    async def ask() -> None:
        nonlocal now
        ring = KeyRing(store, now=lambda: now)
        assert await ring.find(text)
        now = end
        assert await ring.find(text) is None

    asyncio.run(ask())


def test_a_thousand_at_once_share_two_looks(store: Watched) -> None:
    text = make(store)

    async def ask() -> None:
        ring = KeyRing(store)
        found = await asyncio.gather(*(ring.find(text) for _ in range(1000)))
        assert all(found)

    asyncio.run(ask())
    assert store.looks <= 2


def test_a_look_that_had_begun_before_is_not_enough(store: Watched) -> None:
    text = make(store)

    async def ask() -> None:
        ring = KeyRing(store)
        assert await ring.find(text)
        store.gate.clear()
        early = asyncio.create_task(ring.find(text))
        async with asyncio.timeout(10):
            while store.looks < 2:  # noqa: ASYNC110 - the look is on a thread
                await asyncio.sleep(0.001)
        CallersAccess(store, OPERATOR).revoke_key(text.partition(".")[0])
        late = asyncio.create_task(ring.find(text))
        await asyncio.sleep(0)
        store.gate.set()
        await early
        assert await late is None
        assert store.looks == 3

    asyncio.run(ask())


def test_while_the_store_is_away_nobody_is_let_in(store: Watched) -> None:
    text = make(store)

    async def ask() -> None:
        ring = KeyRing(store)
        assert await ring.find(text)
        store.is_away = True
        answers = await asyncio.gather(*(ring.find(text) for _ in range(5)), return_exceptions=True)
        assert {type(answer) for answer in answers} == {StoreUnavailable}
        store.is_away = False
        assert await ring.find(text)

    asyncio.run(ask())


def test_one_who_goes_away_does_not_take_the_look_from_others(store: Watched) -> None:
    text = make(store)

    async def ask() -> None:
        ring = KeyRing(store)
        store.gate.clear()
        tasks = [asyncio.create_task(ring.find(text)) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.sleep(0)
        store.gate.set()
        assert await tasks[1]
        assert await tasks[2]

    asyncio.run(ask())


def test_nobody_comes_by_a_key_that_may_do_more_than_they_may() -> None:
    store = MemoryStore()
    auditor = CallersAccess(store, Caller("a", "atlas", frozenset({Scope.ADMIN, Scope.READ})))
    strong, _ = CallersAccess(store, OPERATOR).create_key(name="b", scopes=list(Scope), tenant="atlas")
    with pytest.raises(Forbidden, match="scope submit"):
        auditor.create_key(name="a", scopes=[Scope.READ, Scope.SUBMIT])
    with pytest.raises(Forbidden, match="scope submit"):
        auditor.rotate_key(strong.prefix)
    weak, _ = auditor.create_key(name="a", scopes=[Scope.READ])
    auditor.rotate_key(weak.prefix)
    auditor.revoke_key(strong.prefix)


def test_an_admin_without_the_scope_or_of_another_tenant_changes_nothing(store: Watched) -> None:
    key = make(store)
    for caller in (
        Caller("a", "default", frozenset({Scope.READ, Scope.SUBMIT}), all_tenants=True),
        Caller("a", "atlas", frozenset()),
    ):
        access = CallersAccess(store, caller)
        for call in (
            access.keys,
            access.quotas,
            lambda access=access: access.revoke_key(key.partition(".")[0]),
            lambda access=access: access.create_key(name="a", scopes=[Scope.READ]),
        ):
            with pytest.raises(Forbidden):
                call()

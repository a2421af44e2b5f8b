"""What becomes of open requests when a key is revoked, and of all of them when the store is away."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from starlette.testclient import TestClient

from api import waiting
from api.app import create_app
from api.settings import load_settings
from runner.access import OPERATOR, Scope
from runner.bootstrap import build_runner
from runner.callers_access import CallersAccess
from runner.errors import StoreUnavailable
from runner.jobs import JobSpec
from runner.stores.memory import MemoryStore
from tests.support.asgi_server import serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from api.app import Application
    from runner.bootstrap import Runner

QUICK_S = 0.02
HOLD = {"mock": {"seconds": 600}}


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    """Nothing is started: a pending job stays pending, and its log empty."""
    settings = load_settings({"SNAKELINE_DATA_DIR": str(tmp_path), "SNAKELINE_DATABASE_URL": "memory://"})
    made = build_runner(settings.runner())
    yield made
    made.close()


@pytest.fixture
def application(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> Application:
    monkeypatch.setattr(waiting, "ALLOWED_AGAIN_S", QUICK_S)
    return create_app(runner, load_settings({"SNAKELINE_AUTH": "keys"}))


@pytest.mark.parametrize("accept", ["text/plain", "text/event-stream"])
def test_a_followed_log_ends_soon_after_the_key_is_revoked(
    runner: Runner, application: Application, accept: str
) -> None:
    job = runner.service.submit(JobSpec(parameters=HOLD)).result().job
    access = CallersAccess(runner.access, OPERATOR)
    key, text = access.create_key(name="a", scopes=[Scope.READ])

    async def follow() -> bytes:
        async with serving(application) as served:
            reader, writer = await served.connect()
            head = f"GET /jobs/{job.id}/logs?follow=true HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n"
            writer.write(f"{head}Authorization: Bearer {text}\r\n\r\n".encode())
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
            with pytest.raises(TimeoutError):  # it goes on for as long as the key is good
                async with asyncio.timeout(10 * QUICK_S):
                    await reader.readuntil(b"\r\n0\r\n\r\n")
            access.revoke_key(key.prefix)
            async with asyncio.timeout(10):
                rest = await reader.readuntil(b"0\r\n\r\n")
            writer.close()
            return rest

    assert b"event: end" not in asyncio.run(follow())


def test_a_long_poll_ends_with_a_refusal(runner: Runner, application: Application) -> None:
    job = runner.service.submit(JobSpec(parameters=HOLD)).result().job
    access = CallersAccess(runner.access, OPERATOR)
    key, text = access.create_key(name="a", scopes=[Scope.READ])

    async def poll() -> bytes:
        async with serving(application) as served:
            reader, writer = await served.connect()
            head = f"GET /jobs/{job.id}?wait=30 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {text}\r\n\r\n"
            writer.write(head.encode())
            await served.seen.wait()
            await asyncio.sleep(QUICK_S)
            access.revoke_key(key.prefix)
            runner.service.cancel(job.id)  # the change that it waits for
            async with asyncio.timeout(10):
                answer = await reader.readuntil(b"\r\n")
            writer.close()
            return answer

    assert b" 401 " in asyncio.run(poll())


def test_while_the_store_is_away_nobody_gets_in_but_readiness_still_answers(
    runner: Runner, application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, text = CallersAccess(runner.access, OPERATOR).create_key(name="a", scopes=[Scope.READ])

    def away(_store: MemoryStore) -> int:
        raise StoreUnavailable("away")

    with TestClient(application, headers={"X-API-Key": text}) as client:
        assert client.get("/jobs").status_code == 200
        assert "checks" in client.get("/readyz").json()
        monkeypatch.setattr(MemoryStore, "keys_version", away)
        answer = client.get("/jobs")
        assert (answer.status_code, answer.json()["type"]) == (503, "store-unavailable")
        ready = client.get("/readyz").json()
        assert (ready["type"], "checks" in ready) == ("not-ready", False)


def test_only_an_operator_is_told_where_the_files_are(
    runner: Runner, application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = str(application.settings.data_dir.absolute())

    def away(_store: MemoryStore) -> None:
        raise StoreUnavailable(f"The store {place}/snakeline.db is away.")

    monkeypatch.setattr(MemoryStore, "check", away)
    access = CallersAccess(runner.access, OPERATOR)
    told = {}
    with TestClient(application) as client:
        for tenant in ("*", "alpha"):
            _, text = access.create_key(name="a", scopes=[Scope.READ], tenant=tenant)
            told[tenant] = client.get("/readyz", headers={"X-API-Key": text}).text
    assert place in told["*"]
    assert place not in told["alpha"]
    assert "<DATA_DIR>/snakeline.db is away" in told["alpha"]

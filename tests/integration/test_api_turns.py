"""What one tenant asks for that takes long keeps no other waiting."""

from __future__ import annotations

import asyncio
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from api.app import create_app
from api.settings import load_settings
from runner.access import OPERATOR, Scope
from runner.bootstrap import build_runner
from runner.callers_access import CallersAccess
from runner.jobs import JobSpec
from runner.service import JobService
from tests.support.asgi_server import serving

if TYPE_CHECKING:
    from pathlib import Path


MANY = 60  # more than there are threads for what takes no time


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("delete", "DELETE /jobs/{}"),
        ("cancel", "POST /jobs/{}/cancel"),
        ("retry", "POST /jobs/{}/retry"),
        ("readiness", "GET /readyz"),
        ("list", "GET /jobs"),
    ],
)
def test_what_waits_for_the_disk_keeps_no_reader_waiting(
    name: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    method = getattr(JobService, name)

    def slow(self: JobService, *arguments: object, **named: object) -> object:
        assert gate.wait(30)
        return method(self, *arguments, **named)

    monkeypatch.setattr(JobService, name, slow)
    settings = {"SNAKELINE_DATA_DIR": str(tmp_path), "SNAKELINE_DATABASE_URL": "memory://"}
    with closing(build_runner(load_settings(settings).runner())) as runner:
        app = create_app(runner, load_settings({"SNAKELINE_AUTH": "keys"}))
        access = CallersAccess(runner.access, OPERATOR)
        keys = [
            access.create_key(name="a", scopes=list(Scope), tenant=tenant)[1] for tenant in ("alpha", "omega")
        ]
        ids = [runner.service.submit(JobSpec()).result().job.id for _ in range(MANY)]

        async def ask() -> list[bytes]:
            async with serving(app) as served:

                async def answer(line: str, key: str) -> bytes:
                    reader, writer = await served.connect()
                    writer.write(
                        f"{line} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n".encode()
                    )
                    status = await reader.readline()
                    writer.close()
                    return status

                asked = [asyncio.create_task(answer(line.format(i), keys[0])) for i in ids]
                async with asyncio.timeout(20):
                    while app.connections._waiting or len(app.connections) < MANY:  # noqa: ASYNC110
                        await asyncio.sleep(0.005)
                    others = [await answer("GET /workflows", key) for key in reversed(keys)]
                assert not any(task.done() for task in asked)
                gate.set()
                await asyncio.gather(*asked)
                return others

        try:
            assert [b" 200 " in status for status in asyncio.run(ask())] == [True, True]
        finally:
            gate.set()

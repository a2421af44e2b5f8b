"""The asynchronous client, jobs that know their client, and many submissions."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from snakeline import AsyncClient, Client, NotAllSubmitted, Problem, WaitTimeout
from snakeline.client.many import submit_many
from tests.support.cutting_proxy import CuttingProxy

if TYPE_CHECKING:
    from pathlib import Path

    from snakeline import JobRequest
    from tests.support.server import LiveServer

QUICK = {"mock": {"seconds": 0}}


def test_a_job_is_submitted_followed_and_waited_for(server: LiveServer, tmp_path: Path) -> None:
    async def use() -> str:
        async with AsyncClient(server.url) as client:
            job = await client.submit("demo", parameters=QUICK, labels={"run": "7"})
            assert (job.status, job.labels, job.cores) == ("pending", {"run": "7"}, 1)
            text = "".join([piece async for piece in job.follow()])
            ended = await job.wait(timeout_s=20)
            assert (ended.status, ended.progress) == ("completed", (await job.refresh()).progress)
            assert text.encode() == await ended.log()
            assert [task.rule async for task in ended.tasks(rules=["report"])] == ["report"]
            outputs = [output async for output in ended.outputs(prefix="results/")]
            await ended.download(outputs[0], tmp_path / "saved")
            assert (tmp_path / "saved").stat().st_size == outputs[0].size_bytes
            with pytest.raises(Problem) as refused:
                await ended.retry()
            assert refused.value.type == "invalid-transition"
            assert refused.value.request_id
            await ended.delete()
            with pytest.raises(Problem, match="404"):
                await client.get(ended.id)
            return ended.id

    assert asyncio.run(use())


def test_many_wait_at_once_in_one_thread(server: LiveServer, tmp_path: Path) -> None:
    async def use() -> None:
        gate = tmp_path / "gate"
        async with AsyncClient(server.url) as client:
            jobs = [await client.submit("demo", parameters={"mock": {"hold": str(gate)}}) for _ in range(4)]
            with pytest.raises(WaitTimeout):
                await jobs[0].wait(timeout_s=0.2)
            waits = [asyncio.create_task(job.wait(timeout_s=30)) for job in jobs]
            gate.write_text("go")
            assert {job.status for job in await asyncio.gather(*waits)} == {"completed"}

    asyncio.run(use())


def test_its_streams_are_taken_up_where_they_broke(server: LiveServer) -> None:
    job_id = server.client.run(parameters={"mock": {"lines": 40_000, "seconds": 0}})["id"]
    whole = server.client.get(f"/jobs/{job_id}/logs").content

    async def use(url: str) -> tuple[str, list[str]]:
        async with AsyncClient(url) as client:
            await client.ready()
            text = "".join([piece async for piece in client.follow_log(job_id, attempt=1)])
            return text, [change.kind async for change in client.events(job_id)]

    with CuttingProxy(server.url, after_bytes=150_000, cuts=2) as proxy:
        text, kinds = asyncio.run(use(proxy.url))
    assert proxy.cut == 2
    assert text.encode() == whole
    assert (kinds[0], kinds[-1]) == ("submitted", "ended")


def test_many_are_submitted_and_answered_in_order(server: LiveServer) -> None:
    requests: list[JobRequest] = [
        {"workflow": "demo", "name": f"many {n}", "parameters": QUICK} for n in range(12)
    ]
    with Client(server.url) as client:
        jobs = client.submit_many(requests, at_once=6)
        assert [job.name for job in jobs] == [f"many {n}" for n in range(12)]
        assert client.submit_many([]) == []
        assert len({job.id for job in client.jobs(q="many ")}) == 12

    async def use() -> list[str | None]:
        async with AsyncClient(server.url) as client:
            return [job.name for job in await client.submit_many(requests[:9], at_once=4)]

    assert asyncio.run(use()) == [f"many {n}" for n in range(9)]


@pytest.mark.parametrize("is_async", [False, True])
def test_after_a_refusal_no_more_are_begun_and_it_is_told_which_were(
    server: LiveServer, *, is_async: bool
) -> None:
    requests: list[JobRequest] = [{"workflow": "demo", "parameters": QUICK} for _ in range(40)]
    requests[3] = {"workflow": "no-such"}

    async def waiting() -> None:
        async with AsyncClient(server.url) as client:
            await client.submit_many(requests, at_once=2)

    def blocking() -> None:
        with Client(server.url) as client:
            client.submit_many(requests, at_once=2)

    with pytest.raises(NotAllSubmitted, match=r"of 40 jobs were submitted; number 3 failed: 422") as told:
        asyncio.run(waiting()) if is_async else blocking()
    assert set(told.value.failures) == {3}
    assert {0, 1, 2} <= set(told.value.submitted)
    assert len(told.value.submitted) < 10
    assert all(server.client.job(job.id) for job in told.value.submitted.values())


def test_a_job_that_no_client_answered_says_so(server: LiveServer) -> None:
    with Client(server.url) as client:
        job = client.submit("demo", parameters=QUICK)
    with pytest.raises(ValueError, match="not answered by a client"):
        type(job).from_json(job.raw).cancel()


def test_no_end_is_missed_by_who_remembers_the_latest_change(server: LiveServer) -> None:
    with Client(server.url) as client:
        before = client.latest_change()
        jobs = {client.submit("demo", parameters=QUICK).wait(timeout_s=60).id for _ in range(2)}
        for change in client.events(after=before, status=["completed"]):
            assert change.status == "completed"
            jobs.discard(change.job_id)
            if not jobs:
                break
    assert jobs == set()


def test_what_is_interrupted_begins_no_further_submission() -> None:
    begun: list[str] = []

    def submit(*, workflow: str) -> str:
        begun.append(workflow)
        if len(begun) == 3:
            raise KeyboardInterrupt
        return workflow

    with pytest.raises(KeyboardInterrupt):
        submit_many(submit, [{"workflow": str(n)} for n in range(100_000)], at_once=1)
    assert len(begun) == 3
    begun.clear()
    with pytest.raises(KeyboardInterrupt):
        submit_many(submit, [{"workflow": str(n)} for n in range(100_000)], at_once=2)
    assert len(begun) < 100_000

"""Changes of jobs as a stream: nothing lost, nothing doubled, and nothing of other tenants."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from api import event_feed, event_stream, waiting
from api.app import create_app
from api.event_schemas import BriefJob, JobChange
from api.settings import load_settings
from runner.access import OPERATOR, Scope
from runner.bootstrap import build_runner
from runner.callers_access import CallersAccess
from runner.errors import StoreUnavailable
from runner.jobs import JobSpec
from runner.stores.memory import MemoryStore
from tests.support.asgi_server import serving
from tests.support.sse import asking

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator
    from pathlib import Path

    from api.app import Application
    from runner.bootstrap import Runner
    from runner.jobs import Job
    from tests.support.sse import Event

QUICK_S = 0.02


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    """Nothing is started: a pending job stays so until it is cancelled, and can be retried then."""
    settings = load_settings({"SNAKELINE_DATA_DIR": str(tmp_path), "SNAKELINE_DATABASE_URL": "memory://"})
    made = build_runner(settings.runner())
    yield made
    made.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_feed, "_BETWEEN_LOOKS_S", QUICK_S)
    monkeypatch.setattr(waiting, "ALLOWED_AGAIN_S", QUICK_S)


def kinds(events: list[Event]) -> list[str]:
    return [event.event for event in events]


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def open_to_all(runner: Runner) -> Application:
    return create_app(runner, load_settings({"SNAKELINE_AUTH": "none"}))


def submitted(runner: Runner, **spec: Any) -> Job:
    return runner.service.submit(JobSpec(**spec)).result().job


# ---------------------------------------------------------------- one job


def test_a_jobs_stream_tells_all_from_its_submission_on_and_is_over_with_its_end(runner: Runner) -> None:
    async def follow() -> None:
        job = submitted(runner, name="n")
        async with serving(open_to_all(runner)) as served:
            async with asking(served, f"/jobs/{job.id}/events") as stream:
                assert b"text/event-stream" in stream.head
                await stream.until(1)
                submitted(runner)  # somebody else's, who is not told of here
                runner.service.cancel(job.id)
                events = await stream.rest()
            assert kinds(events) == ["submitted", "cancel_requested"]
            document = json.loads(events[1].data)
            told = [document[name] for name in ("job_id", "kind", "status", "attempt")]
            assert told == [job.id, "cancel_requested", "cancelled", 1]
            assert document["job"]["reason"] == "cancel_requested"
            JobChange.model_validate_json(events[1].data)  # as the OpenAPI document has it
            assert {*document["job"]} == {
                field.alias or name for name, field in BriefJob.model_fields.items()
            }
            # A browser comes back by itself, and is told that there is nothing to come back for.
            async with asking(served, f"/jobs/{job.id}/events", Last_Event_ID=events[1].id) as stream:
                assert stream.status == 204
            runner.service.retry(job.id)
            async with (
                asking(served, f"/jobs/{job.id}/events", Last_Event_ID=events[1].id) as resumed,
                # No store has given this id: all of it again, and the first end is not the last.
                asking(served, f"/jobs/{job.id}/events?after=77777") as again,
            ):
                await resumed.until(1)
                await again.until(3)
                runner.service.cancel(job.id)
                assert kinds(await resumed.rest()) == ["retried", "cancel_requested"]
                assert kinds(await again.rest()) == [
                    *("submitted", "cancel_requested"),
                    *("retried", "cancel_requested"),
                ]

    run(follow())


def test_the_stream_of_a_job_that_was_deleted_unseen_is_over(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "HEARTBEAT_S", 5 * QUICK_S)

    async def follow() -> None:
        job = submitted(runner)
        path = f"/jobs/{job.id}/events"
        async with serving(open_to_all(runner)) as served, asking(served, path) as stream:
            await stream.until(1)
            monkeypatch.setattr(event_feed, "_PAGE", 0)  # the feed reads nothing more
            runner.service.cancel(job.id)
            runner.service.delete(job.id)
            assert kinds(await stream.rest()) == ["submitted"]

    run(follow())


def test_what_a_stream_has_read_ahead_of_the_others_is_not_told_twice(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def follow() -> None:
        async with serving(open_to_all(runner)) as served, asking(served, "/events") as others:
            await others.until(1)
            submitted(runner)
            await others.until(2)  # from here on changes are read for all
            monkeypatch.setattr(event_feed, "_PAGE", 0)  # as if that took very long
            submitted(runner)  # somebody else's, read before it
            job = submitted(runner)
            async with asking(served, f"/jobs/{job.id}/events") as stream:
                await stream.until(1)
                monkeypatch.setattr(event_feed, "_PAGE", 1)
                await others.until(4)
                runner.service.cancel(job.id)
                assert kinds(await stream.rest()) == ["submitted", "cancel_requested"]

    run(follow())


# ---------------------------------------------------------------- all jobs


def test_a_stream_of_all_jobs_begins_now_and_resumes_anywhere_without_loss_or_double(runner: Runner) -> None:
    async def follow() -> None:
        submitted(runner)
        async with serving(open_to_all(runner)) as served:
            async with asking(served, "/events") as stream:
                (start,) = await stream.until(1)
                assert (start.event, start.data) == ("start", "{}")
                jobs = [submitted(runner) for _ in range(3)]
                for job in jobs:
                    runner.service.cancel(job.id)
                events = (await stream.until(7))[1:]
            assert kinds(events) == ["submitted"] * 3 + ["cancel_requested"] * 3
            assert [json.loads(event.data)["job_id"] for event in events] == [job.id for job in jobs] * 2
            for seen, place in enumerate([start, *events[:-1]]):
                async with asking(served, "/events", Last_Event_ID=place.id) as stream:
                    assert await stream.until(6 - seen) == events[seen:]
            # The header goes before the address, which a browser sends again as it was.
            async with asking(served, "/events?after=0", Last_Event_ID=events[-2].id) as stream:
                assert await stream.until(1) == events[-1:]
            async with asking(served, "/events?after=0") as stream:
                assert len(await stream.until(7)) == 7

    run(follow())


def test_a_reader_that_falls_behind_what_is_held_loses_nothing(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_feed, "_MOST_ITEMS", 3)
    monkeypatch.setattr(event_stream, "PAGE", 2)

    async def follow() -> None:
        application = open_to_all(runner)
        async with serving(application) as served, asking(served, "/events") as stream:
            await stream.until(1)
            jobs = [submitted(runner) for _ in range(20)]
            events = (await stream.until(21))[1:]
            assert [json.loads(event.data)["job_id"] for event in events] == [job.id for job in jobs]

    run(follow())


def test_a_stream_is_resumed_by_a_tenant_after_a_restart(tmp_path: Path) -> None:
    settings = load_settings({"SNAKELINE_DATA_DIR": str(tmp_path), "SNAKELINE_AUTH": "keys"})
    place = ""

    async def once(runner: Runner, key: str, last_id: str) -> str:
        application = create_app(runner, settings)
        headers = {"Authorization": f"Bearer {key}", **({"Last-Event-ID": last_id} if last_id else {})}
        async with serving(application) as served, asking(served, "/events", **headers) as stream:
            told = (await stream.until(1))[0]
            assert told.event == ("submitted" if last_id else "start")
            return told.id

    runner = build_runner(settings.runner())
    _, text = CallersAccess(runner.access, OPERATOR).create_key(name="a", scopes=[Scope.READ], tenant="a")
    for _ in range(3):
        place = asyncio.run(once(runner, text, place))
        submitted_by(runner, "b")
        submitted_by(runner, "a")
        runner.close()
        runner = build_runner(settings.runner())
    runner.close()


def test_filters_hold_together(runner: Runner) -> None:
    async def follow() -> None:
        async with serving(open_to_all(runner)) as served:
            path = "/events?status=cancelled&status=failed&workflow=demo"
            async with asking(served, path) as stream:
                await stream.until(1)
                for workflow in ("wordcount", "demo"):
                    job = submitted(runner, workflow=workflow)
                    runner.service.cancel(job.id)
                events = await stream.until(2)
        assert [json.loads(event.data)["job"]["workflow"] for event in events[1:]] == ["demo"]

    run(follow())


@pytest.mark.parametrize("path", ["/events", "/jobs/{id}/events"])
def test_an_id_that_is_none_is_refused(runner: Runner, path: str) -> None:
    path = path.replace("{id}", submitted(runner).id)

    async def ask() -> None:
        async with serving(open_to_all(runner)) as served:
            for bad in ("x", "-1", "1.0", "9" * 19, "AAAAAAAAAAJvSdB_mDec_yo"):
                async with asking(served, path, Last_Event_ID=bad) as stream:
                    assert stream.status == 422
                async with asking(served, f"{path}?after={bad}") as stream:
                    assert stream.status == 422

    run(ask())


def test_an_id_of_a_store_that_was_replaced_is_answered_with_a_gap(runner: Runner) -> None:
    async def follow() -> None:
        application = open_to_all(runner)
        async with serving(application) as served, asking(served, "/events?after=5000") as stream:
            (gap,) = await stream.until(1)
            assert (gap.event, gap.id) == ("gap", "0")
            submitted(runner)
            assert kinds(await stream.until(2)) == ["gap", "submitted"]

    run(follow())


# ---------------------------------------------------------------- tenants


def test_nobody_is_told_of_other_tenants_or_how_much_they_do(runner: Runner) -> None:
    application = create_app(runner, load_settings({"SNAKELINE_AUTH": "keys"}))
    access = CallersAccess(runner.access, OPERATOR)
    scopes = [Scope.READ, Scope.SUBMIT]
    made = {tenant: access.create_key(name=tenant, scopes=scopes, tenant=tenant) for tenant in "abc"}
    texts = {tenant: text for tenant, (_, text) in made.items()}

    async def streams() -> None:
        async with serving(application) as served:
            key = {tenant: f"Bearer {text}" for tenant, text in texts.items()}
            async with (
                asking(served, "/events", Authorization=key["a"]) as a,
                asking(served, "/events", Authorization=key["b"]) as b,
            ):
                starts = [(await stream.until(1))[0] for stream in (a, b)]
                jobs = [submitted_by(runner, tenant) for tenant in "abbcca"]
                own = {"a": (a, [jobs[0], jobs[5]]), "b": (b, [jobs[1], jobs[2]])}
                for tenant, (stream, wanted) in own.items():
                    events = (await stream.until(3))[1:]
                    assert [json.loads(event.data)["job_id"] for event in events] == [j.id for j in wanted]
                    assert {json.loads(event.data)["job"]["tenant"] for event in events} == {tenant}
                    assert not [event.id for event in events if event.id.isdigit()]
            # The same from the store, as one sees it who comes back or was too slow.
            for tenant, start in zip("ab", starts, strict=True):
                async with asking(
                    served, "/events", Authorization=key[tenant], Last_Event_ID=start.id
                ) as stream:
                    events = await stream.until(2)
                    assert {json.loads(event.data)["job"]["tenant"] for event in events} == {tenant}
            # What others have done since leaves no trace: the beginning is the same.
            places = []
            for _ in range(2):
                async with asking(served, "/events", Authorization=key["a"]) as stream:
                    places.append((await stream.until(1))[0].id)
                submitted_by(runner, "b")
            assert places[0] == places[1]
            async with asking(served, f"/jobs/{jobs[1].id}/events", Authorization=key["a"]) as stream:
                assert stream.status == 404
            async with asking(served, "/events?after=3", Authorization=key["a"]) as stream:
                assert stream.status == 422

    run(streams())


def submitted_by(runner: Runner, tenant: str) -> Job:
    caller = replace(OPERATOR, name=tenant, tenant=tenant, all_tenants=False)
    return runner.service.submit(JobSpec(), caller=caller).result().job


# ---------------------------------------------------------------- many, long and in trouble


def test_many_followers_share_what_is_read_of_the_store(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = 0
    events = MemoryStore.events

    def counted(store: MemoryStore, **query: Any) -> Any:
        nonlocal reads
        reads += 1
        return events(store, **query)

    async def follow() -> None:
        async with serving(open_to_all(runner)) as served:
            streams = [asking(served, "/events") for _ in range(64)]
            opened = [await stream.__aenter__() for stream in streams]
            for stream in opened:
                await stream.until(1)
            before = reads
            for _ in range(20):
                submitted(runner)
            for stream in opened:
                assert len(await stream.until(21)) == 21
            assert reads - before <= 20  # as many as one reader would need at most
            await asyncio.gather(*(stream.__aexit__(None, None, None) for stream in streams))

    monkeypatch.setattr(MemoryStore, "events", counted)
    run(follow())


def test_a_stream_outlasts_an_absence_of_the_store(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_feed, "_STORE_PAUSE_S", QUICK_S)
    monkeypatch.setattr(event_stream, "_STORE_PAUSE_S", QUICK_S)
    there = MemoryStore.events
    asked = threading.Event()

    def fails(_store: MemoryStore, **_query: Any) -> Any:
        asked.set()
        raise StoreUnavailable("away")

    async def follow() -> None:
        submitted(runner)
        async with serving(open_to_all(runner)) as served, asking(served, "/events") as stream:
            await stream.until(1)
            monkeypatch.setattr(MemoryStore, "events", fails)
            submitted(runner)
            assert await asyncio.to_thread(asked.wait, 10)
            asked.clear()
            async with asking(served, "/events?after=0") as late:  # which has to catch up first
                assert await asyncio.to_thread(asked.wait, 10)
                monkeypatch.setattr(MemoryStore, "events", there)
                assert kinds(await late.until(2)) == ["submitted", "submitted"]
            assert kinds(await stream.until(2)) == ["start", "submitted"]

    run(follow())


def test_streams_end_at_once_when_the_service_stops(runner: Runner) -> None:
    async def follow() -> None:
        job = submitted(runner)
        application = open_to_all(runner)
        async with (
            serving(application) as served,
            asking(served, "/events") as every,
            asking(served, f"/jobs/{job.id}/events") as one,
        ):
            await every.until(1)
            await one.until(1)
            application.stop.set()
            assert kinds(await every.rest()) == ["start"]
            assert kinds(await one.rest()) == ["submitted"]

    run(follow())


def test_a_stream_ends_soon_after_its_key_is_revoked(runner: Runner) -> None:
    application = create_app(runner, load_settings({"SNAKELINE_AUTH": "keys"}))
    access = CallersAccess(runner.access, OPERATOR)
    key, text = access.create_key(name="a", scopes=[Scope.READ])

    async def follow() -> None:
        bearer = f"Bearer {text}"
        async with serving(application) as served, asking(served, "/events", Authorization=bearer) as stream:
            await stream.until(1)
            access.revoke_key(key.prefix)
            assert len(await stream.rest()) == 1

    run(follow())

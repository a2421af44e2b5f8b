"""The Python client's way to what a run consists of, and to changes of jobs."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from snakeline.client import ChangesMissed, Client
from tests.support.cutting_proxy import CuttingProxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snakeline.client import JobChange
    from tests.support.server import LiveServer


@pytest.fixture
def own(server: LiveServer) -> Iterator[Client]:
    with Client(server.url) as client:
        yield client


def test_tasks_and_their_graph_are_told(own: Client) -> None:
    job = own.submit("demo", parameters={"mock": {"fail_rule": "report"}})
    assert own.wait(job.id, timeout_s=20).status == "failed"
    tasks = {task.rule: task for task in own.tasks(job.id)}
    assert [task.rule for task in own.tasks(job.id, status=["failed"])] == ["report"]
    assert tasks["report"].error_message
    assert tasks["numbers"].ended_at is not None
    assert tasks["numbers"].duration_s is not None
    assert tasks["all"].duration_s is None
    assert [task.number for task in own.tasks(job.id, rules=["all"], attempt=1)] == [tasks["all"].number]
    assert {node["rule"] for node in own.graph(job.id)["nodes"]} == set(tasks)
    assert own.graph_svg(job.id).startswith("<svg ")


def test_a_jobs_changes_end_with_it_wherever_the_stream_breaks(server: LiveServer, own: Client) -> None:
    job = own.submit("demo", parameters={"mock": {"fail_rule": "report"}}, max_retries=1)
    whole = list(own.events(job.id))
    kinds = [change.kind for change in whole if change.kind != "progressed"]
    assert kinds == ["submitted", "claimed", "retried", "claimed", "ended"]
    assert (whole[-1].status, whole[-1].attempt, whole[-1].job["reason"]) == ("failed", 2, "exited_nonzero")
    with CuttingProxy(server.url, after_bytes=1500, cuts=3) as proxy, Client(proxy.url) as cut:
        told = list(cut.events(job.id))
        assert [change.id for change in told if change.kind != "progressed"] == [
            change.id for change in whole if change.kind != "progressed"
        ]
    assert proxy.cut == 3
    assert list(own.events(job.id, after=whole[-1].id)) == []


def test_changes_of_all_jobs_are_followed_from_any_on(server: LiveServer, own: Client) -> None:
    first = own.submit("demo")
    own.wait(first.id, timeout_s=20)
    last = list(own.events(first.id))[-1]
    found: list[JobChange] = []

    def follow() -> None:
        with Client(server.url) as other:
            for change in other.events(after=last.id):
                if change.job_id == second.id:
                    found.append(change)
                    if change.kind == "ended":
                        return

    second = own.submit("demo")
    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    follower.join(20)
    assert [change.kind for change in found if change.kind != "progressed"] == [
        *("submitted", "claimed", "ended")
    ]
    with pytest.raises(ChangesMissed) as missed:
        next(own.events(after="999999999"))
    assert int(missed.value.after) >= int(found[-1].id)

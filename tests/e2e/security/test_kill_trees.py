"""Nothing that was stopped survives: nasty process trees, counted by the kernel's own list."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.support import job_processes, nasty_trees, stand_in_engine
from tests.support.cage import cage
from tests.support.levels import LEVELS, PARENTS, isolating_server
from tests.support.nasty_trees import TREES
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.cage import Cage
    from tests.support.levels import Level
    from tests.support.server import LiveServer

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes control groups and takes mounts away"),
]

GRACE_S: Final = 0.5
TIMEOUT_S: Final = 1.0
WITHIN_S: Final = GRACE_S + 5.0
STAND_WITHIN_S: Final = 30.0


@contextmanager
def caged_service(place: Path, level: Level, **settings: str) -> Iterator[tuple[LiveServer, Cage]]:
    """A service whose every process and descendant is known, with the nasty trees for an engine."""
    with cage() as made:
        if made is None:
            pytest.skip("no control group can be made here to count processes with")
        engine = stand_in_engine.installed(nasty_trees, place)
        chosen = {"isolation": level.isolation, "MAX_CORES": "32", "STOP_GRACE_S": f"{GRACE_S:g}", **settings}
        with isolating_server(place, inside=level.surroundings(made), **engine, **chosen) as service:
            yield service, made


class Jobs:
    """One job for each tree."""

    def __init__(self, service: LiveServer, *, timeout_s: float | None = None) -> None:
        self._service = service
        self.ids = {
            tree: service.client.submit(
                workflow=stand_in_engine.WORKFLOW, parameters={"tree": tree}, timeout_s=timeout_s
            )["id"]
            for tree in TREES
        }

    def stand(self) -> None:
        """Wait until every tree has all its processes."""
        for job_id in self.ids.values():
            wait_for_mark(self._service, job_id, "ready")

    def ended(self) -> dict[str, dict[str, Any]]:
        """Every job once it has ended."""
        client = self._service.client
        return {tree: client.wait_for(job_id, timeout_s=60) for tree, job_id in self.ids.items()}


def submit(service: LiveServer, tree: str) -> str:
    job_id: str = service.client.submit(workflow=stand_in_engine.WORKFLOW, parameters={"tree": tree})["id"]
    return job_id


def wait_for_mark(service: LiveServer, job_id: str, *names: str) -> str:
    """Which of these files the job has made in its working directory."""
    work = service.data_dir / "jobs" / job_id / "work"

    def made() -> str:
        return next((name for name in names if (work / name).exists()), "")

    return wait_until(made, timeout_s=STAND_WITHIN_S, what=f"job {job_id} to make {names}")


def assert_left(cage: Cage, expected: set[int], *, within_s: float = 2.0) -> None:
    """Only the service's own processes are left; a shim takes a moment to leave behind its record."""
    wait_until(lambda: cage.processes() <= expected, timeout_s=within_s, what=f"none left of {cage.names()}")


def seconds(job: dict[str, Any], first: str, last: str) -> float:
    return (datetime.fromisoformat(job[last]) - datetime.fromisoformat(job[first])).total_seconds()


def stop_by_cancel_and_deadline(service: LiveServer) -> None:
    timed = Jobs(service, timeout_s=TIMEOUT_S)
    cancelled = Jobs(service)
    cancelled.stand()
    for job_id in cancelled.ids.values():
        service.client.post(f"/jobs/{job_id}/cancel")
    for tree, job in cancelled.ended().items():
        assert job["status"] == "cancelled", tree
        assert seconds(job, "cancel_requested_at", "completed_at") < WITHIN_S, tree
    for tree, job in timed.ended().items():
        assert job["reason"] == "timed_out", tree
        assert seconds(job, "started_at", "completed_at") < TIMEOUT_S + WITHIN_S, tree


def kill_shims(service: LiveServer) -> None:
    """Nobody is left to end what has no environment to be known by, no parent and no session."""
    trees = ("double_fork_without_environment", "leaves_its_groups", "eight_self_replacing")
    job_ids = [submit(service, tree) for tree in trees]
    for job_id in job_ids:
        wait_for_mark(service, job_id, "ready")
        kill_shim(job_id)
    for job_id in job_ids:
        job = service.client.wait_for(job_id)
        assert (job["reason"], job["exit_code"]) == ("lost", None)


def end_by_itself(service: LiveServer) -> None:
    """The engine ends and leaves a daemon; another job's tries to kill its shim, and may not everywhere."""
    left, killed = submit(service, "leader_leaves"), submit(service, "kills_its_shim")
    job = service.client.wait_for(left)
    assert (job["status"], job["exit_code"]) == ("completed", 0)

    def refused_or_over() -> bool:
        work = service.data_dir / "jobs" / killed / "work"
        return (work / "refused").exists() or service.client.job(killed)["status"] == "failed"

    wait_until(refused_or_over, timeout_s=STAND_WITHIN_S, what="a job to kill its shim")
    assert not (service.data_dir / "jobs" / killed / "work/cut").exists(), "its shim's limits were changed"
    if service.client.job(killed)["status"] == "failed":
        assert service.client.job(killed)["reason"] == "lost"
    else:
        service.client.post(f"/jobs/{killed}/cancel")
        assert service.client.wait_for(killed)["status"] == "cancelled"


@pytest.mark.parametrize(
    "level",
    [
        pytest.param(level, id=name, marks=pytest.mark.soak if "version" in name or " and " in name else ())
        for name, level in LEVELS.items()
    ],
)
def test_nothing_of_a_job_is_left_however_it_ends(place: Path, level: Level) -> None:
    with caged_service(place, level, ON_SHUTDOWN="stop", SHUTDOWN_S="10") as (service, caged):
        own = caged.processes()
        for way in (stop_by_cancel_and_deadline, kill_shims, end_by_itself):
            way(service)
            assert_left(caged, own)
        Jobs(service).stand()
        began = time.monotonic()
        assert service.stop() == 0
        assert time.monotonic() - began < WITHIN_S
        assert_left(caged, set())


def kill_shim(job_id: str) -> None:
    shim = wait_until(lambda: job_processes.shims().get((job_id, 1)), what="the shim's process")
    assert shim is not None
    assert job_processes.kill_and_wait(shim, job_processes.title_of(shim))


def test_without_isolation_a_killed_shim_leaves_a_daemon_and_the_count_shows_it(place: Path) -> None:
    with caged_service(place, PARENTS, isolation="off") as (service, caged):
        own = caged.processes()
        job_id = submit(service, "double_fork_without_environment")
        wait_for_mark(service, job_id, "ready")
        kill_shim(job_id)
        assert service.client.wait_for(job_id)["reason"] == "lost"
        assert len(caged.processes() - own) == 1


def test_where_nothing_but_parents_are_known_it_is_called_best_effort(place: Path) -> None:
    with caged_service(place, PARENTS) as (service, _):
        job_id = submit(service, "ignores_term")
        job = service.client.wait_for(job_id, "running")
        assert job["isolation"] == "subreaper (best effort)"

"""A job that needs more memory than there is says so; the service lives on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import pytest

from tests.support import hogs, stand_in_engine
from tests.support.cage import cgroup_mounts, small_memory
from tests.support.levels import INSIDE_OPEN_HOUSE, isolating_server

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes a control group with little memory"),
]

MACHINE_MB: Final = 400


@pytest.mark.parametrize("by_job", [True, False], ids=["counted by job", "counted by machine"])
def test_a_machine_without_memory_takes_the_job_that_needs_it_and_tells_so(
    tmp_path: Path, *, by_job: bool
) -> None:
    """The service and its jobs share little memory, and no job has a limit of its own."""
    kinds = cgroup_mounts()
    hidden = [] if by_job else [*kinds["cgroup"], *kinds["cgroup2"]]
    with small_memory(MACHINE_MB) as caged:
        if caged is None:
            pytest.skip("no control group with a memory limit can be made here")
        isolation = "require:memory_limit" if by_job else "auto"
        engine = stand_in_engine.installed(hogs, tmp_path)
        through = caged.command(without=hidden)
        with isolating_server(tmp_path, isolation, through=through, **engine) as service:
            client = service.client
            other = client.submit(workflow=stand_in_engine.WORKFLOW, parameters={"hog": "none"})
            job = client.run(workflow=stand_in_engine.WORKFLOW, parameters={"hog": "memory"})
            assert (job["status"], job["reason"]) == ("failed", "out_of_memory")
            assert (job["exit_code"], job["exit_signal"]) == (None, 9)
            if by_job:
                assert (
                    "The machine ran out of memory: the kernel killed a process of the job"
                    in (job["error_message"])
                )
            else:
                assert "not by this service; meanwhile the kernel killed" in job["error_message"]
            assert client.wait_for(other["id"])["status"] == "completed"
            assert client.get("/healthz").status_code == 200


def test_a_job_with_a_user_of_its_own_is_told_what_its_control_group_counted(place: Path) -> None:
    engine = stand_in_engine.installed(hogs, place)
    required = "require:cgroup+uid+memory_limit"
    with isolating_server(place, required, inside=[INSIDE_OPEN_HOUSE], **engine) as service:
        job = service.client.run(
            workflow=stand_in_engine.WORKFLOW, parameters={"hog": "memory"}, memory_mb=64
        )
        assert (job["status"], job["reason"]) == ("failed", "out_of_memory")
        assert "the kernel killed a process" in job["error_message"]

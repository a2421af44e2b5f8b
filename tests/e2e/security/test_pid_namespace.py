"""Jobs in PID namespaces, by bubblewrap: how they end is told exactly, and nothing of them is left."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from runner.isolation import pid_namespace
from tests.support import nasty_trees, stand_in_engine
from tests.support.cage import cage, cgroup_mounts
from tests.support.server import running_server
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.cage import Cage
    from tests.support.server import LiveServer

BUBBLEWRAP: Final = "/usr/bin/bwrap"


def namespaces_work() -> bool:
    try:
        return pid_namespace.tried(BUBBLEWRAP, "import os; os._exit(os.getpid() != 2)")
    except OSError:
        return False


pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        os.geteuid() != 0 or not namespaces_work(), reason="needs root and bubblewrap with PID namespaces"
    ),
]


@contextmanager
def service(directory: Path, **settings: str) -> Iterator[tuple[LiveServer, Cage]]:
    """Without control groups: what ends a job is its namespace alone."""
    mounts = [mount for kind in cgroup_mounts().values() for mount in kind]
    with cage() as made, ExitStack() as stack:
        if made is None:
            pytest.skip("no control group can be made here to count processes with")
        given = {"ISOLATION": "require:pid_namespace", "MAX_CORES": "32", "STOP_GRACE_S": "1", **settings}
        live = stack.enter_context(
            running_server(directory, inside=[made.surroundings(without=mounts)], **given)
        )
        yield live, made


def test_how_a_job_ended_is_told_exactly(tmp_path: Path) -> None:
    with service(tmp_path) as (live, _):
        ready = live.client.get("/readyz").json()
        assert (ready["isolation"], ready["isolation_certain"]) == ("pid_namespace", True)
        codes = [0, 1, 127, 128 + signal.SIGTERM, 255]
        signals = [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV]
        mocks: list[dict[str, Any]] = [{"exit_code": code} for code in codes]
        mocks += [{"signal": int(number)} for number in signals]
        submitted = [live.client.submit(parameters={"mock": mock})["id"] for mock in mocks]
        ended = [live.client.wait_for(job_id) for job_id in submitted]
        assert [job["exit_code"] for job in ended] == [*codes, *[None] * len(signals)]
        assert [job["exit_signal"] for job in ended] == [*[None] * len(codes), *map(int, signals)]
        log = live.client.get(f"/jobs/{submitted[0]}/logs").text
        assert "steps (100%) done" in log
        assert ended[0]["progress"]["done"] == 5


def test_what_cannot_be_started_there_is_told_as_ever(tmp_path: Path) -> None:
    settings = stand_in_engine.installed(nasty_trees, tmp_path)
    with service(tmp_path, **settings) as (live, _):
        live.client.get("/readyz")  # the engine is asked for its version as long as it can be started
        Path(settings["SNAKEMAKE"]).write_text("#!/no/such/interpreter\n")
        job = live.client.run(workflow=stand_in_engine.WORKFLOW, parameters={"tree": "setsid"})
        assert job["reason"] == "launch_failed"
        assert "was not found (or the interpreter in its first line)" in job["error_message"]


@pytest.mark.parametrize("is_stubborn", [False, True])
def test_a_job_is_asked_to_end_before_it_is_killed(tmp_path: Path, *, is_stubborn: bool) -> None:
    with service(tmp_path) as (live, _):
        mock = {"seconds": 60, "ignore_term": is_stubborn}
        job_id = live.client.submit(parameters={"mock": mock})["id"]
        wait_until(lambda: live.client.get(f"/jobs/{job_id}/logs").text, what="the job to say something")
        live.client.post(f"/jobs/{job_id}/cancel")
        job = live.client.wait_for(job_id)
        assert job["status"] == "cancelled"
        assert (job["exit_signal"] == signal.SIGKILL) is is_stubborn

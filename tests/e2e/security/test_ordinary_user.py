"""A service started by an ordinary user: what it can have, it has, and its jobs cannot take it over."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.support import job_processes
from tests.support.levels import OPEN_HOUSE, isolating_server
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from tests.support.server import LiveServer

_UID: Final = 1_900_100_000
_AS_USER: Final = ("--reuid", str(_UID), "--regid", str(_UID), "--clear-groups", "--inh-caps=-all")

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: becomes an ordinary user")


def owner(pid: int) -> int:
    """Who may look into its memory: root alone, where it has closed it."""
    return os.stat(f"/proc/{pid}/environ").st_uid


def real_uid(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Uid:")).split()[1])


def launcher_of(service: LiveServer) -> int:
    children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text().split()
    return next(pid for pid in map(int, children) if "launcher" in job_processes.title_of(pid))


def test_everything_but_the_job_is_closed_to_others_of_the_same_user(place: Path) -> None:
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("setpriv is not installed")
    place.chmod(0o777)
    with isolating_server(
        place, "auto", through=(*OPEN_HOUSE, setpriv, *_AS_USER), STOP_GRACE_S="0.5"
    ) as service:
        job = service.client.submit(parameters={"mock": {"seconds": 300}})
        engine = wait_until(lambda: _engine(job["id"]), what="the job's process")
        assert engine is not None
        shim = job_processes.shims()[job["id"], 1]
        ours = {service.process.pid, launcher_of(service), shim}
        assert {real_uid(pid) for pid in (*ours, engine)} == {_UID}
        assert {owner(pid) for pid in ours} == {0}, "another job could read or trace it"
        wait_until(lambda: owner(engine) == _UID, what="the job to be open to its user's own tools")
        assert job_processes.title_of(shim) == f"snakeline: shim of job {job['id']}/1"
        assert Path(f"/proc/{shim}/comm").read_text() == "snakeline-shim\n"
        assert int(Path(f"/proc/{engine}/oom_score_adj").read_text()) >= 500
        told = service.client.get(f"/jobs/{job['id']}").json()["isolation"]
        ready = service.client.get("/readyz").json()
        assert told == ready["isolation"] + ("" if ready["isolation_certain"] else " (best effort)")
        service.client.post(f"/jobs/{job['id']}/cancel")
        wait_until(lambda: not job_processes.by_job().get(job["id"]), what="the job's end")


def _engine(job_id: str) -> int | None:
    for pid in job_processes.by_job().get(job_id, []):
        title = job_processes.title_of(pid)
        if title.startswith("snakeline: mock"):
            return pid
    return None

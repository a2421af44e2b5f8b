"""Plans and reports run under users of their own, as jobs do, and give everything back."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest

from tests.support import side_probe, stand_in_engine
from tests.support.levels import INSIDE_OPEN_HOUSE, isolating_server

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: the service is started as root"),
]
TOLD = re.compile(r"user (19\d{8}), the store is closed")


def test_a_plan_and_a_report_run_as_a_user_of_their_own_and_leave_nothing_of_it(place: Path) -> None:
    settings = stand_in_engine.installed(side_probe, place)
    with isolating_server(place, "require:uid", inside=[INSIDE_OPEN_HOUSE], **settings) as server:
        client = server.client
        plan = client.post(f"/workflows/{stand_in_engine.WORKFLOW}/plan", json={}).json()
        assert not plan["ok"]
        planner = TOLD.search(plan["errors"][0])
        job = client.run(workflow=stand_in_engine.WORKFLOW)
        assert client.post(job["links"]["report"]).status_code == 201
        reporter = TOLD.fullmatch(client.get(job["links"]["report"]).text)
        assert planner
        assert reporter
        service = server.data_dir.stat().st_uid
        assert service not in (int(planner[1]), int(reporter[1]))
        job_dir = server.data_dir / "jobs" / job["id"]
        assert {path.lstat().st_uid for path in (job_dir, *job_dir.rglob("*"))} == {service}
        assert os.listdir(job_dir / "attempts") == ["1"]
        assert client.delete(job["links"]["self"]).status_code == 204
        assert [os.listdir(server.data_dir / name) for name in ("jobs", "side", "trash")] == [[], [], []]

"""What a caller is told of the queue: its own tenant's, and how soon its job's turn comes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from typer.testing import CliRunner

from snakeline import Client
from snakeline.cli import app
from tests.support.held_job import held_job
from tests.support.keys import keyed_server

if TYPE_CHECKING:
    from pathlib import Path


def test_a_pending_job_tells_its_place_among_its_own_tenants_jobs(tmp_path: Path) -> None:
    with keyed_server(tmp_path, MAX_CORES="1") as server, held_job(server.admin, tmp_path) as (running, _):
        key = server.key("read", "submit", tenant="one")
        one = server.client(key)
        other = server.client(server.key("read", "submit", tenant="other"))
        last = one.submit(name="last", priority=-5)
        assert last["queue_position"] is None  # a submission is not made longer by counting
        for _ in range(3):
            other.submit(priority=100)
        later, sooner = one.submit(name="later"), one.submit(name="sooner", priority=5)
        places = {job["name"]: job["queue_position"] for job in one.get("/jobs").json()["items"]}
        assert places == {"sooner": 1, "later": 2, "last": 3}
        assert one.get(f"/jobs/{later['id']}").json()["queue_position"] == 2
        with Client(server.server.url, api_key=key) as client:
            assert client.get(later["id"]).queue_position == 2
        env = {"SNAKELINE_URL": server.server.url, "SNAKELINE_API_KEY": key, "XDG_CONFIG_HOME": str(tmp_path)}
        shown = CliRunner().invoke(app, ["show", later["id"]], env=env)
        assert re.search(r"Queue +place 2\n", shown.stdout), shown.output
        assert [job["queue_position"] for job in other.get("/jobs").json()["items"]] == [3, 2, 1]
        everybodys = server.admin.get("/jobs", params={"tenant": "one"}).json()["items"]
        assert {job["name"]: job["queue_position"] for job in everybodys} == places
        assert server.admin.get(f"/jobs/{running}").json()["queue_position"] is None
        one.post(f"/jobs/{sooner['id']}/cancel")
        assert one.get(f"/jobs/{sooner['id']}").json()["queue_position"] is None
        assert one.get(f"/jobs/{later['id']}").json()["queue_position"] == 1

"""Version N is stopped, N + 1 put in its place and started: jobs that ran across that notice nothing.

N is an earlier commit of this very repository, see tests/support/releases.py.
"""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from runner.stores.sql import SqlStore
from runner.stores.sql.condition import condition_of
from runner.stores.sql.schema import REVISION
from tests.support.engines import snakemake_command
from tests.support.releases import Installation
from tests.support.server import LiveServer, running_server, service_environment
from tests.support.store_dumps import DUMPS, load
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.client import ContractClient

pytestmark = pytest.mark.timeout(300)  # most of it is starting services: on a busy machine that takes long

RELEASES = ("0002", "0004")
SETTINGS = {"MAX_CORES": "16", "STOP_GRACE_S": "1"}
LINES = 2000


@dataclass
class Upgrade:
    """The newer service, and the jobs that the older one took, by what they are for."""

    server: LiveServer
    revision: str
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)

    @property
    def client(self) -> ContractClient:
        return self.server.client

    def ended(self, name: str) -> dict[str, Any]:
        return self.client.wait_for(self.jobs[name]["id"])

    def log(self, name: str, attempt: int = 1) -> str:
        return str(self.client.get(f"/jobs/{self.jobs[name]['id']}/logs?attempt={attempt}").text)


@pytest.fixture(
    scope="module",
    params=[RELEASES[0], *(pytest.param(name, marks=pytest.mark.soak) for name in RELEASES[1:])],
)
def upgrade(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upgrade]:
    base = tmp_path_factory.mktemp(f"upgrade-{request.param}")
    installation = Installation(base / "site", request.param)
    gates = base / "gates"  # beside the data: what comes later cannot be seen by jobs
    gates.mkdir()
    with ExitStack() as stack:
        old = LiveServer(base, SETTINGS, through=installation.through)
        stack.callback(old.process.wait)
        stack.callback(old.process.kill)
        jobs, logs, launcher = _occupy(old.client, gates, psutil.Process(old.process.pid))
        stack.callback(_end, launcher)
        old.process.kill()  # it can't say goodbye: the launcher does not answer
        old.process.wait()
        old.client.close()
        installation.upgrade()
        (gates / "between").write_text("go")
        record = old.data_dir / "jobs" / jobs["between"]["id"] / "attempts" / "1" / "exit.json"
        wait_until(record.exists, what="a job to end while no service is there")
        new = stack.enter_context(running_server(base, through=installation.through, **SETTINGS))
        assert (new.data_dir / "snakeline.db").exists()
        launcher.resume()
        (gates / "later").write_text("go")
        yield Upgrade(new, request.param, jobs, logs)


def _occupy(
    client: ContractClient, gates: Path, service: psutil.Process
) -> tuple[dict[str, dict[str, Any]], dict[str, str], psutil.Process]:
    """Jobs in every state there is, and the launcher, stopped, so that one is asked of it in vain."""
    later = str(gates / "later")

    def submit(wanted: dict[str, Any] | None = None, **mock: Any) -> dict[str, Any]:
        return client.submit(**(wanted or {}), parameters={"mock": mock})

    key = {"Idempotency-Key": "as before"}
    body = {"name": "ended", "parameters": {"mock": {"lines": 3}}}
    jobs = {
        "ended": client.post("/jobs", json=body, headers=key).json(),
        "failed": submit(exit_code=9),
        "succeeds": submit(hold=later, lines=LINES),
        "fails": submit(hold=later, exit_code=7),
        "is killed": submit(hold=later, signal=9),
        "between": submit(hold=str(gates / "between"), lines=5, exit_code=3),
        "retries": submit({"max_retries": 1}, hold=later, exit_code=5),
        "cancelled": submit(hold="never", spawn_children=2, ignore_term=True),
        "overdue": submit({"timeout_s": 8}, hold="never"),
    }
    jobs["ended"], jobs["failed"] = (client.wait_for(jobs[name]["id"]) for name in ("ended", "failed"))
    held = {name: job for name, job in jobs.items() if name not in ("ended", "failed")}
    for job in held.values():
        wait_until(lambda job=job: "Building DAG" in client.get(f"/jobs/{job['id']}/logs").text)  # type: ignore[misc]
    logs = {name: client.get(f"/jobs/{job['id']}/logs").text for name, job in jobs.items()}
    [launcher] = service.children()
    launcher.suspend()
    jobs["not begun"] = submit(lines=4)
    client.wait_for(jobs["not begun"]["id"], "running")
    jobs["pending"] = submit({"cores": 16, "priority": -1}, lines=4)
    return jobs, logs, launcher


def _end(launcher: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        launcher.kill()


def test_jobs_that_ran_across_an_upgrade_end_as_they_would_have(upgrade: Upgrade) -> None:
    for name, status, reason, code, number in (
        ("succeeds", "completed", "exited_zero", 0, None),
        ("fails", "failed", "exited_nonzero", 7, None),
        ("is killed", "failed", "killed_by_signal", None, 9),
        ("between", "failed", "exited_nonzero", 3, None),
    ):
        job = upgrade.ended(name)
        assert (job["status"], job["reason"], job["exit_code"], job["exit_signal"]) == (
            status,
            reason,
            code,
            number,
        ), name
        assert job["attempt"] == 1
    assert upgrade.ended("succeeds")["progress"]["done"] == 5
    assert upgrade.ended("fails")["error_message"].startswith("Rule ")


def test_their_logs_are_whole(upgrade: Upgrade) -> None:
    upgrade.ended("succeeds")
    log = upgrade.log("succeeds")
    assert log.startswith(upgrade.logs["succeeds"])
    assert re.findall(r"^line (\d+)$", log, re.MULTILINE) == [str(n) for n in range(1, LINES + 1)]
    assert "5 of 5 steps (100%) done" in log
    for name in ("ended", "failed"):
        assert upgrade.log(name) == upgrade.logs[name]


def test_a_cancel_reaches_a_job_of_the_earlier_version(upgrade: Upgrade) -> None:
    job = upgrade.jobs["cancelled"]
    marked = f"SNAKELINE_JOB_ID={job['id']}"
    assert upgrade.client.post(f"/jobs/{job['id']}/cancel").status_code == 202
    assert upgrade.ended("cancelled")["reason"] == "cancel_requested"
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            assert marked not in process.environ().get("SNAKELINE_JOB_ID", "")


def test_the_deadline_of_a_job_of_the_earlier_version_is_kept(upgrade: Upgrade) -> None:
    assert upgrade.ended("overdue")["reason"] == "timed_out"


def test_what_had_not_begun_begins_once_under_the_newer_version(upgrade: Upgrade) -> None:
    # One of them wants all cores; the job that never ends by itself may be over by now, or not.
    upgrade.client.post(f"/jobs/{upgrade.jobs['cancelled']['id']}/cancel")
    for name in ("not begun", "pending"):
        job = upgrade.ended(name)
        assert (job["status"], job["attempt"]) == ("completed", 1)
        assert upgrade.log(name).count("Building DAG") == 1


def test_attempts_of_the_earlier_version_are_retried(upgrade: Upgrade) -> None:
    by_itself = upgrade.ended("retries")
    assert (by_itself["attempt"], by_itself["exit_code"]) == (2, 5)
    job_id = upgrade.jobs["failed"]["id"]
    assert upgrade.client.post(f"/jobs/{job_id}/retry").status_code == 202
    again = upgrade.ended("failed")
    assert (again["attempt"], again["exit_code"]) == (2, 9)
    assert upgrade.log("failed") == upgrade.logs["failed"]
    assert "At least one job did not complete" in upgrade.log("failed", attempt=2)


def test_ended_jobs_are_as_they_were_and_answer_all_there_is_to_ask(upgrade: Upgrade) -> None:
    before, client = upgrade.jobs["ended"], upgrade.client
    after = client.job(before["id"])
    changed = {name for name, value in before.items() if after[name] != value}
    assert changed <= {"links", "progress"}
    for link in ("tasks", "graph", "outputs", "ro_crate"):
        assert client.get(after["links"][link]).status_code == 200, link
    tasks = client.get(after["links"]["tasks"]).json()["items"]
    assert {task["status"] for task in tasks} == {"completed"}
    assert len(tasks) == 5


def test_a_submission_that_is_sent_again_makes_no_second_job(upgrade: Upgrade) -> None:
    body = {"name": "ended", "parameters": {"mock": {"lines": 3}}}
    answer = upgrade.client.post("/jobs", json=body, headers={"Idempotency-Key": "as before"})
    assert answer.json()["id"] == upgrade.jobs["ended"]["id"]
    assert answer.headers["Idempotent-Replayed"] == "true"


def test_the_store_is_whole_and_there_is_a_copy_from_before(upgrade: Upgrade) -> None:
    store = upgrade.server.data_dir / "snakeline.db"
    [copy] = store.parent.glob("snakeline.db.before-upgrade*")
    assert copy.name.startswith(f"snakeline.db.before-upgrade-from-{upgrade.revision}-")
    assert '"event": "store.upgraded"' in upgrade.server.log
    assert condition_of(str(copy)).kind == "whole"


@pytest.mark.parametrize("revision", RELEASES[:1])
def test_a_job_that_the_earlier_version_stopped_is_resumed(tmp_path: Path, revision: str) -> None:
    """As in a container, where jobs cannot outlive the service."""
    installation = Installation(tmp_path / "site", revision)
    (tmp_path / "gates").mkdir()
    settings = {**SETTINGS, "ON_SHUTDOWN": "stop"}
    old = LiveServer(tmp_path, settings, through=installation.through)
    job_id = old.client.submit(parameters={"mock": {"hold": str(tmp_path / "gates" / "go")}})["id"]
    wait_until(lambda: "Building DAG" in old.client.get(f"/jobs/{job_id}/logs").text)
    assert old.stop() == 0
    installation.upgrade()
    (tmp_path / "gates" / "go").write_text("go")
    with running_server(tmp_path, through=installation.through, **settings) as new:
        job = new.client.wait_for(job_id)
        assert (job["status"], job["attempt"]) == ("completed", 2)


SNAKEFILE = """\
rule all:
    input: "written.txt"
rule waits:
    output: "waited.txt"
    shell: "while [ ! -e {config[gate]} ]; do sleep 0.05; done; touch {output}"
rule runs:
    input: "waited.txt"
    output: "written.txt"
    run:
        open(output[0], "w").write("by a process that was started after the upgrade")
"""


@pytest.mark.soak
@pytest.mark.snakemake
@pytest.mark.skipif(snakemake_command() is None, reason="real Snakemake is not installed: make snakemake-env")
def test_a_run_of_snakemake_goes_on_with_the_newer_version_in_place_of_its_own(tmp_path: Path) -> None:
    """Its rules' own processes are started from what is there now, and tell what they do to both."""
    (tmp_path / "workflows" / "waits").mkdir(parents=True)
    (tmp_path / "workflows" / "waits" / "Snakefile").write_text(SNAKEFILE)
    (tmp_path / "gates").mkdir()
    command = snakemake_command()
    assert command is not None
    settings = {"ENGINE": "snakemake", "SNAKEMAKE": command, "WORKFLOWS_DIR": str(tmp_path / "workflows")}
    installation = Installation(tmp_path / "site", RELEASES[-1])
    old = LiveServer(tmp_path, settings, through=installation.through)
    gate = tmp_path / "gates" / "go"
    job_id = old.client.submit(workflow="waits", parameters={"gate": str(gate)})["id"]
    wait_until(lambda: "rule waits" in old.client.get(f"/jobs/{job_id}/logs").text)
    assert old.stop() == 0
    installation.upgrade()
    with running_server(tmp_path, through=installation.through, **settings) as new:
        gate.touch()
        job = new.client.wait_for(job_id, timeout_s=60)
        assert (job["status"], job["attempt"], job["progress"]["done"]) == ("completed", 1, 3)
        tasks = new.client.get(f"/jobs/{job_id}/tasks").json()["items"]
        assert {task["rule"]: task["status"] for task in tasks} == dict.fromkeys(
            ("all", "waits", "runs"), "completed"
        )


@pytest.mark.parametrize("revision", RELEASES[:1])
def test_an_older_version_leaves_a_newer_store_alone_and_starts_again_with_the_copy(
    tmp_path: Path, revision: str
) -> None:
    installation = Installation(tmp_path / "site", revision)
    store = tmp_path / "data" / "snakeline.db"
    store.parent.mkdir()
    load(DUMPS / f"{revision}.sql", store)
    SqlStore.open(f"sqlite:///{store}").close()
    content = store.read_bytes()

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*installation.through, sys.executable, "-m", "snakeline", *arguments],
            env=service_environment({"DATA_DIR": str(store.parent), "PORT": "0"}),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    refused = command("serve")
    assert refused.returncode != 0
    assert refused.stderr.count("\n") == 1
    assert f"newer Snakeline (revision {REVISION}, this one knows {revision}): start that version" in (
        refused.stderr
    )
    assert store.read_bytes() == content
    [copy] = store.parent.glob("snakeline.db.before-upgrade*")
    restored = command("restore", str(copy))
    assert restored.returncode == 0, restored.stderr
    assert "7 jobs" in restored.stdout
    assert condition_of(str(store)).kind == "whole"

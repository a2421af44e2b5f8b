"""A service that was started as root: it is root no more, and every running job is a user of its own."""

from __future__ import annotations

import io
import json
import os
import secrets
import signal
import tempfile
import zipfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from runner.isolation.uids import processes_of
from tests.support import job_processes, nasty_trees, secrets_probe, stand_in_engine, user_probe
from tests.support.cage import cage, cgroup_mounts
from tests.support.engines import snakemake_command
from tests.support.levels import INSIDE_BARE_HOUSE, INSIDE_OPEN_HOUSE, isolating_server
from tests.support.server import LiveServer
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.cage import Cage

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: the service is started as root"),
]

UIDS: Final = range(1_900_000_000, 1_900_010_000)
GRACE_S: Final = 1.0


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where every user gets to; pytest's own folders are closed to others."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Path(name)


class House:
    """A service on an ordinary installation. A `bare` one finds neither control groups nor Landlock."""

    def __init__(self, folder: Path, caged: Cage, settings: dict[str, str], *, bare: bool) -> None:
        self._bare = bare
        self._folder = folder
        self._caged = caged
        self._settings = settings
        self.service = self.start()

    def start(self) -> LiveServer:
        mounts = [mount for kind in cgroup_mounts().values() for mount in kind] if self._bare else []
        house = INSIDE_BARE_HOUSE if self._bare else INSIDE_OPEN_HOUSE
        inside = [self._caged.surroundings(without=mounts), house]
        self.service = LiveServer(self._folder, self._settings, inside=inside)
        return self.service

    def end(self) -> None:
        self.service.process.kill()
        self.service.process.wait()

    def processes(self) -> set[int]:
        return self._caged.processes()

    def job_dir(self, job_id: str) -> Path:
        return self.service.data_dir / "jobs" / job_id

    def submit(self, *, limit_mb: int | None = None, **parameters: Any) -> str:
        body = {"parameters": {"ends": str(self._folder), **parameters}, "memory_mb": limit_mb}
        job: str = self.service.client.submit(workflow=stand_in_engine.WORKFLOW, **body)["id"]
        return job

    def facts(self, job_id: str) -> dict[str, Any]:
        path = self.job_dir(job_id) / "work/facts.json"
        wait_until(path.exists, timeout_s=20, what=f"job {job_id} to tell its facts")
        facts: dict[str, Any] = json.loads(path.read_text())
        return facts

    def let_go(self) -> None:
        (self._folder / "go").touch()


@contextmanager
def house(folder: Path, program: Any = user_probe, *, bare: bool = True, **settings: str) -> Iterator[House]:
    given = {
        **(stand_in_engine.installed(program, folder) if program is not None else {}),
        "ISOLATION": "require:uid",
        "MAX_CORES": "32",
        "STOP_GRACE_S": f"{GRACE_S:g}",
        **settings,
    }
    with cage() as caged, ExitStack() as stack:
        if caged is None:
            pytest.skip("no control group can be made here to count processes with")
        made = House(folder, caged, given, bare=bare)
        stack.callback(made.end)
        yield made
        made.let_go()
        service = made.service
        if service.process.poll() is None:
            service.end_jobs()
            assert service.stop() == 0, service.log
        assert "Traceback" not in service.log, service.log


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def kill_shim(job_id: str) -> None:
    shim = wait_until(lambda: job_processes.shims().get((job_id, 1)), what="the shim")
    assert shim is not None
    assert job_processes.kill_and_wait(shim, job_processes.title_of(shim))


def owners(tree: Path) -> set[int]:
    return {path.lstat().st_uid for path in (tree, *tree.rglob("*"))}


def test_neither_the_service_nor_a_job_is_root_and_no_two_are_the_same(folder: Path) -> None:
    with house(folder) as made:
        client, pid = made.service.client, made.service.process.pid
        ready = client.get("/readyz").json()
        assert ready["isolation"] == "uid"
        assert ready["isolation_certain"] is True
        assert ready["isolation_protections"] == ["uid"]
        service = status(pid)
        service_uid = int(service["Uid"].split()[0])
        assert service["Uid"].split() == [str(service_uid)] * 4
        assert service_uid != 0
        assert service["Groups"].split() == []
        assert {service[kind] for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
        assert service["NoNewPrivs"] == "1"
        store = made.service.data_dir / "snakeline.db"
        assert store.stat().st_uid == service_uid

        first = made.submit(careless=True)
        work = made.job_dir(first) / "work"
        shim = made.facts(first)["parent"]
        second = made.submit(
            read=[str(store), f"/proc/{pid}/environ", f"/proc/{shim}/environ", str(work / "Snakefile")]
            + [
                str(made.job_dir(first) / "attempts/1" / name)
                for name in ("log.0", "spec.json", "config.json")
            ],
            list=[str(work), str(made.service.data_dir), str(made.job_dir(first))],
            write=[str(work / "planted"), str(made.job_dir(first) / "planted"), str(store)],
            signal=[pid, shim],
            become=[0, service_uid],
        )
        facts = [made.facts(job_id) for job_id in (first, second)]
        shared = [Path("/dev/shm", job_id) for job_id in (first, second)]
        assert all(path.exists() for path in shared)
        for each in facts:
            uid = each["uids"][0]
            assert uid in UIDS
            assert uid != service_uid
            assert each["uids"] == each["gids"] == [uid] * 3
            assert each["groups"] == []
            assert each["capabilities"] == "0" * 16
            assert each["no_new_privs"] == "1"
        assert facts[0]["uids"] != facts[1]["uids"]
        for act in ("read", "list", "write", "signal", "become"):
            assert set(facts[1][act].values()) <= {"EACCES", "EPERM"}, (act, facts[1][act])
            assert facts[1][act], act
        # The shim is the service's to signal, and nobody's to look into.
        assert status(shim)["Uid"].split() == [str(service_uid), str(service_uid), "0", str(service_uid)]
        made.let_go()
        for job_id, path in zip((first, second), shared, strict=True):
            assert client.wait_for(job_id)["usage"]["cpu_s"] > 0
            assert not path.exists()
            assert made.job_dir(job_id).stat().st_mode & 0o077 == 0


def test_a_running_jobs_files_are_its_own_and_can_be_fetched_all_the_same(folder: Path) -> None:
    with house(folder) as made:
        client = made.service.client
        job_id = made.submit()
        uid = made.facts(job_id)["uids"][0]
        job_dir = made.job_dir(job_id)
        assert owners(job_dir / "work") == owners(job_dir / "home") == owners(job_dir / "tmp") == {uid}
        listed = client.get(f"/jobs/{job_id}/outputs").json()
        assert "deep/er/private" in [item["path"] for item in listed["items"]]
        assert client.get(f"/jobs/{job_id}/outputs/deep/er/private").text == "mine alone"
        fetched = client.get(f"/jobs/{job_id}/outputs/deep/", params={"format": "zip"})
        with zipfile.ZipFile(io.BytesIO(fetched.content)) as archive:
            assert archive.read("deep/er/private") == b"mine alone"
        assert client.get(f"/jobs/{job_id}/outputs/no-such").status_code == 404
        assert client.get(f"/jobs/{job_id}/logs").text == "told\n"
        made.let_go()
        assert client.wait_for(job_id)["status"] == "completed"
        assert owners(job_dir) == {int(status(made.service.process.pid)["Uid"].split()[0])}
        assert client.get(f"/jobs/{job_id}/outputs/deep/er/private").text == "mine alone"
        assert client.delete(f"/jobs/{job_id}").status_code == 204
        assert not job_dir.exists()


def test_a_retry_has_the_files_of_the_attempt_before_and_another_user(folder: Path) -> None:
    with house(folder) as made:
        client = made.service.client
        job_id = made.submit(wait=False, exit=3)
        assert client.wait_for(job_id)["exit_code"] == 3
        first = made.facts(job_id)["uids"]
        (made.job_dir(job_id) / "work/facts.json").unlink()
        assert client.post(f"/jobs/{job_id}/retry").status_code == 202
        assert client.wait_for(job_id)["attempt"] == 2
        assert client.wait_for(job_id)["exit_code"] == 3, client.get(f"/jobs/{job_id}/logs").text
        assert made.facts(job_id)["uids"] != first  # one of ten thousand, taken at random


def test_a_killed_shim_leaves_no_process_and_no_file_of_its_jobs_user(folder: Path) -> None:
    with house(folder, nasty_trees) as made:
        client = made.service.client
        own = made.processes()
        trees = ("double_fork_without_environment", "eight_self_replacing")
        for tree in trees:
            job_id = client.submit(workflow=stand_in_engine.WORKFLOW, parameters={"tree": tree})["id"]
            work = made.job_dir(job_id) / "work"
            wait_until((work / "ready").exists, timeout_s=20, what="the tree to stand")
            uid = work.stat().st_uid
            assert processes_of(uid)
            kill_shim(job_id)
            job = client.wait_for(job_id)
            assert (job["reason"], job["exit_code"]) == ("lost", None)
            assert processes_of(uid) == []
            assert uid not in owners(made.job_dir(job_id))
        wait_until(lambda: made.processes() <= own, what="nothing of the jobs to be left")


def test_jobs_outlive_a_killed_service_and_no_user_id_is_given_twice(folder: Path) -> None:
    with house(folder) as made:
        before = [made.submit(exit=number) for number in range(4)]
        users = {made.facts(job_id)["uids"][0] for job_id in before}
        made.service.process.send_signal(signal.SIGKILL)
        made.service.process.wait()
        made.service.client.close()
        made.start()
        after = [made.submit(exit=number) for number in range(4, 8)]
        users |= {made.facts(job_id)["uids"][0] for job_id in after}
        assert len(users) == 8
        made.let_go()
        ended = [made.service.client.wait_for(job_id) for job_id in (*before, *after)]
        assert [job["exit_code"] for job in ended] == list(range(8))
        assert not [uid for uid in users if processes_of(uid)]


def test_when_the_monitor_ends_the_service_does_and_jobs_go_on(folder: Path) -> None:
    with house(folder) as made:
        job_id = made.submit(exit=5)
        made.facts(job_id)
        children = Path(f"/proc/{made.service.process.pid}/task/{made.service.process.pid}/children")
        monitor = next(
            pid for pid in map(int, children.read_text().split()) if "monitor" in job_processes.title_of(pid)
        )
        assert job_processes.kill_and_wait(monitor, job_processes.title_of(monitor))
        assert made.service.process.wait(10) == 1
        assert "monitor.ended" in made.service.log
        made.service.client.close()
        made.start()
        made.let_go()
        assert made.service.client.wait_for(job_id)["exit_code"] == 5


def test_a_memory_limit_counts_what_another_users_processes_share_once(folder: Path) -> None:
    with house(folder) as made:
        client = made.service.client
        sharing = made.submit(limit_mb=160, memory_mb=64, sharers=3)
        taking = made.submit(limit_mb=160, memory_mb=256)
        assert client.wait_for(taking)["reason"] == "out_of_memory"

        def seen_bytes() -> int:
            return int((client.job(sharing)["usage"] or {"max_rss_bytes": 0})["max_rss_bytes"])

        # By then it was looked at: a sample is taken less often than its shim looks.
        wait_until(lambda: seen_bytes() > 4 * 64 * 2**20, timeout_s=20, what="the sharers to be seen")
        points = client.get(f"/jobs/{sharing}/usage").json()["points"]
        assert max(point["rss_bytes"] for point in points) > 4 * 64 * 2**20  # kept beside its log
        made.let_go()
        assert client.wait_for(sharing)["status"] == "completed"


def test_a_job_that_is_a_user_of_its_own_finds_no_secret(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = [f"planted-{secrets.token_hex(16)}" for _ in range(3)]
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", planted[0])  # the service gets all of ours
    store = f"sqlite:///{folder}/data/{planted[1]}.db"
    with house(folder, secrets_probe, DATABASE_URL=store) as made:
        client, service = made.service.client, made.service
        other = client.run(workflow=stand_in_engine.WORKFLOW, parameters={"text": planted[2]})
        assert other["status"] == "completed"
        asked = {"data_dir": str(service.data_dir), "pid": service.process.pid}
        job = client.run(workflow=stand_in_engine.WORKFLOW, parameters=asked)
        assert job["status"] == "completed", client.get(f"/jobs/{job['id']}/logs").text
        told = json.loads((made.job_dir(job["id"]) / "work/probe.json").read_text())
        assert told["found"] == {}
        assert {"service: environ", "service: memory", "files", "own memory"} <= told["tried"].keys()


def test_jobs_run_where_the_way_to_the_data_directory_is_a_link(folder: Path) -> None:
    (folder / "disk").mkdir(mode=0o755)
    (folder / "link").symlink_to("disk")
    linked, inside = str(folder / "link" / "data"), [INSIDE_OPEN_HOUSE]
    with isolating_server(folder, "require:uid", inside=inside, DATA_DIR=linked) as service:
        assert service.client.run()["status"] == "completed"
        assert (folder / "disk/data").stat().st_uid in UIDS


@pytest.mark.snakemake
def test_real_snakemake_runs_as_a_user_of_its_own(folder: Path) -> None:
    command = snakemake_command()
    if command is None:
        pytest.skip("Snakemake is not installed: make snakemake-env")
    workflow = folder / "workflows/one"
    workflow.mkdir(parents=True)
    go = folder / "go"
    (workflow / "Snakefile").write_text(
        'rule all:\n    output: "who"\n    log: "who.log"\n'
        '    shell: "umask 077; id -u > {log}; '
        f'until [ -e {go} ]; do sleep 0.1; done; cp {{log}} {{output}}"\n'
    )
    settings = {"ENGINE": "snakemake", "SNAKEMAKE": command, "WORKFLOWS_DIR": str(workflow.parent)}
    with house(folder, None, bare=False, **settings) as made:
        client = made.service.client
        job_id = client.submit(workflow="one")["id"]
        progress = {"total": 1, "done": 0, "running": 1, "failed": 0, "up_to_date": 0}
        wait_until(
            lambda: client.get(f"/jobs/{job_id}").json()["progress"] == progress,
            timeout_s=60,
            what="its progress is seen while it runs",
        )
        wait_until(
            lambda: client.get(f"/jobs/{job_id}/tasks/0/logs").text.strip().isdigit(),
            timeout_s=20,
            what="its task's log can be read while it runs",
        )
        go.touch()
        job = client.wait_for(job_id, timeout_s=60)
        assert job["status"] == "completed", made.service.client.get(f"/jobs/{job['id']}/logs").text
        who = int(made.service.client.get(f"/jobs/{job['id']}/outputs/who").text)
        assert who in UIDS
        assert who != int(status(made.service.process.pid)["Uid"].split()[0])
        assert job["progress"]["done"] == 1

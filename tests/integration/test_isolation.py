"""What a job finds around it: what it may do, what it may not, and what is left of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from runner.isolation import landlock, probe
from runner.isolation.confinement import Measures
from runner.isolation.current import CurrentIsolation
from runner.ports import Ended, Lost, NotStarted
from tests.support import job_processes
from tests.support.attempts import Attempts
from tests.support.mounts import run_or_skip, unmount
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

_WALLS = str(Path(__file__).parents[1] / "support" / "walls.py")
_needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes control groups")
_needs_landlock = pytest.mark.skipif(
    landlock.abi_version() < landlock.LEAST_ABI, reason="this kernel has no Landlock of version 2"
)
_ALLOWED = {
    *("read the system", "read beside the data", "write at home", "write to the temporary folder"),
    *("move between its folders", "write an event", "use /dev/null", "signal its child", "make a semaphore"),
}


@pytest.fixture(params=[True, False], ids=["warm", "cold"])
def warm(request: pytest.FixtureRequest) -> object:
    return request.param


def found(data_dir: Path) -> Measures:
    return probe.find(probe.Scope(str(data_dir), writable=probe.DEFAULT_WRITABLE)).measures


@pytest.fixture
def attempts(tmp_path: Path, warm: object) -> Iterator[Attempts]:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    running = Attempts(data_dir, warm=bool(warm), measures=lambda: found(data_dir))
    yield running
    running.close()


def try_the_walls(attempts: Attempts, tmp_path: Path) -> dict[str, Any]:
    (attempts.data_dir / "secret").write_text("secret")
    (tmp_path / "beside.txt").write_text("for everybody")
    (tmp_path / "alias").mkdir(exist_ok=True)
    name = f"snakeline-test-{os.getpid()}-{tmp_path.name}"
    master, slave = os.openpty()
    with closing(socket.socket(socket.AF_UNIX)) as listener, open(master, "rb"), open(slave, "rb"):
        listener.bind("\0" + name)
        listener.listen()
        disk = next((f"/dev/{n}" for n in os.listdir("/dev") if n.startswith(("vda", "sda"))), "/dev/vda")
        asked = {
            "data_dir": str(attempts.data_dir),
            "attempt": f"{attempts.data_dir}/jobs/{attempts.job_id}/attempts/1",
            "secret": f"{attempts.data_dir}/secret",
            "alias": f"{tmp_path}/alias/secret",
            "beside": f"{tmp_path}/beside.txt",
            "service": os.getpid(),
            "disk": disk,
            "terminal": os.ttyname(slave),
            "groups": [f"{place}/cgroup.procs" for place in found(attempts.data_dir).groups.values()],
            "socket": name,
        }
        files = attempts.data_dir / "jobs" / attempts.job_id
        environment = {"PATH": os.defpath, "HOME": f"{files}/home", "TMPDIR": f"{files}/tmp"}
        handle = attempts.launch_argv(
            (sys.executable, "-I", "-S", _WALLS, json.dumps(asked)),
            environment=environment,
            warm_entry="support.walls:main" if attempts.warm else None,
        )
        ended = attempts.end(handle, timeout_s=20)
    assert isinstance(ended, Ended)
    assert ended.record.exit_code == 0, attempts.log(handle)
    told: dict[str, Any] = json.loads(attempts.log(handle))
    return told


@_needs_landlock
def test_a_job_reads_the_system_and_writes_only_what_is_its_own(attempts: Attempts, tmp_path: Path) -> None:
    tried = try_the_walls(attempts, tmp_path)["tried"]
    done = {name for name, came in tried.items() if came.startswith("done")}
    expected = set(_ALLOWED)
    if landlock.abi_version() < 6:
        expected |= {"signal the service", "signal the shim", "reach an abstract socket"}
    if landlock.abi_version() < 3:
        expected |= {"truncate beside the data"}
    assert done == expected, tried
    assert tried["read it by another mount"] == "No such file or directory"  # there is none
    assert not list((tmp_path / "data" / "jobs" / attempts.job_id / "tmp").glob("*"))
    assert (tmp_path / "beside.txt").read_text() == "for everybody"


@_needs_landlock
@_needs_root
def test_a_second_mount_of_the_data_is_hidden_too(tmp_path: Path) -> None:
    data_dir, alias = tmp_path / "data", tmp_path / "alias"
    data_dir.mkdir()
    alias.mkdir()
    run_or_skip("mount", "--bind", str(data_dir), str(alias))
    try:
        with closing(Attempts(data_dir, warm=False, measures=lambda: found(data_dir))) as attempts:
            tried = try_the_walls(attempts, tmp_path)["tried"]
    finally:
        unmount(alias)
    assert tried["read it by another mount"] == "Permission denied"
    assert tried["read beside the data"].startswith("done")


def test_a_job_has_few_powers_few_limits_to_raise_and_is_the_first_to_go(
    attempts: Attempts, tmp_path: Path
) -> None:
    facts = try_the_walls(attempts, tmp_path)["facts"]
    assert facts["no_new_privs"] == "1"
    assert facts["oom_score_adj"] >= 500
    assert facts["core"] == [0, 0]
    assert facts["open_files"] == [256, min(65536, facts["open_files"][1])]
    assert facts["dumpable"] == 1
    chown_to_bind = 0b100_1111_1011
    assert int(facts["capabilities"], 16) & ~chown_to_bind == 0


@_needs_root
def test_a_job_is_in_a_control_group_of_its_own_which_is_gone_after_it(
    attempts: Attempts, tmp_path: Path
) -> None:
    measures = found(attempts.data_dir)
    if not measures.groups:
        pytest.skip("no control groups here")
    facts = try_the_walls(attempts, tmp_path)["facts"]
    assert f"/{measures.prefix}{attempts.job_id}.1" in facts["groups"]
    assert probe.leftovers(measures) == []


# A daemon in a session of its own, by a double fork, with an empty environment and no title of ours.
_DAEMON = (
    "import os, subprocess\n"
    "if os.fork() == 0:\n"
    "    os.setsid()\n"
    "    subprocess.Popen(['/bin/sleep', '{seconds}'], env={{}})\n"
    "    os._exit(0)\n"
    "os.wait()\n"
    "print('started', flush=True)\n"
    "import time; time.sleep(300)\n"
)


def _sleepers(seconds: str) -> list[int]:
    return [p.pid for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["/bin/sleep", seconds]]


@_needs_root
def test_what_a_killed_shim_leaves_is_ended_whatever_it_hides_behind(attempts: Attempts) -> None:
    if not found(attempts.data_dir).groups:
        pytest.skip("no control groups here")
    seconds = f"3{os.getpid()}{attempts.warm:d}"
    handle = attempts.launch_argv((sys.executable, "-I", "-S", "-c", _DAEMON.format(seconds=seconds)))
    shim = attempts.until_running(handle)
    attempts.until_log(handle, b"started")
    assert _sleepers(seconds)
    assert job_processes.kill_and_wait(shim, job_processes.title_of(shim))
    assert isinstance(attempts.end(handle), Lost)
    assert not _sleepers(seconds)
    assert probe.leftovers(found(attempts.data_dir)) == []


@_needs_root
def test_groups_that_nobody_holds_are_ended_at_the_start(attempts: Attempts, tmp_path: Path) -> None:
    measures = found(attempts.data_dir)
    group = measures.group("forgotten", 3)
    if group is None:
        pytest.skip("no control groups here")
    group.make(memory_bytes=None, processes=None, cores=None)
    with subprocess.Popen(["/bin/sleep", "300"]) as sleeper:
        for place in set(measures.groups.values()):
            Path(place, f"{measures.prefix}forgotten.3", "cgroup.procs").write_text(str(sleeper.pid))
        attempts.reopen()
        try:
            assert sleeper.wait(10) == -signal.SIGKILL
        finally:
            sleeper.kill()
    wait_until(lambda: probe.leftovers(measures) == [], what="the group to be removed")


def test_groups_that_have_gone_keep_the_attempt_until_others_are_found(tmp_path: Path) -> None:
    """As when their file system is unmounted: a plain folder is left."""
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    here = [Measures(groups={"unified": str(tmp_path)}, prefix="snakeline-test.")]
    with closing(Attempts(data_dir, warm=False, measures=lambda: here[0])) as attempts:
        assert attempts.end(attempts.launch("exit=5")) == NotStarted()
        here[0] = found(data_dir)
        ended = attempts.end(attempts.launch("exit=5"))
    assert isinstance(ended, Ended)
    assert ended.record.exit_code == 5


def test_isolation_is_found_anew_when_its_groups_have_gone_and_not_before(tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").touch()
    level = probe.IsolationLevel("cgroup", (), "", certain=True)
    first = probe.Isolation(level, Measures(groups={"unified": str(tmp_path)}))
    second = probe.Isolation(probe.IsolationLevel("subreaper", (), "", certain=False), Measures())
    current = CurrentIsolation(first, lambda: second)
    assert (current.measures(), current.level) == (first.measures, level)
    (tmp_path / "cgroup.procs").unlink()
    assert (current.measures(), current.level) == (second.measures, second.level)
    stays = CurrentIsolation(first)
    assert stays.measures() == first.measures

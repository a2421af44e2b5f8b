"""Control groups as this machine has them: one by one, as a machine that has only these would."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from runner.isolation import cgroup_places, cgroups
from runner.isolation.cgroups import AttemptGroup
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes control groups")

ROOT: Final = Path(__file__).parents[2]
LAYOUTS: Final = {
    "all of it": None,
    "version 2 alone": {"unified"},
    "version 1 with a freezer": {"memory", "pids", "cpu", "freezer"},
    "version 1 without a freezer": {"memory", "pids"},
    "a freezer alone": {"freezer"},
    "memory alone": {"memory"},
}
# Each ends at once and leaves a child of another pid in a session of its own: no list of pids is up to date.
_REPLACING: Final = (
    "import os, signal\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "print('started', flush=True)\n"
    "while True:\n"
    "    if os.fork(): os._exit(0)\n"
    "    os.setsid()\n"
)


def places(wanted: set[str] | None) -> dict[str, str]:
    found = cgroup_places.hierarchies(
        Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text()
    )
    if wanted is not None and "unified" not in wanted:
        found = [hierarchy for hierarchy in found if not hierarchy.is_unified]
    everything = cgroup_places.prepare(found, aside=None)
    if wanted is not None and not wanted <= everything.keys():
        pytest.skip(f"not here: {wanted - everything.keys()}")
    if not everything:
        pytest.skip("no control groups here")
    return {role: place for role, place in everything.items() if wanted is None or role in wanted}


@contextlib.contextmanager
def group_in(wanted: set[str] | None, **limits: int | None) -> Iterator[tuple[AttemptGroup, dict[str, str]]]:
    parents, name = places(wanted), f"snakeline-test-{os.getpid()}.group.1"
    group = AttemptGroup(parents, name)
    group.make(**{"memory_bytes": None, "processes": None, "cores": None, **limits})
    try:
        yield group, {role: f"{parent}/{name}" for role, parent in parents.items()}
    finally:

        def is_gone() -> bool:
            group.kill()
            return group.remove(within_s=0.2)

        wait_until(is_gone, what="the group to be empty")


@contextlib.contextmanager
def member(folders: dict[str, str], program: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Python in the group that runs `program`; it joins before it does anything."""
    join = f"import os\nfor f in {sorted(set(folders.values()))!r}: open(f+'/cgroup.procs', 'w').write('0')\n"
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", join + program], stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_gets_away_from_a_kill(layout: str) -> None:
    with group_in(LAYOUTS[layout]) as (group, folders), member(folders, _REPLACING):

        def is_empty() -> bool:
            group.kill()
            return not group.processes()

        wait_until(is_empty, timeout_s=5, what="the group to be empty")
        assert group.remove(within_s=2)
        assert not any(os.path.exists(folder) for folder in folders.values())


def test_a_kernel_without_cgroup_kill_freezes_and_then_kills(monkeypatch: pytest.MonkeyPatch) -> None:
    write = cgroups._write_if_there
    monkeypatch.setattr(
        cgroups, "_write_if_there", lambda path, text: not path.endswith("cgroup.kill") and write(path, text)
    )
    with group_in({"unified"}) as (group, folders), member(folders, _REPLACING):

        def is_empty() -> bool:
            group.kill()
            return not group.processes()

        wait_until(is_empty, timeout_s=5, what="the group to be empty")


def test_groups_that_a_job_has_made_inside_are_ended_with_it() -> None:
    with group_in({"pids"}) as (group, folders):
        inside = Path(folders["pids"], "inside", "deeper")
        inside.mkdir(parents=True)
        with member(
            {"pids": str(inside)}, "print('started', flush=True)\nimport time; time.sleep(300)"
        ) as process:
            assert group.processes() == {process.pid}
            assert not group.remove(within_s=0)
            group.kill()
            assert process.wait(5) == -signal.SIGKILL
        assert group.remove(within_s=2)


def test_a_kill_by_pid_hits_members_alone() -> None:
    """A pid that was listed and is somebody else's by now is left alone."""
    with group_in({"pids"}) as (group, _), subprocess.Popen(["/bin/sleep", "300"]) as stranger:
        assert not group._has(stranger.pid)
        assert group.signal(signal.SIGKILL) == 0
        stranger.terminate()


def test_memory_beyond_the_limit_is_counted_as_such() -> None:
    eat = "print('started', flush=True)\nb = bytearray(200 << 20)\nfor i in range(0, len(b), 4096): b[i] = 1"
    with group_in(None, memory_bytes=64 << 20) as (group, folders):
        if "memory" not in folders:
            pytest.skip("no memory controller here")
        with member(folders, eat) as process:
            assert process.wait(20) == -signal.SIGKILL
        assert group.oom_kills() == 1
        assert 32 << 20 < group.memory_peak_bytes() <= 64 << 20


def test_a_fork_bomb_ends_at_the_limit() -> None:
    bomb = (
        "import os, signal\n"
        "made = 0\n"
        "while made < 100:\n"
        "    try: pid = os.fork()\n"
        "    except OSError: break\n"
        "    if pid == 0: signal.pause()\n"
        "    made += 1\n"
        "print(made, flush=True)\n"
        "signal.pause()\n"
    )
    with group_in(None, processes=20) as (group, folders):
        if "pids" not in folders:
            pytest.skip("no pids controller here")
        with member(folders, bomb):
            assert len(group.processes()) == 20
            group.kill()


def test_what_an_earlier_try_left_is_ended_before_the_group_is_made_anew() -> None:
    with group_in(None) as (group, folders):
        with member(folders, "print('started', flush=True)\nimport time; time.sleep(300)") as process:
            group.make(memory_bytes=None, processes=None, cores=1)
            assert process.wait(5) == -signal.SIGKILL
        assert not group.processes()


def test_a_folder_that_is_no_control_group_is_refused(tmp_path: Path) -> None:
    """As when the file system of the groups was unmounted, and its mount point is a plain folder."""
    group = AttemptGroup({"unified": str(tmp_path)}, "snakeline-test.group.1")
    with pytest.raises(OSError, match="No such device"):
        group.make(memory_bytes=None, processes=None, cores=None)
    assert not os.listdir(tmp_path)


_SERVICE: Final = """
import json, os, signal, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from runner.isolation import cgroup_places
from runner.isolation.cgroups import AttemptGroup
folder, cgroup_places.CONTROLLERS = sys.argv[2], (sys.argv[3],)
Path(folder, "cgroup.procs").write_text("0")

def found():
    texts = (Path(f"/proc/self/{name}").read_text() for name in ("mountinfo", "cgroup"))
    return [each for each in cgroup_places.hierarchies(*texts) if each.is_unified]

told = [cgroup_places.prepare(found(), aside=None)]
told.append(cgroup_places.prepare(found(), aside="snakeline-test.service"))
told.append(cgroup_places.prepare(found(), aside="snakeline-test.service"))
group = AttemptGroup(told[1], "snakeline-test.job.1")
group.make(memory_bytes=None, processes=None, cores=None)
pid = os.fork()
if pid == 0:
    group.join()
    signal.pause()
while pid not in group.processes():
    pass
told.append(any(name.startswith(sys.argv[3]) for name in os.listdir(f"{folder}/snakeline-test.job.1")))
group.kill()
told.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
told.append(group.remove(within_s=2))
print(json.dumps(told))
"""


def test_a_service_in_the_way_of_a_controller_of_version_2_moves_aside() -> None:
    """Tried on the one controller that version 1 has left to version 2 here."""
    unified = next(iter(places({"unified"}).values()))
    controller = next(iter(Path(unified, "cgroup.controllers").read_text().split()), None)
    if controller is None or Path(unified, "cgroup.type").exists():
        pytest.skip("no controller of version 2 in a root group here")
    switch, folder = Path(unified, "cgroup.subtree_control"), Path(unified, f"snakeline-test-{os.getpid()}")
    was_on = controller in switch.read_text().split()
    switch.write_text(f"+{controller}")
    folder.mkdir()
    try:
        program = [sys.executable, "-I", "-S", "-c", _SERVICE, str(ROOT), str(folder), controller]
        done = subprocess.run(program, capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode == 0, done.stderr
        asked, moved, again, has_controller, ended, removed = json.loads(done.stdout)
        assert asked == {"unified": str(folder)}, "who only asks stays, and has no controller"
        assert moved == again == {"unified": str(folder), controller: str(folder)}
        assert (has_controller, ended, removed) == (True, -signal.SIGKILL, True)
    finally:
        for inside in (folder / "snakeline-test.service", folder):
            wait_until(partial(_is_removed, inside), what=f"{inside} to be empty")
        if not was_on:
            switch.write_text(f"-{controller}")


def _is_removed(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        folder.rmdir()
    return not folder.exists()

"""What the privileged monitor does for the service, and what it refuses to do."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
import uuid
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runner.attempt_files import AttemptFiles
from runner.backends.launcher_choice import cold_spec
from runner.backends.launcher_process import Forked, LauncherProcess, Ready, Refused
from runner.errors import BackendUnavailable
from runner.isolation.confinement import Measures
from runner.isolation.job_users import JobMembers, JobUser, JobUsers
from runner.isolation.uids import UidRange, UidTable
from runner.monitor import Monitor
from runner.monitored_files import MonitoredJobFolders
from runner.ports import WarmSpec
from runner.privilege_separation import start_monitor
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: the monitor is root"),
]

_FIRST = 1_970_000_000 + os.getpid() * 16
SERVICE = _FIRST
UIDS = UidRange(_FIRST + 1, _FIRST + 4)


@pytest.fixture
def users() -> Iterator[JobUsers]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "jobs").mkdir()
        yield JobUsers(SERVICE, SERVICE, UIDS, str(folder / "uids"), str(folder / "jobs"))


@pytest.fixture
def monitor(users: JobUsers) -> Iterator[Monitor]:
    with closing(
        start_monitor(users, cold=cold_spec(sys.executable), warm=None, measures=Measures(), open_files=1024)
    ) as m:
        yield m


def make_job(users: JobUsers, owner: int) -> tuple[str, Path]:
    """A job whose working directory is `owner`'s, with one file in it."""
    job_id = str(uuid.uuid4())
    job_dir = Path(users.jobs_dir) / job_id
    (job_dir / "attempts/1").mkdir(parents=True)
    for name in ("work", "home"):
        (job_dir / name).mkdir(mode=0o700)
    (job_dir / "work/file").write_text("content")
    (job_dir / "work/file").chmod(0o600)
    os.chown(job_dir, SERVICE, SERVICE)
    for path in (job_dir / "home", job_dir / "work", job_dir / "work/file"):
        os.chown(path, owner, owner)
    return job_id, job_dir


def test_it_opens_and_lists_what_a_running_jobs_user_owns(monitor: Monitor, users: JobUsers) -> None:
    job_id, job_dir = make_job(users, UIDS.first)
    (job_dir / "work/folder").mkdir()
    with open(monitor.open_file(job_id, b"file"), "rb") as file:
        assert file.read() == b"content"
    listed = {entry.name: entry for entry in monitor.list_folder(job_id, b"")}
    assert {name: entry.kind for name, entry in listed.items()} == {b"file": "file", b"folder": "folder"}
    assert listed[b"file"].size_bytes == 7
    assert list(monitor.list_folder(job_id, b"folder")) == []


def test_it_holds_no_large_folder_in_memory_and_stops_when_nobody_reads_on(
    monitor: Monitor, users: JobUsers
) -> None:
    job_id, job_dir = make_job(users, UIDS.first)
    names = {b"\1" * 100 + b"%d" % number for number in range(1000)}  # 600 bytes each as JSON
    for name in names:
        os.close(os.open(os.fsencode(job_dir / "work") + b"/" + name, os.O_CREAT | os.O_WRONLY))
    before = children_of(monitor)
    entries = monitor.list_folder(job_id, b"")
    first = next(entries)
    assert len(children_of(monitor) - before) == 1  # it waits to be read from
    assert not [link for link in Path("/proc/self/fd").iterdir() if "memfd:" in os.path.realpath(link)]
    del entries
    wait_until(lambda: children_of(monitor) == before, what="the listing to be given up")
    listed = {entry.name for entry in monitor.list_folder(job_id, b"")}
    assert listed == {*names, b"file"}
    assert first.name in listed


def children_of(monitor: Monitor) -> set[str]:
    about = Path(f"/proc/self/fdinfo/{monitor.pidfd}").read_text().splitlines()
    pid = next(line.split()[1] for line in about if line.startswith("Pid:"))
    return set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


@pytest.mark.parametrize(
    "path",
    [b"../home/secret", b"/etc/shadow", b"link", b"root", b"linked", b"", b"fifo", b"a\0b", b"no-such"],
)
def test_it_opens_nothing_but_plain_files_of_the_job(monitor: Monitor, users: JobUsers, path: bytes) -> None:
    job_id, job_dir = make_job(users, UIDS.first)
    (job_dir / "home/secret").write_text("x")
    (job_dir / "work/link").symlink_to("/etc/shadow")
    (job_dir / "work/root").write_text("a file of root's")
    os.link(job_dir / "home/secret", job_dir / "work/linked")
    os.mkfifo(job_dir / "work/fifo")
    with pytest.raises(OSError) as refused:
        monitor.open_file(job_id, path)
    assert refused.value.errno in (errno.ENOENT, errno.EIO)


@pytest.mark.parametrize("job_id", ["..", ".", "", "x", "../jobs", "0" * 36])
def test_it_knows_jobs_by_their_ids_alone(monitor: Monitor, users: JobUsers, job_id: str) -> None:
    (Path(users.jobs_dir) / "work").mkdir()
    for ask in (
        lambda: monitor.open_file(job_id, b"file"),
        lambda: list(monitor.list_folder(job_id, b"")),
        lambda: monitor.hand_back(job_id, 1),
    ):
        with pytest.raises(OSError, match=r"no attempt of ours|not the id of a job"):
            ask()


def test_it_takes_back_what_a_dead_attempt_left(monitor: Monitor, users: JobUsers) -> None:
    taken = UidTable(users.table, UIDS).take(job_id := str(uuid.uuid4()))
    taken.close()
    _, job_dir = make_job(users, taken.uid)
    job_dir.rename(Path(users.jobs_dir) / job_id)
    job_dir = Path(users.jobs_dir) / job_id
    assert monitor.hand_back(job_id, 1) == 0
    assert {path.stat().st_uid for path in (job_dir / "home", job_dir / "work", job_dir / "work/file")} == {
        SERVICE
    }
    assert UidTable(users.table, UIDS).left_by(job_id) == []


def test_after_a_reboot_it_knows_by_the_files_whose_they_were(monitor: Monitor, users: JobUsers) -> None:
    job_id, job_dir = make_job(users, UIDS.last)
    assert not os.path.exists(users.table)
    assert monitor.hand_back(job_id, 1) == 0
    assert {(job_dir / name).stat().st_uid for name in ("home", "work", "work/file")} == {SERVICE}


def test_it_takes_nothing_from_an_attempt_that_runs(monitor: Monitor, users: JobUsers) -> None:
    job_id = str(uuid.uuid4())
    with closing(UidTable(users.table, UIDS).take(job_id)) as taken:
        made, job_dir = make_job(users, taken.uid)
        job_dir = job_dir.rename(Path(users.jobs_dir) / job_id)
        with pytest.raises(OSError, match="in use by a running attempt"):
            monitor.hand_back(job_id, 1)
        assert (job_dir / "work").stat().st_uid == taken.uid
    assert made


def test_it_changes_no_owner_in_a_directory_that_is_not_the_services(
    monitor: Monitor, users: JobUsers
) -> None:
    job_id, job_dir = make_job(users, UIDS.first)
    os.chown(job_dir, UIDS.last, UIDS.last)
    with pytest.raises(OSError, match="not the service's"):
        monitor.hand_back(job_id, 1)
    assert (job_dir / "work").stat().st_uid == UIDS.first


def test_it_starts_the_launchers_that_were_foreseen_and_no_other(monitor: Monitor) -> None:
    other = WarmSpec("/bin/sh", isolated=True, packages={}, preload="os:system")
    with pytest.raises(BackendUnavailable, match="restart the service"):
        monitor.start_launcher(other, warm=True)


def test_a_launcher_that_is_root_forks_shims_for_attempts_alone(monitor: Monitor, users: JobUsers) -> None:
    spec = cold_spec(sys.executable)
    launcher = LauncherProcess(monitor.start_launcher(spec, warm=False), spec)
    try:
        ready = wait_until(launcher.receive, what="the launcher to be ready")
        assert isinstance(ready[0], Ready)
        # The service may signal what is forked from it, from the first moment on.
        status = Path(f"/proc/{launcher.pid}/status").read_text()
        assert f"\nUid:\t{SERVICE}\t0\t0\t0\n" in status
        _, job_dir = make_job(users, SERVICE)
        for directory in (
            "/etc",
            str(job_dir),
            f"{job_dir}/attempts/../attempts/1",
            f"{users.jobs_dir}/x/attempts/1",
        ):
            launcher.request(directory)
            answer = wait_until(launcher.receive, what="an answer")[0]
            assert isinstance(answer, Refused)
            assert "no attempt" in answer.detail
        launcher.request(f"{job_dir}/attempts/1")
        answer = wait_until(launcher.receive, what="an answer")[0]
        assert isinstance(answer, Forked)
        os.close(answer.pidfd)
    finally:
        launcher.close()


def test_it_goes_on_after_nonsense_and_ends_with_the_service(users: JobUsers) -> None:
    monitor = start_monitor(
        users, cold=cold_spec(sys.executable), warm=None, measures=Measures(), open_files=1024
    )
    job_id, _ = make_job(users, UIDS.first)
    for line in (monitor._control, monitor._files):
        line._socket.send(b"\xff\xfe not JSON")
        line._socket.send(b"[1, 2]")
        line._socket.send(b'{"do": "exec", "number": 77}')
    os.close(monitor.open_file(job_id, b"file"))
    assert monitor.hand_back(job_id, 1) == 0
    assert monitor.is_alive()
    process = monitor._process
    monitor.close()
    assert process.wait(5) == 0


def test_a_jobs_members_are_all_of_its_users_processes_whoever_started_them(users: JobUsers) -> None:
    job_id, job_dir = make_job(users, SERVICE)
    table = UidTable(users.table, UIDS)
    with closing(table.take(job_id)) as taken:
        elsewhere = subprocess.Popen(["sleep", "60"], user=taken.uid, group=taken.uid, extra_groups=[])
        JobMembers(JobUser(users, AttemptFiles(str(job_dir), 1), taken)).kill()
        assert elsewhere.wait(10) == -signal.SIGKILL


def test_files_are_opened_whoever_has_them_at_that_moment(monitor: Monitor, users: JobUsers) -> None:
    folders = MonitoredJobFolders(os.path.dirname(users.jobs_dir), monitor)
    for owner in (os.geteuid(), UIDS.first):
        job_id, _ = make_job(users, owner)
        os.chown(Path(users.jobs_dir) / job_id, SERVICE, SERVICE)
        with open(folders.open_file(job_id, b"file"), "rb") as file:
            assert file.read() == b"content"
        assert [entry.name for entry in folders.list_folder(job_id, b"")] == [b"file"]
        with pytest.raises(FileNotFoundError):
            folders.open_file(job_id, b"no-such")

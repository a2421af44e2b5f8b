"""User ids for jobs: who has which, becoming one, ending all that runs under one."""

from __future__ import annotations

import errno
import os
import select
import subprocess
import sys
import uuid
from typing import TYPE_CHECKING

import pytest

from runner.isolation.uids import (
    UidRange,
    UidTable,
    UidTaken,
    become,
    end_all_of,
    kill_all_of,
    processes_of,
)
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from pathlib import Path

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: becomes other users")

_FIRST = 1_950_000_000 + os.getpid() * 16  # no other test's, and none of a service's
UIDS = UidRange(_FIRST, _FIRST + 3)


def job_id() -> str:
    return str(uuid.uuid4())


@pytest.mark.parametrize(
    "text", ["", "5", "10-20", "3000-2000", "60000-70000", "-", "1000-x", "1000-99999999999"]
)
def test_what_is_no_range_of_ids_for_jobs_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="user id"):
        UidRange.parse(text)


def test_a_range_has_both_its_ends() -> None:
    uids = UidRange.parse("2000-2001")
    assert [uid in uids for uid in (1999, 2000, 2001, 2002)] == [False, True, True, False]
    assert len(uids) == 2


@needs_root
class TestTable:
    def test_no_id_is_handed_out_twice(self, tmp_path: Path) -> None:
        table = UidTable(str(tmp_path / "uids"), UIDS)
        taken = [table.take(job_id()) for _ in range(4)]
        assert {each.uid for each in taken} == set(range(UIDS.first, UIDS.last + 1))
        with pytest.raises(OSError, match="no user id") as refused:
            table.take(job_id())
        assert refused.value.errno == errno.EAGAIN

    def test_an_id_that_was_freed_serves_again(self, tmp_path: Path) -> None:
        table = UidTable(str(tmp_path / "uids"), UidRange(UIDS.first, UIDS.first))
        for _ in range(3):
            taken = table.take(job_id())
            taken.free()
            taken.close()

    def test_an_id_whose_holder_died_stays_taken_until_it_is_handed_back(self, tmp_path: Path) -> None:
        table = UidTable(str(tmp_path / "uids"), UidRange(UIDS.first, UIDS.first))
        job = job_id()
        table.take(job).close()  # as the kernel does it for a process that dies
        with pytest.raises(BlockingIOError):
            table.take(job_id())
        assert table.left_by(job) == [UIDS.first]
        again = table.retake(UIDS.first)
        again.free()
        again.close()
        assert table.left_by(job) == []
        table.take(job_id()).close()

    def test_an_id_in_use_cannot_be_handed_back(self, tmp_path: Path) -> None:
        table = UidTable(str(tmp_path / "uids"), UIDS)
        taken = table.take(job_id())
        with pytest.raises(UidTaken):
            table.retake(taken.uid)

    def test_a_table_that_is_not_roots_is_not_believed(self, tmp_path: Path) -> None:
        path = tmp_path / "uids"
        path.touch()
        os.chown(path, 1000, 1000)
        with pytest.raises(PermissionError):
            UidTable(str(path), UIDS).take(job_id())


@needs_root
def test_whoever_became_a_user_has_no_way_back() -> None:
    script = (
        f"import os; from runner.isolation.uids import become; become({UIDS.first}, {UIDS.first})\n"
        "try: os.seteuid(0)\n"
        "except PermissionError: print(os.getresuid(), os.getresgid(), os.getgroups())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{(UIDS.first,) * 3} {(UIDS.first,) * 3} []"


def _as_user(code: str, stdout: int | None = None) -> subprocess.Popen[bytes]:
    """A process that runs `code` as the first of the users."""
    become = f"from runner.isolation.uids import become; become({UIDS.first}, {UIDS.first})"
    script = f"import os, signal, time; {become}\n{code}"
    return subprocess.Popen([sys.executable, "-c", script], start_new_session=True, stdout=stdout)


@needs_root
def test_everything_of_a_user_is_ended_whatever_it_did() -> None:
    daemon = (
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "for _ in range(5):\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        if os.fork(): os._exit(0)\n"
        "        time.sleep(600)\n"
        "time.sleep(600)"
    )
    process = _as_user(daemon)
    try:
        wait_until(lambda: len(processes_of(UIDS.first)) == 6, what="the user's processes")
        met, left = end_all_of(UIDS.first, within_s=5.0)
        assert met >= 5  # one that only made another may have been counted above
        assert left == 0
        assert process.wait(5) == -9
    finally:
        process.kill()
        process.wait()


@needs_root
def test_nobody_is_too_short_lived_to_be_ended() -> None:
    replacing = (
        "os.write(1, b'1')\n"
        "while True:\n"
        "    try:\n"
        "        if os.fork(): os._exit(0)\n"
        "    except OSError: continue\n"
        "    os.setsid()\n"
    )
    for _ in range(20):  # a look that comes first misses one in five
        process = _as_user(replacing, stdout=subprocess.PIPE)
        assert process.stdout is not None
        with process.stdout:
            process.stdout.read(1)
            try:
                assert end_all_of(UIDS.first, within_s=5.0)[1] == 0
                ended, _, _ = select.select([process.stdout], [], [], 5.0)
            finally:
                kill_all_of(UIDS.first)
            assert ended  # every one of them held the other end of the pipe
        process.wait()


@needs_root
def test_a_user_can_neither_stop_nor_kill_its_killer() -> None:
    script = f"""
import contextlib, os
from runner.isolation import uids
ask = os.kill
def be_asked(pid, number):
    if pid != -1:
        return ask(pid, number)
    killer = os.getpid()
    if os.fork() == 0:
        with contextlib.suppress(PermissionError):
            os.seteuid(0)
            uids.become({UIDS.first}, {UIDS.first})
        try:
            ask(killer, 0)
        except PermissionError:
            os.write(1, b"refused as %d" % os.geteuid())
        os._exit(0)
    os.wait()
os.kill = be_asked
uids.kill_all_of({UIDS.first})
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == f"refused as {UIDS.first}"


@needs_root
def test_the_kill_meets_nobody_else() -> None:
    bystander = subprocess.Popen(["sleep", "60"], user=UIDS.last, group=UIDS.last, extra_groups=[])
    try:
        kill_all_of(UIDS.first)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


@pytest.mark.parametrize("uid", [0, 999, os.getuid()])
def test_a_user_that_is_no_jobs_is_never_killed(uid: int) -> None:
    with pytest.raises(ValueError, match="not a job's user"):
        kill_all_of(uid)


def test_becoming_another_user_without_the_right_to_raises() -> None:
    if os.geteuid() == 0:
        pytest.skip("root may")
    with pytest.raises(PermissionError):
        become(UIDS.first, UIDS.first)

"""What keeps an attempt from being started twice, or taken for another: each guard where it decides."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from runner.attempt_files import lock_holder
from runner.backends import local
from runner.ports import Ended, Handle, Lost, NotStarted, Running
from tests.support import tracing
from tests.support.attempts import Attempts
from tests.support.runners import Hold
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.ports import Observation

ROOT = Path(__file__).parents[2]


@pytest.fixture
def attempts(tmp_path: Path) -> Iterator[Attempts]:
    with contextlib.closing(Attempts(tmp_path, warm=True)) as attempts:
        yield attempts


@pytest.fixture
def traced(tmp_path: Path) -> Iterator[Attempts]:
    """Every shim stops at its birth, to be followed from there."""
    if obstacle := tracing.obstacle():
        pytest.skip(obstacle)
    marker = tmp_path / "traced"
    marker.touch()
    with contextlib.closing(Attempts(tmp_path, warm=True, preload=f"support.tracing:{marker}")) as attempts:
        yield attempts


def starts(tmp_path: Path) -> int:
    try:
        return len((tmp_path / "starts").read_text().splitlines())
    except FileNotFoundError:
        return 0


def is_dead(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def contents(directory: str) -> dict[str, tuple[int, int]]:
    return {
        entry.name: (entry.stat().st_size, entry.stat().st_mtime_ns)
        for entry in os.scandir(directory)
        if entry.name not in ("spec.json", "lock")  # written by the service, and opened by whoever asks
    }


# ---------------------------------------------------------------- a shim that comes second

_HOLD_LOCK = (
    "import os, sys; from runner.attempt_files import try_lock; os.makedirs(os.path.dirname(sys.argv[1]));"
    "assert try_lock(sys.argv[1]) is not None; print('held', flush=True); sys.stdin.read()"
)


def test_a_shim_that_does_not_get_the_lock_leaves_without_touching_anything(
    traced: Attempts, tmp_path: Path
) -> None:
    files = traced.files(Handle(traced.job_id, 1))
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD_LOCK, files.lock],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        handle = traced.launch(f"count={tmp_path / 'starts'}")
        calls = list(tracing.Tracee(traced.until_running(handle)).calls())
        assert any(call.path == files.lock for call in calls)
        assert contents(files.directory) == {}
        holder.kill()
    assert traced.observe(handle) == NotStarted()
    assert starts(tmp_path) == 0


def test_an_attempt_with_a_result_is_not_run_again_though_its_start_mark_is_gone(
    attempts: Attempts, tmp_path: Path
) -> None:
    acts = (f"count={tmp_path / 'starts'}", "exit=5")
    first = attempts.end(attempts.launch(*acts))
    files = attempts.files(Handle(attempts.job_id, 1))
    os.unlink(files.started)
    assert attempts.end(attempts.launch(*acts)) == first
    assert starts(tmp_path) == 1


def test_a_shim_that_comes_second_leaves_everything_as_the_first_left_it(
    attempts: Attempts, tmp_path: Path
) -> None:
    handle = attempts.launch(f"count={tmp_path / 'starts'}", "out=ready", "sleep=60")
    shim = psutil.Process(attempts.until_running(handle))
    attempts.until_log(handle, b"ready")
    shim.kill()
    assert isinstance(attempts.end(handle), Lost)
    directory = attempts.files(handle).directory
    left = contents(directory)
    attempts.launch("exit=0")
    assert isinstance(attempts.end(handle), Lost)
    assert contents(directory) == left
    assert starts(tmp_path) == 1


# ---------------------------------------------------------------- withdrawn attempts


def test_a_shim_whose_attempt_is_withdrawn_just_before_its_mark_runs_nothing(
    traced: Attempts, tmp_path: Path
) -> None:
    handle = traced.launch(f"count={tmp_path / 'starts'}", "exit=0")
    files = traced.files(handle)
    for call in tracing.Tracee(traced.until_running(handle)).calls():
        if call.path == files.started:
            Path(files.started).touch()  # as the service does
    assert starts(tmp_path) == 0
    assert not os.path.exists(files.exit)
    assert isinstance(traced.end(handle), Lost)


def test_an_attempt_that_was_started_is_not_withdrawn(attempts: Attempts) -> None:
    handle = attempts.launch("out=ready", "sleep=60")
    attempts.until_running(handle)
    attempts.until_log(handle, b"ready")
    # The next service knows nothing of the first shim, and has not heard from its launcher yet.
    attempts.reopen()
    attempts.launch("sleep=60")
    attempts.backend.stop(handle, why="cancel")
    ended = attempts.end(handle)
    assert isinstance(ended, Ended)
    assert (ended.record.exit_signal, ended.record.stopped) == (15, "cancel")


# ---------------------------------------------------------------- deaths


def test_an_engine_dies_with_its_shim_though_no_service_is_there(attempts: Attempts) -> None:
    handle = attempts.launch("out=ready", "sleep=300")
    shim = psutil.Process(attempts.until_running(handle))
    attempts.until_log(handle, b"ready")
    engines = shim.children()
    assert len(engines) == 1
    attempts.backend.close()
    shim.kill()
    wait_until(lambda: is_dead(engines[0]), what="the engine is dead")
    attempts.backend = attempts._open()
    assert isinstance(attempts.observe(handle), Lost)


_ORPHAN = """
import os, select, sys
from runner.isolation.processes import die_with_parent
parent = os.fork()
if parent == 0:
    parent = os.getpid()
    ended = os.pidfd_open(parent)
    if os.fork() == 0:
        select.select([ended], [], [])
        die_with_parent(parent)
        os.write(1, b"it lives on")
    os._exit(0)
os.waitpid(parent, 0)
"""


def test_a_process_whose_parent_has_died_already_does_not_outlive_it() -> None:
    done = subprocess.run([sys.executable, "-c", _ORPHAN], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    assert done.stdout == b""


# ---------------------------------------------------------------- looking at an attempt


def test_an_attempt_that_starts_while_it_is_looked_at_is_not_called_lost(
    attempts: Attempts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = Handle(attempts.job_id, 1)
    hold = Hold(tmp_path)
    ask = lock_holder
    asked: list[int | None] = []
    with contextlib.closing(Attempts(tmp_path, warm=True)) as other:
        other.job_id = attempts.job_id

        def start_behind_the_first_answer(path: str) -> int | None:
            asked.append(ask(path))
            if len(asked) == 1:
                other.launch(f"wait={hold.path}", "exit=3")
                other.until_running(handle)
                wait_until(lambda: os.path.exists(other.files(handle).started), what="the start mark")
            return asked[-1]

        monkeypatch.setattr(local, "lock_holder", start_behind_the_first_answer)
        observed = attempts.observe(handle)
        assert asked[0] is None
        assert observed == Running()
        hold.release()
        ended: Observation = attempts.end(handle)
    assert isinstance(ended, Ended)
    assert ended.record.exit_code == 3


def test_a_pid_that_means_another_process_by_now_is_neither_waited_for_nor_signalled(
    attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = attempts.launch("out=ready", "sleep=60")
    shim = attempts.until_running(handle)
    attempts.until_log(handle, b"ready")
    attempts.reopen()
    innocent = subprocess.Popen(["/bin/sleep", "60"])
    ask = lock_holder
    # What the kernel said of a holder that has ended since, and whose pid was given out again.
    stale = [innocent.pid]
    monkeypatch.setattr(local, "lock_holder", lambda path: stale.pop() if stale else ask(path))
    try:
        assert attempts.observe(handle) == Running()
        assert attempts.backend.top_pid(handle) == shim
        attempts.backend.stop(handle, why="cancel")
        ended = attempts.end(handle)
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()
    assert isinstance(ended, Ended)
    assert ended.record.stopped == "cancel"


# ---------------------------------------------------------------- apart from the service


def test_launcher_and_shim_are_out_of_reach_of_what_ends_the_service(attempts: Attempts) -> None:
    handle = attempts.launch("sleep=60")
    shim = psutil.Process(attempts.until_running(handle))
    launcher = shim.ppid()
    wait_until(lambda: "shim" in shim.name(), what="the shim is set up")
    assert os.getsid(launcher) == launcher
    assert os.getsid(shim.pid) == shim.pid
    attempts.backend.stop(handle, why="cancel")
    attempts.end(handle)


def test_a_shim_holds_nothing_of_the_service_or_the_launcher(attempts: Attempts) -> None:
    handle = attempts.launch("out=ready", "sleep=60")
    shim = attempts.until_running(handle)
    attempts.until_log(handle, b"ready")
    held = {int(fd): os.readlink(f"/proc/{shim}/fd/{fd}") for fd in os.listdir(f"/proc/{shim}/fd")}
    assert {held.pop(fd) for fd in (0, 1, 2)} == {"/dev/null"}
    assert [target for target in held.values() if target.startswith("socket:")] == []
    of_launcher = {os.readlink(entry.path) for entry in os.scandir(f"/proc/{psutil.Process(shim).ppid()}/fd")}
    assert of_launcher.isdisjoint(held.values())
    attempts.backend.stop(handle, why="cancel")
    attempts.end(handle)


def test_a_stop_that_arrives_before_the_shim_listens_is_kept(traced: Attempts) -> None:
    handle = traced.launch("exit=0")
    tracee = tracing.Tracee(traced.until_running(handle))
    for number, _ in enumerate(tracee.calls()):
        if number == 0:
            traced.backend.stop(handle, why="cancel")
    ended = traced.end(handle)
    assert isinstance(ended, Ended)
    assert (ended.record.exit_code, ended.record.stopped) == (None, "cancel")


def test_a_stop_asked_for_before_the_shim_is_known_is_sent_when_it_is(attempts: Attempts) -> None:
    attempts.end(attempts.launch("exit=0", job_id="first"))  # the launcher is ready
    handle = attempts.launch("out=ready", "sleep=60")
    attempts.until_log(handle, b"ready")
    assert attempts.backend.top_pid(handle) is None  # nobody has listened to the launcher yet
    attempts.backend.stop(handle, why="cancel")
    ended = attempts.end(handle)
    assert isinstance(ended, Ended)
    assert (ended.record.exit_signal, ended.record.stopped) == (15, "cancel")


def test_a_stopped_shim_obeys_a_cancel_at_once(tmp_path: Path) -> None:
    with contextlib.closing(Attempts(tmp_path, warm=True, nudge_every_s=1000)) as attempts:
        handle = attempts.launch("out=ready", "sleep=60")
        shim = psutil.Process(attempts.until_running(handle))
        attempts.until_log(handle, b"ready")
        shim.suspend()
        attempts.backend.stop(handle, why="cancel")
        ended = attempts.end(handle, timeout_s=5)
        with contextlib.suppress(psutil.NoSuchProcess):
            shim.resume()
    assert isinstance(ended, Ended)
    assert ended.record.stopped == "cancel"


def test_a_shim_whose_descriptor_could_not_be_received_is_waited_for(
    attempts: Attempts, tmp_path: Path
) -> None:
    attempts.end(attempts.launch("exit=0", job_id="first"))  # the launcher is ready
    hold = Hold(tmp_path)
    handle = attempts.launch(f"wait={hold.path}", "exit=9")
    wait_until(lambda: os.path.exists(attempts.files(handle).started), what="the attempt to be started")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))  # no descriptor beyond those that are open
    try:
        assert attempts.backend.wait(0.2) == []
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    hold.release()
    ended = attempts.end(handle)
    assert isinstance(ended, Ended)
    assert ended.record.exit_code == 9


def test_a_job_that_removes_the_files_of_its_later_attempt_is_lost_and_not_started_again(
    attempts: Attempts,
) -> None:
    attempts.end(attempts.launch("exit=1"))
    script = "rm -rf ../attempts/2; exit 7"
    assert isinstance(attempts.end(attempts.launch_argv(("/bin/sh", "-c", script), attempt=2)), Lost)


def test_a_withdrawn_attempt_is_found_withdrawn_by_the_next_service(attempts: Attempts) -> None:
    handle = attempts.launch("exit=0")
    attempts.backend.stop(handle, why="cancel")  # before the launcher is ready
    attempts.backend.close()
    attempts.backend = attempts._open()
    ended = attempts.observe(handle)
    assert isinstance(ended, Ended)
    assert (ended.record.exit_code, ended.record.stopped) == (None, "cancel")


def test_a_specification_is_replaced_whole_under_whoever_reads_it(attempts: Attempts) -> None:
    handle = attempts.launch("out=first", "exit=0")
    path = attempts.files(handle).spec
    with open(path, "rb") as reader:
        whole = Path(path).read_bytes()
        attempts.end(handle)
        attempts.launch("out=second, and longer than the first one was", "exit=0")
        assert reader.read() == whole
    assert Path(path).read_bytes() != whole
    attempts.end(handle)


def test_an_exit_just_after_the_deadline_was_waited_for_keeps_its_result(
    traced: Attempts, tmp_path: Path
) -> None:
    hold = Hold(tmp_path)
    handle = traced.launch(f"wait={hold.path}", "exit=5", timeout_s=1.0)
    shim = psutil.Process(traced.until_running(handle))
    calls: list[str] = []
    for call in tracing.Tracee(shim.pid).calls():
        calls.append(call.name)
        if calls[-2:] == ["poll", "read"] and "released" not in calls:
            # Its time is up, and nothing had ended when it looked: the engine ends now.
            (engine,) = shim.children()
            hold.release()
            wait_until(partial(is_dead, engine), what="the engine's end")
            calls.append("released")
    ended = traced.end(handle)
    assert isinstance(ended, Ended)
    assert (ended.record.exit_code, ended.record.stopped) == (5, None)

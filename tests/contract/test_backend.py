"""What every backend promises, with the engine warm (a fork) and cold (an exec)."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest
import structlog.testing

from runner.backends.local import LocalBackend
from runner.ports import Lost, NotStarted, Running
from tests.support.attempts import Attempts, is_over, recorded
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runner.ports import Handle


@pytest.fixture(params=["warm", "cold"])
def attempts(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Attempts]:
    with contextlib.closing(Attempts(tmp_path, warm=request.param == "warm")) as attempts:
        yield attempts


def alive(marker: str) -> list[psutil.Process]:
    """Processes of the job, told by the working directory they were started in."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and marker in process.cwd():
                found.append(process)
    return found


# ---------------------------------------------------------------- results


def launched(attempts: Attempts, act: str, command: str, number: int) -> Handle:
    """An attempt that ends itself: cold by a shell, which starts ten times as fast as an interpreter."""
    if attempts.warm:
        return attempts.launch(act, job_id=f"job-{number}")
    return attempts.launch_argv(("/bin/sh", "-c", command), job_id=f"job-{number}")


def test_every_exit_code_is_recorded_exactly(attempts: Attempts) -> None:
    # The shim sees no difference: of a fork it is enough to see that it hands on what it is told.
    codes = range(0, 256, 17) if attempts.warm else range(256)
    handles = {code: launched(attempts, f"exit={code}", f"exit {code}", code) for code in codes}
    for code, handle in handles.items():
        record = recorded(attempts.end(handle, timeout_s=60))
        assert (record.exit_code, record.exit_signal, record.stopped) == (code, None, None)


DEADLY = sorted(
    set(range(1, 65))
    - {32, 33}  # kept by the C library for itself
    - {signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
    - {signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH}
)


def test_every_deadly_signal_is_recorded_exactly(attempts: Attempts) -> None:
    handles = {n: launched(attempts, f"signal={n}", f"kill -{n} $$", n) for n in DEADLY}
    for number, handle in handles.items():
        record = recorded(attempts.end(handle, timeout_s=60))
        assert (record.exit_code, record.exit_signal, record.stopped) == (None, number, None)


def test_an_uncaught_exception_exits_with_one_and_its_traceback_is_in_the_log(attempts: Attempts) -> None:
    handle = attempts.launch("raise=out of reagents")
    assert recorded(attempts.end(handle)).exit_code == 1
    assert b"RuntimeError: out of reagents" in attempts.log(handle)


@pytest.mark.parametrize("program", ["/nonexistent/engine", "no-such-engine"])
def test_a_missing_program_is_a_launch_error_that_names_it(attempts: Attempts, program: str) -> None:
    record = recorded(attempts.end(attempts.launch_argv((program,))))
    assert record.launch_error is not None
    assert record.launch_error.startswith(f"{program} was not found")
    assert (record.exit_code, record.exit_signal) == (None, None)


def test_a_program_that_is_not_executable_is_a_launch_error(attempts: Attempts, tmp_path: Path) -> None:
    program = tmp_path / "engine"
    program.write_text("#!/bin/sh\n")
    record = recorded(attempts.end(attempts.launch_argv((str(program),))))
    assert record.launch_error == f"{program} may not be executed: check its permissions."


def test_the_record_tells_what_the_job_used(attempts: Attempts) -> None:
    burn = "import os\nwhile sum(os.times()[:2]) < 0.2: pass\nb = bytearray(64 << 20)"
    record = recorded(attempts.end(attempts.launch_argv((sys.executable, "-I", "-S", "-c", burn))))
    assert 0.2 <= record.cpu_s < 2
    assert record.max_rss_bytes > 64 << 20
    assert record.ended_at - record.started_at >= 0.2


# ---------------------------------------------------------------- surroundings


def test_a_job_has_its_own_session_directory_environment_and_descriptors(attempts: Attempts) -> None:
    environment = {"PATH": os.defpath, "GREETING": "grüß Gott"}
    handle = attempts.launch("tell", environment=environment)
    attempts.end(handle)
    facts = json.loads(attempts.log(handle))
    # A Python that starts sets LC_CTYPE itself (PEP 538); everything else is exactly what was given.
    assert {k: v for k, v in facts["environ"].items() if k != "LC_CTYPE"} == environment
    assert facts["cwd"] == attempts.files(handle).work
    assert facts["fds"] == [0, 1, 2]
    assert facts["stdin"] == "/dev/null"
    assert facts["leader"] is True
    assert facts["umask"] == 0o077
    assert facts["open_files"] == 256
    assert facts["blocked"] == []
    assert facts["sigint_default"] is True
    assert facts["nice"] == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 5), "the service comes first"
    if facts["session"] and os.geteuid() == 0:  # others may change it only now and then
        assert facts["session"].endswith(" nice 10\n")


def test_the_workflow_folder_is_copied_once_and_kept_for_the_next_attempt(attempts: Attempts) -> None:
    (attempts.source / "sub").mkdir()
    (attempts.source / "sub" / "tool.sh").write_text("#!/bin/sh\n")
    (attempts.source / "sub" / "tool.sh").chmod(0o755)
    (attempts.source / "link").symlink_to("sub/tool.sh")
    (attempts.source / "big").write_bytes(b"x" * 300_000)
    (attempts.source / ".snakemake").mkdir()
    first = attempts.launch_argv(("/bin/sh", "-c", "cat link; echo made > result; echo gone > sub/tool.sh"))
    assert recorded(attempts.end(first)).exit_code == 0
    second = attempts.launch_argv(("/bin/sh", "-c", "cat result sub/tool.sh; ls -A; wc -c < big"), attempt=2)
    assert recorded(attempts.end(second)).exit_code == 0
    assert attempts.log(first) == b"#!/bin/sh\n"
    assert attempts.log(second) == b"made\ngone\nbig\nlink\nresult\nsub\n300000\n"
    assert (attempts.source / "sub" / "tool.sh").read_text() == "#!/bin/sh\n"


def test_processes_are_recognised_in_a_process_list(attempts: Attempts, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "hold")
    handle = attempts.launch(f"wait={tmp_path / 'hold'}", job_id="title")
    shim = psutil.Process(attempts.until_running(handle))
    wait_until(lambda: f"shim of job {handle.job_id}/1" in " ".join(shim.cmdline()), what="the shim's title")
    assert shim.name() == "snakeline-shim"
    if attempts.warm:
        wait_until(
            lambda: any(f"job {handle.job_id}/1" in " ".join(c.cmdline()) for c in shim.children()),
            what="the job's title",
        )
    (tmp_path / "hold").write_bytes(b"")
    attempts.end(handle)


# ---------------------------------------------------------------- order and starts


def test_prepare_commands_run_first_and_a_failing_one_ends_the_attempt(attempts: Attempts) -> None:
    good = attempts.launch("out=main", prepare=(attempts.actor("out=first "),), job_id="good")
    assert recorded(attempts.end(good)).exit_code == 0
    assert attempts.log(good) == b"first main"
    bad = attempts.launch("out=main", prepare=(attempts.actor("out=first", "exit=9"),), job_id="bad")
    assert recorded(attempts.end(bad)).exit_code == 9
    assert attempts.log(bad) == b"first"


def test_an_attempt_launched_twice_is_started_once(attempts: Attempts, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "hold")
    acts = (f"count={tmp_path / 'starts'}", f"wait={tmp_path / 'hold'}")
    attempts.launch(*acts)
    handle = attempts.launch(*acts)
    attempts.until_running(handle)
    wait_until((tmp_path / "starts").exists, what="the first start")
    attempts.launch(*acts)
    (tmp_path / "hold").write_bytes(b"")
    assert recorded(attempts.end(handle)).exit_code == 0
    attempts.launch(*acts)
    assert recorded(attempts.end(handle)).exit_code == 0
    assert len((tmp_path / "starts").read_text().splitlines()) == 1


def test_an_attempt_never_launched_is_not_started(attempts: Attempts) -> None:
    handle = attempts.launch("exit=0")
    attempts.end(handle)
    other = type(handle)("another", 1)
    assert attempts.observe(other) == NotStarted()


# ---------------------------------------------------------------- stopping


def test_a_stop_ends_a_willing_job_with_sigterm(attempts: Attempts) -> None:
    handle = attempts.launch("exit-on-term=42", "out=ready", "sleep=60")
    attempts.until_running(handle)
    attempts.until_log(handle, b"ready")
    attempts.backend.stop(handle, why="cancel")
    attempts.backend.stop(handle, why="cancel")
    record = recorded(attempts.end(handle))
    assert (record.exit_code, record.stopped) == (42, "cancel")


def test_a_job_that_ignores_sigterm_is_killed_after_the_grace_and_not_before(attempts: Attempts) -> None:
    handle = attempts.launch("ignore-term", "out=ready", "sleep=60")
    attempts.until_running(handle)
    attempts.until_log(handle, b"ready")
    began = time.monotonic()
    attempts.backend.stop(handle, why="cancel")
    record = recorded(attempts.end(handle))
    assert (record.exit_signal, record.stopped) == (signal.SIGKILL, "cancel")
    assert time.monotonic() - began >= 0.5


def test_a_forced_stop_does_not_wait_for_the_grace(attempts: Attempts, tmp_path: Path) -> None:
    with contextlib.closing(Attempts(tmp_path, warm=attempts.warm, stop_grace_s=60)) as patient:
        handle = patient.launch("ignore-term", "out=ready", "sleep=60", job_id="forced")
        patient.until_running(handle)
        patient.until_log(handle, b"ready")
        patient.backend.stop(handle, why="cancel")
        patient.backend.stop(handle, why="cancel", force=True)
        record = recorded(patient.end(handle))
    assert (record.exit_signal, record.stopped) == (signal.SIGKILL, "cancel")


def test_a_stop_asked_for_before_the_start_is_kept(attempts: Attempts, tmp_path: Path) -> None:
    handle = attempts.launch("sleep=60")
    attempts.backend.stop(handle, why="cancel")
    record = recorded(attempts.end(handle))
    assert record.stopped == "cancel"
    assert record.exit_code is None


def test_an_exit_that_beats_the_stop_keeps_its_own_result(attempts: Attempts) -> None:
    handle = attempts.launch("exit=0")
    pid = attempts.until_running(handle)
    wait_until(lambda: os.path.exists(attempts.files(handle).exit), what="the record")
    attempts.backend.stop(handle, why="cancel")
    record = recorded(attempts.end(handle))
    assert (record.exit_code, record.stopped) == (0, None)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("kind", ["plain", "setsid", "daemon"])
def test_a_stop_leaves_no_descendant_behind(attempts: Attempts, kind: str) -> None:
    handle = attempts.launch("ignore-term", f"spawn={kind}", "out=ready", "sleep=60")
    attempts.until_running(handle)
    attempts.until_log(handle, b"ready")
    work = attempts.files(handle).work
    wait_until(lambda: len(alive(work)) >= 2, what="the child runs")
    attempts.backend.stop(handle, why="cancel")
    assert recorded(attempts.end(handle)).survivors == 0
    assert alive(work) == []


def test_what_a_job_leaves_running_is_ended_with_it_and_its_result_stays(attempts: Attempts) -> None:
    handle = attempts.launch("spawn=plain", "spawn=setsid", "spawn=daemon", "spawn=stubborn", "exit=0")
    record = recorded(attempts.end(handle))
    assert (record.exit_code, record.stopped, record.survivors) == (0, None, 0)
    assert alive(attempts.files(handle).work) == []


def test_the_deadline_ends_a_job_and_is_told_apart_from_a_stop(attempts: Attempts) -> None:
    if attempts.warm:
        handle = attempts.launch("ignore-term", "sleep=60", timeout_s=1.0)
    else:  # an interpreter might not have come so far in a second
        handle = attempts.launch_argv(("/bin/sh", "-c", "trap '' TERM; sleep 60"), timeout_s=1.0)
    record = recorded(attempts.end(handle))
    assert (record.exit_signal, record.stopped) == (signal.SIGKILL, "timeout")
    assert record.ended_at - record.started_at >= 1.5


# ---------------------------------------------------------------- deaths


def test_a_new_backend_finds_a_running_attempt_and_reports_its_end(
    attempts: Attempts, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "hold")
    handle = attempts.launch(f"wait={tmp_path / 'hold'}", "exit=17")
    attempts.until_running(handle)
    # Forked, it has not taken its lock yet; nobody would know of it.
    wait_until(lambda: os.path.exists(attempts.files(handle).started), what="the start")
    attempts.reopen()
    assert attempts.observe(handle) == Running()
    (tmp_path / "hold").write_bytes(b"")
    assert recorded(attempts.end(handle)).exit_code == 17


def test_a_new_backend_can_stop_a_running_attempt(attempts: Attempts) -> None:
    handle = attempts.launch("sleep=60")
    attempts.until_running(handle)
    # Forked, it has not taken its lock yet; nobody would know of it.
    wait_until(lambda: os.path.exists(attempts.files(handle).started), what="the start")
    attempts.reopen()
    assert attempts.observe(handle) == Running()
    attempts.backend.stop(handle, why="cancel")
    assert recorded(attempts.end(handle)).stopped == "cancel"


def test_an_exit_that_nobody_watched_is_found_afterwards(attempts: Attempts) -> None:
    handle = attempts.launch("exit=23")
    attempts.until_running(handle)
    attempts.backend.close()
    attempts.backend = LocalBackend(
        data_dir=str(attempts.data_dir),
        python=sys.executable,
        warm=lambda: None,
        log_limit_bytes=2**20,
        stop_grace_s=1,
        open_files=256,
    )
    wait_until(lambda: is_over(attempts.observe(handle)), what="the end")
    assert recorded(attempts.observe(handle)).exit_code == 23


def test_killing_the_launcher_disturbs_no_job_and_the_next_launch_works(
    attempts: Attempts, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "hold")
    held = attempts.launch(f"wait={tmp_path / 'hold'}", "exit=5", job_id="held")
    shim = psutil.Process(attempts.until_running(held))
    launcher = shim.parent()
    assert launcher is not None
    launcher.kill()
    after = attempts.launch("exit=6", job_id="after")
    assert recorded(attempts.end(after)).exit_code == 6
    (tmp_path / "hold").write_bytes(b"")
    assert recorded(attempts.end(held)).exit_code == 5


def test_a_killed_shim_is_a_lost_attempt_whose_processes_are_gone(attempts: Attempts) -> None:
    handle = attempts.launch("spawn=plain", "out=ready", "sleep=60")
    shim = psutil.Process(attempts.until_running(handle))
    attempts.until_log(handle, b"ready")
    shim.kill()
    assert isinstance(attempts.end(handle), Lost)
    work = attempts.files(handle).work
    wait_until(lambda: alive(work) == [], what="its processes are gone")


def test_a_lost_attempt_is_never_started_again(attempts: Attempts, tmp_path: Path) -> None:
    acts = (f"count={tmp_path / 'starts'}", "sleep=60")
    handle = attempts.launch(*acts)
    shim = psutil.Process(attempts.until_running(handle))
    starts = tmp_path / "starts"
    wait_until(lambda: starts.exists() and starts.read_text(), what="the start")
    shim.kill()
    assert isinstance(attempts.end(handle), Lost)
    attempts.launch(*acts)
    assert isinstance(attempts.end(handle), Lost)
    assert len(starts.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"format": 1}', b'{"format": 2}', b"\xff\xfe", b'{"format":1,"exit_code":300}'],
)
def test_a_damaged_record_is_a_lost_attempt_and_no_result(attempts: Attempts, content: bytes) -> None:
    handle = attempts.launch("exit=0")
    attempts.end(handle)
    with open(attempts.files(handle).exit, "wb") as file:
        file.write(content)
    with structlog.testing.capture_logs() as told:
        assert isinstance(attempts.observe(handle), Lost)
    assert [entry["event"] for entry in told] == ["attempt.record_damaged"]
    with open(attempts.files(handle).exit + ".damaged", "rb") as kept:
        assert kept.read() == content
    assert isinstance(attempts.observe(handle), Lost), "and it stays so"

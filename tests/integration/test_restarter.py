"""What starts the service again: after a crash, never after an end of its own, and not for ever."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from snakeline import restarter
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

# Ends as the plan says of its n-th run: with a code, by a signal (negative), or when it is told to.
SERVICE = """
import os, signal, sys
runs, plan = sys.argv[1], sys.argv[2].split(",")
with open(runs, "a") as told:
    print(os.getpid(), file=told)
with open(runs) as told:
    ends = plan[min(len(told.readlines()), len(plan)) - 1]
if ends == "wait":
    signal.pause()
elif ends == "counts":
    def count(number, frame):
        with open(runs + ".signals", "a") as told:
            print(signal.Signals(number).name, file=told)
        if number != signal.SIGUSR1:
            raise SystemExit(7)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, count)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))
    open(runs + ".ready", "w").close()
    while True:
        signal.pause()
elif int(ends) < 0:
    signal.raise_signal(-int(ends))
    signal.pause()
else:
    sys.exit(int(ends))
"""


class Restarted:
    """A restarter and the services it runs."""

    def __init__(
        self, folder: Path, plan: str, *, through: Sequence[str] = (), stderr: int | None = None
    ) -> None:
        self.folder = folder
        self._runs = folder / "runs"
        service = [*through, sys.executable, "-I", "-S", "-c", SERVICE, str(self._runs), plan]
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", restarter.__file__, *service],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log if stderr is None else stderr,
            )

    @property
    def pids(self) -> list[int]:
        return [int(pid) for pid in self._runs.read_text().split()] if self._runs.exists() else []

    def told(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text().splitlines()]

    def until_run(self, number: int) -> int:
        """The pid of the service's n-th run, once there is one."""
        return wait_until(lambda: self.pids[number - 1 :], timeout_s=20, what=f"run {number}")[0]

    def signals(self) -> list[str]:
        path = self.folder / "runs.signals"
        return path.read_text().split() if path.exists() else []

    def until_ready(self) -> None:
        wait_until((self.folder / "runs.ready").exists, what="the service's handlers")


@contextmanager
def restarted(folder: Path, plan: str, **options: Any) -> Iterator[Restarted]:
    service = Restarted(folder, plan, **options)
    try:
        yield service
    finally:
        service.process.kill()
        service.process.wait()
        for pid in service.pids[-1:]:
            kill(pid)


def kill(pid: int) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)


@pytest.mark.parametrize("code", [0, 2])
def test_a_service_that_ends_or_cannot_start_is_not_started_again(tmp_path: Path, code: int) -> None:
    with restarted(tmp_path, str(code)) as service:
        assert service.process.wait(20) == code
        assert len(service.pids) == 1
        assert service.told() == []


def test_a_service_that_is_killed_is_started_again(tmp_path: Path) -> None:
    with restarted(tmp_path, "wait,0") as service:
        kill(service.until_run(1))
        assert service.process.wait(20) == 0
        assert len(service.pids) == 2
        (told,) = service.told()
        assert told["event"] == "service.crashed"
        assert "by SIGKILL" in told["detail"]


def test_an_end_with_another_code_is_a_crash(tmp_path: Path) -> None:
    with restarted(tmp_path, "1,0") as service:
        assert service.process.wait(20) == 0
        assert len(service.pids) == 2


def test_what_cannot_start_after_a_crash_is_tried_again(tmp_path: Path) -> None:
    with restarted(tmp_path, "-9,2,0") as service:
        assert service.process.wait(20) == 0
        assert len(service.pids) == 3


@pytest.mark.parametrize(("plan", "code", "how"), [("-9", 137, "by SIGKILL"), ("3", 3, "with exit code 3")])
def test_one_that_crashes_again_and_again_is_given_up(tmp_path: Path, plan: str, code: int, how: str) -> None:
    with restarted(tmp_path, plan) as service:
        assert service.process.wait(30) == code
        assert len(service.pids) == restarter.MAX_CRASHES
        last = service.told()[-1]
        assert last["event"] == "service.given_up"
        assert how in last["detail"]


def test_a_log_that_nobody_reads_any_more_holds_up_no_start(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    try:
        with restarted(tmp_path, "-9,-9,0", stderr=writer) as service:
            assert service.process.wait(20) == 0
            assert len(service.pids) == 3
    finally:
        os.close(reader)
        os.close(writer)


def test_a_service_for_which_no_process_can_be_made_after_a_crash_is_waited_for(tmp_path: Path) -> None:
    program = tmp_path / "env"
    program.symlink_to("/usr/bin/env")
    with restarted(tmp_path, "wait,0", through=[str(program)]) as service:
        first = service.until_run(1)
        program.unlink()
        kill(first)
        wait_until(lambda: len(service.told()) >= 3, timeout_s=20, what="two tries")
        assert [line["event"] for line in service.told()][:3] == [
            "service.crashed",
            *["service.not_started"] * 2,
        ]
        program.symlink_to("/usr/bin/env")
        assert service.process.wait(20) == 0
        assert len(service.pids) == 2


def test_a_signal_to_stop_ends_the_wait_for_a_process(tmp_path: Path) -> None:
    program = tmp_path / "env"
    program.symlink_to("/usr/bin/env")
    with restarted(tmp_path, "wait", through=[str(program)]) as service:
        first = service.until_run(1)
        program.unlink()
        kill(first)
        wait_until(lambda: len(service.told()) >= 2, timeout_s=20, what="a try")
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(20) == 128 + signal.SIGTERM


def test_a_command_that_is_not_there_is_told_and_not_waited_for(tmp_path: Path) -> None:
    with restarted(tmp_path, "wait", through=[str(tmp_path / "nowhere")]) as service:
        assert service.process.wait(20) == restarter.EXIT_CANNOT_START
        assert [line["event"] for line in service.told()] == ["service.not_started"]


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_stop_is_passed_on_once_and_the_services_code_is_ours(
    tmp_path: Path, told: signal.Signals
) -> None:
    with restarted(tmp_path, "counts") as service:
        service.until_ready()
        service.process.send_signal(told)
        assert service.process.wait(20) == 7
        assert service.signals() == [told.name]
        assert len(service.pids) == 1


def test_other_signals_are_passed_on_and_stop_nothing(tmp_path: Path) -> None:
    with restarted(tmp_path, "counts,0") as service:
        service.until_ready()
        service.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: service.signals() == ["SIGUSR1"], what="the signal")
        kill(service.until_run(1))
        assert service.process.wait(20) == 0
        assert len(service.pids) == 2


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGHUP])
def test_a_service_that_a_signal_to_stop_has_ended_stays_so(tmp_path: Path, told: signal.Signals) -> None:
    with restarted(tmp_path, "wait") as service:
        service.until_run(1)
        service.process.send_signal(told)
        assert service.process.wait(20) == 128 + told
        assert len(service.pids) == 1


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGHUP])
def test_told_to_stop_after_a_crash_it_starts_one_more_that_is_told_so_as_soon_as_it_can_heed_it(
    tmp_path: Path, told: signal.Signals
) -> None:
    with restarted(tmp_path, "-9,-9,-9,counts") as service:
        wait_until(lambda: len(service.told()) == 3, timeout_s=20, what="the third pause, of a second")
        service.process.send_signal(told)
        assert service.process.wait(20) == 7
        assert service.signals() == ["SIGTERM"]
        assert len(service.pids) == 4


def test_one_that_crashes_when_it_is_started_to_stop_is_the_last(tmp_path: Path) -> None:
    with restarted(tmp_path, "-9") as service:
        wait_until(lambda: len(service.told()) == 3, timeout_s=20, what="the third pause, of a second")
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(20) == 128 + signal.SIGKILL
        assert len(service.pids) == 4


def test_one_that_crashes_before_it_has_heeded_a_signal_to_stop_is_followed_by_one_that_does(
    tmp_path: Path,
) -> None:
    with restarted(tmp_path, "-9,wait,counts") as service:
        second = service.until_run(2)  # in which the signal is held back for good
        service.process.send_signal(signal.SIGTERM)
        wait_until(lambda: pending(second, signal.SIGTERM), what="the signal at the second")
        kill(second)
        assert service.process.wait(20) == 7
        assert service.signals() == ["SIGTERM"]
        assert len(service.pids) == 3


def pending(pid: int, number: signal.Signals) -> bool:
    with open(f"/proc/{pid}/status", encoding="ascii") as told:
        mask = next(line for line in told if line.startswith("ShdPnd:")).split()[1]
    return bool(int(mask, 16) >> (number - 1) & 1)


def test_ctrl_c_in_a_terminal_reaches_the_service_once(tmp_path: Path) -> None:
    with restarted(tmp_path, "counts") as service:
        service.until_ready()
        assert os.getpgid(service.pids[0]) == service.pids[0] != os.getpgid(service.process.pid)

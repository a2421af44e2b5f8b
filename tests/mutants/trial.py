"""Runs some tests in a copy of the project, and ends every process they leave behind.

`python -m tests.mutants.trial COPY SCRATCH LIMIT_S PYTEST-ARGUMENT...`. What came of it is one line of
JSON. The process is a subreaper: whatever a service, a shim or a job of the trial does to escape comes
back to it as a child, and is killed at the end, which is also that of whoever started the trial.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from runner.isolation.processes import become_subreaper, kill_descendants, reap
from tests.mutants.reporter import VARIABLE

_PR_SET_PDEATHSIG = 1
_KILL_WITHIN_S = 20.0
_LOOK_MS = 100
_BEGIN_WITHIN_S = 120.0
_AFTER_FAILURE_S = 5.0  # a runner that a failed test did not close may keep pytest from ending


@dataclass
class Result:
    """What a trial found.

    `hung` names the test that did not end in time, `trouble` says what kept the trial from finding out.
    """

    failed: list[str] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    hung: str | None = None
    trouble: str | None = None
    duration_s: float = 0.0
    output: str = ""


def main(arguments: list[str]) -> int:
    copy, scratch, limit_s, *chosen = arguments
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    become_subreaper()
    try:
        result = _run(Path(copy), Path(scratch), float(limit_s), chosen)
    finally:
        left = kill_descendants(within_s=_KILL_WITHIN_S)
        _unmount(Path(scratch))
    if left:
        result.trouble = f"{left} processes could not be ended"
    print(json.dumps(asdict(result)))  # noqa: T201 - for the one who asked
    return 0


def _run(copy: Path, scratch: Path, limit_s: float, chosen: list[str]) -> Result:
    report, output, temporary = scratch / "report", scratch / "output", scratch / "tmp"
    temporary.mkdir()
    surroundings = {
        **os.environ,  # noqa: TID251 - handed on to a child
        "PYTHONPATH": str(copy),
        "TMPDIR": str(temporary),
        VARIABLE: str(report),
    }
    options = ["-v", "--tb=short", "-p", "no:cacheprovider", "-p", "tests.mutants.reporter"]
    command = [sys.executable, "-m", "pytest", *options, "--basetemp", str(temporary / "pytest"), *chosen]
    began = time.monotonic()
    with output.open("wb") as file:
        pytest = subprocess.Popen(
            command,
            cwd=copy,
            env=surroundings,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    in_time = _ended(pytest, report, limit_s, until_failure="-x" in chosen)
    result, last_begun = _understood(report, copy)
    result.duration_s = round(time.monotonic() - began, 1)
    result.output = output.read_text(errors="replace")[-4000:]
    if not in_time and not result.failed:
        result.hung = last_begun
    if last_begun is None:
        result.trouble = result.trouble or "no test has begun"
    elif in_time and pytest.returncode not in (0, 1):
        result.trouble = result.trouble or f"pytest ended with {pytest.returncode}"
    return result


def _ended(process: subprocess.Popen[bytes], report: Path, limit_s: float, *, until_failure: bool) -> bool:
    """Whether it ended within `limit_s` of the first test's beginning, or soon `until_failure`.

    Meanwhile orphans are collected, so that none lingers as a zombie.
    """
    deadline = time.monotonic() + _BEGIN_WITHIN_S
    has_begun = has_failed = False
    handle = os.pidfd_open(process.pid)
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        while not poll.poll(_LOOK_MS):
            now = time.monotonic()
            told = report.read_bytes() if report.exists() else b""
            if not has_begun and b'{"begun"' in told:
                has_begun, deadline = True, now + limit_s
            if until_failure and not has_failed and b'{"failed"' in told:
                has_failed, deadline = True, min(deadline, now + _AFTER_FAILURE_S)
            if now > deadline:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                process.wait()
                return False
            _collect_orphans(process.pid)
        process.wait()
        return True
    finally:
        os.close(handle)
        reap()


def _collect_orphans(but: int) -> None:
    while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
        if ended.si_pid == but:
            return
        os.waitpid(ended.si_pid, 0)


def _understood(report: Path, copy: Path) -> tuple[Result, str | None]:
    """What was told, and which test was the last to begin."""
    result, last_begun = Result(), None
    for line in report.read_text().splitlines() if report.exists() else ():
        match json.loads(line):
            case {"runner": path} if not Path(path).is_relative_to(copy):
                result.trouble = f"it tested {path} instead of the copy"
            case {"begun": test}:
                last_begun = test
            case {"failed": test, "hangs": hangs}:
                result.failed.append(test)
                result.hung = test if hangs else result.hung
            case {"passed": test}:
                result.passed.append(test)
            case {"skipped": test, "why": why}:
                result.skipped[test] = why
            case _:
                pass
    return result, last_begun


def _unmount(scratch: Path) -> None:
    """Give back the file systems and loop devices of tests that were killed."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
        points = [line.split(" ")[4] for line in mounts]
    for point in reversed(points):
        if Path(point).is_relative_to(scratch):
            subprocess.run(["umount", "-l", point], check=False, capture_output=True)
    for device in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            if Path(device.read_text().split(" (deleted)")[0].strip()).is_relative_to(scratch):
                loop = f"/dev/{device.parts[3]}"
                subprocess.run(["losetup", "--detach", loop], check=False, capture_output=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

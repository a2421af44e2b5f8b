"""`snakeline demo` from start to end: what it shows, and that it leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

SNAKEMAKE = Path(__file__).parents[2] / ".venv-snakemake/bin/snakemake"


def start_demo(directory: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "snakeline", "demo", *arguments],
        # A setting of the caller's would stop the demo's own service, if it reached it.
        env={
            "PATH": "/usr/bin:/bin",
            "TMPDIR": str(directory),
            "COLUMNS": "120",
            "SNAKELINE_NONSENSE": "1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def processes_of(directory: Path) -> list[psutil.Process]:
    """Every process that was started for something below this directory."""
    found = []
    for process in psutil.process_iter():
        try:
            told = [*process.cmdline(), *process.environ().values(), process.cwd()]
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if process.pid != os.getpid() and any(str(directory) in text for text in told):
            found.append(process)
    return found


def assert_nothing_is_left(directory: Path) -> None:
    assert list(directory.iterdir()) == []
    assert processes_of(directory) == []


def rows_of(output: str) -> list[str]:
    return re.findall(r"^[0-9a-f-]{36} .*$", output, re.MULTILINE)


def test_the_demo_runs_ten_jobs_on_the_stand_in_and_says_so(tmp_path: Path) -> None:
    demo = start_demo(tmp_path)
    output, errors = demo.communicate(timeout=60)
    assert demo.returncode == 0, errors
    assert errors == ""
    assert "Engine   mock, a stand-in" in output
    assert "│ Building DAG of jobs..." in output
    rows = rows_of(output)
    assert len(rows) == 10
    assert all(re.search(r"✓ completed +exited_zero +0 |✗ failed +exited_nonzero +1 ", row) for row in rows)
    assert re.search(r"failing +✗ failed +exited_nonzero +1 ", rows[-1])
    assert_nothing_is_left(tmp_path)


@pytest.mark.snakemake
@pytest.mark.skipif(not SNAKEMAKE.exists(), reason="real Snakemake is not installed: make snakemake-env")
def test_the_demo_runs_ten_jobs_on_real_snakemake_and_shows_their_result(tmp_path: Path) -> None:
    demo = start_demo(tmp_path, "--engine", "snakemake", "--snakemake", str(SNAKEMAKE))
    output, errors = demo.communicate(timeout=100)
    assert demo.returncode == 0, errors
    assert "Engine   real Snakemake 9" in output
    assert len(re.findall(r"✓ completed +exited_zero +0 ", output)) == 10
    assert "10 completed" in output
    assert re.search(r"^word +harbour +mountain +orchard +winter +total$", output, re.MULTILINE)
    assert re.search(r"^water +4 +2 +0 +1 +7$", output, re.MULTILINE)
    assert_nothing_is_left(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.soak)])
def test_an_interrupted_demo_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    demo = start_demo(tmp_path)
    assert demo.stdout is not None
    for line in demo.stdout:
        if "Building DAG" in line:
            break
    # Ctrl-C reaches everything that the terminal sees in the foreground; SIGTERM is for one process.
    foreground = [p for p in processes_of(tmp_path) if os.getpgid(p.pid) == demo.pid]
    for process in foreground if number == signal.SIGINT else [demo]:
        process.send_signal(number)
    demo.communicate(timeout=60)
    assert demo.returncode not in (0, None)
    assert_nothing_is_left(tmp_path)


@pytest.mark.soak
def test_keep_leaves_the_data_and_no_process(tmp_path: Path) -> None:
    demo = start_demo(tmp_path, "--keep")
    output, _ = demo.communicate(timeout=60)
    [kept] = tmp_path.iterdir()
    assert f"Kept: {kept}" in output
    assert len(list((kept / "data/jobs").iterdir())) == 10
    assert processes_of(tmp_path) == []


def test_without_snakemake_the_demo_says_in_one_line_what_to_do(tmp_path: Path) -> None:
    demo = start_demo(tmp_path, "--engine", "snakemake", "--snakemake", "/nowhere/snakemake")
    output, errors = demo.communicate(timeout=60)
    assert demo.returncode == 1
    assert output == ""
    assert errors.count("\n") == 1
    assert "make snakemake-env" in errors
    assert_nothing_is_left(tmp_path)

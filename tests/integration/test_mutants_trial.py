"""A trial of a mutant: what it tells of its tests, and that nothing of it is left."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants.guards import ROOT
from tests.mutants.trial import Result
from tests.support.wait import wait_until

_TESTS = """
import os, subprocess, sys, time
from pathlib import Path
def test_first():
    pass
def test_second():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
    Path(os.environ["PYTHONPATH"], "escaped").write_text(str(child.pid))
    assert Path("there").exists() or time.sleep(300)
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    copy = tmp_path / "copy"
    for package in ("runner", "tests", "tests/mutants"):
        (copy / package).mkdir(parents=True, exist_ok=True)
        (copy / package / "__init__.py").touch()
    shutil.copy(ROOT / "tests/mutants/reporter.py", copy / "tests/mutants")
    (copy / "tests" / "test_it.py").write_text(_TESTS)
    (copy / "pytest.ini").touch()
    return copy


def tried(copy: Path, limit_s: float, *arguments: str) -> Result:
    scratch = copy.with_name("scratch")
    scratch.mkdir()
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.mutants.trial",
            copy,
            scratch,
            str(limit_s),
            "tests/test_it.py",
            *arguments,
        ],
        cwd=ROOT,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},  # noqa: TID251 - they take a second to load
        stdout=subprocess.PIPE,
        check=True,
    )
    return Result(**json.loads(done.stdout))


def is_gone(copy: Path) -> bool:
    return not os.path.exists(f"/proc/{(copy / 'escaped').read_text()}")


def test_what_passes_and_what_fails_is_told_and_what_escaped_is_ended(copy: Path) -> None:
    (copy / "tests" / "test_it.py").write_text(_TESTS.replace(" or time.sleep(300)", ""))
    result = tried(copy, 60)
    assert (result.passed, result.failed) == (
        ["tests/test_it.py::test_first"],
        ["tests/test_it.py::test_second"],
    )
    assert (result.hung, result.trouble) == (None, None)
    wait_until(lambda: is_gone(copy), what="the process that escaped is gone")


def test_a_test_that_hangs_is_named_and_ended(copy: Path) -> None:
    result = tried(copy, 1)
    assert result.hung == "tests/test_it.py::test_second"
    assert result.failed == []
    wait_until(lambda: is_gone(copy), what="the process that escaped is gone")


def test_a_trial_of_anything_but_the_copy_tells_nothing(copy: Path) -> None:
    shutil.rmtree(copy / "runner")
    result = tried(copy, 60, "-k", "first")
    assert result.trouble is not None
    assert result.trouble.startswith(f"it tested {ROOT}")

"""`make install`, with a Python in place of the real one that notes what it is asked for."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PYTHON = """#!/bin/sh
# What `-m venv` makes is this program again; what pip is asked for stands in the environment's `asked`.
case "$*" in
  "-m venv "*)
    for folder; do :; done
    mkdir -p "$folder/bin"
    touch "$folder/pyvenv.cfg"
    cat "$0" > "$folder/bin/python"
    chmod a+x "$folder/bin/python" ;;
  *" wheel "*)
    while [ "$1" != --wheel-dir ]; do shift; done
    touch "$2/snakeline-0-py3-none-any.whl" ;;
  *" install "*)
    echo "$*" >> "$(dirname "$0")/../asked" ;;
esac
"""


@pytest.fixture
def python(tmp_path: Path) -> Path:
    program = tmp_path / "python3"
    program.write_text(PYTHON)
    program.chmod(0o755)
    return program


def install(python: Path, prefix: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "-C", str(ROOT), "install", f"PREFIX={prefix}", f"PYTHON={python}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        umask=0o077,
    )


def test_everybody_may_read_what_is_installed_whatever_the_umask(python: Path, tmp_path: Path) -> None:
    # The service and its jobs have users of their own.
    prefix = tmp_path / "new folder"
    outcome = install(python, prefix)
    assert outcome.returncode == 0, outcome.stderr
    assert (prefix / "snakemake/asked").exists()
    closed = [p for p in (prefix, *prefix.rglob("*")) if not stat.S_IMODE(p.stat().st_mode) & stat.S_IROTH]
    assert closed == []


def test_all_is_from_lock_files_and_a_second_install_replaces_the_project(
    python: Path, tmp_path: Path
) -> None:
    prefix = tmp_path / "prefix"
    for times in (1, 2):
        assert install(python, prefix).returncode == 0
        packages, project = (prefix / "asked").read_text().splitlines()[-2:]
        assert packages.endswith("--require-hashes -r requirements-otel.lock")
        assert "--no-index --force-reinstall" in project
        assert project.endswith("/snakeline-0-py3-none-any.whl")
        engine = (prefix / "snakemake/asked").read_text().splitlines()
        assert len(engine) == times
        assert engine[-1].endswith("--require-hashes -r requirements-snakemake.lock")


def test_a_folder_with_something_else_in_it_is_left_alone(python: Path, tmp_path: Path) -> None:
    prefix = tmp_path / "mine"
    prefix.mkdir()
    (prefix / "thesis").touch()
    outcome = install(python, prefix)
    assert outcome.returncode != 0
    assert f"{prefix} holds something else" in outcome.stderr
    assert [path.name for path in prefix.iterdir()] == ["thesis"]


def test_where_nothing_can_be_written_one_line_says_what_to_do(python: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    outcome = install(python, tmp_path / "file/prefix")
    assert outcome.returncode != 0
    assert "cannot be written: be root, or name a folder of yours" in outcome.stderr

"""`snakeline check --repair` as an operator uses it."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from runner.data_dir import DataDir
from snakeline.cli import app
from tests.support.command import snakeline
from tests.support.runners import RunningRunner, settings_for

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A data directory with one ended job, whose exit record is nonsense, and a folder of nobody."""
    with closing(RunningRunner(settings_for(tmp_path / "data"))) as runner:
        job = runner.ended(runner.submit())
        (runner.job_dir(job) / "attempts/1/exit.json").write_text("nonsense")
    (tmp_path / "data/jobs/unknown").mkdir()
    return tmp_path


def test_it_says_what_it_would_do_and_does_it_when_told_to(damaged: Path) -> None:
    said = snakeline("check", "--repair", cwd=damaged)
    assert (said.returncode, said.stderr) == (1, "")
    assert "exit.json: exit.json cannot be read" in said.stdout
    assert "would be: renamed to exit.json.damaged" in said.stdout
    assert "would be: moved to orphans/" in said.stdout
    assert "Nothing was changed." in said.stdout
    assert (damaged / "data/jobs/unknown").is_dir()
    done = snakeline("check", "--repair", "--yes", "--json", cwd=damaged)
    report = json.loads(done.stdout)
    assert (done.returncode, report["ok"], report["applied"]) == (0, True, True)
    assert {(f["kind"], f["done"], f["failure"]) for f in report["findings"]} == {
        ("exit_record_damaged", True, None),
        ("orphan", True, None),
    }
    again = snakeline("check", "--repair", cwd=damaged)
    assert (again.returncode, again.stdout) == (0, "Nothing is damaged.\n")


def test_a_running_service_and_a_lonely_yes_are_refused(damaged: Path) -> None:
    here = {"SNAKELINE_DATA_DIR": str(damaged / "data")}
    with closing(DataDir(damaged / "data")):
        refused = CliRunner().invoke(app, ["check", "--repair", "--yes"], env=here)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "in use" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert CliRunner().invoke(app, ["check", "--yes"], env=here).exit_code == 2
    assert (damaged / "data/jobs/unknown").is_dir()

"""`snakeline backup` and `restore` as an operator uses them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from snakeline.cli import app
from tests.support.command import snakeline
from tests.support.server import running_server

if TYPE_CHECKING:
    from pathlib import Path


def test_a_backup_of_a_running_service_is_put_back_once_it_has_stopped(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        kept = server.client.post("/jobs", json={}).json()["id"]
        taken = snakeline("backup", "b.db", cwd=tmp_path)
        assert (taken.returncode, taken.stderr) == (0, "")
        assert taken.stdout.startswith("b.db: 1 job, ")
        later = server.client.post("/jobs", json={}).json()["id"]
        refused = snakeline("restore", "b.db", cwd=tmp_path)
        assert refused.returncode == 2
        assert "in use" in refused.stderr
    done = snakeline("restore", "b.db", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 job from b.db" in done.stdout
    assert "snakeline.db.before-restore-" in done.stdout
    assert "1 of the folders" in done.stdout
    with running_server(tmp_path) as server:
        assert server.client.get(f"/jobs/{kept}").status_code == 200
        assert server.client.get(f"/jobs/{later}").status_code == 404


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("backup", "missing/b.db"), "missing/b.db cannot be written"),
        (("backup", "."), "directory"),
        (("backup", "b.db"), "no store"),
        (("restore", "b.db"), "no backup b.db"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if said != "no store":
        (tmp_path / "data").mkdir()
        (tmp_path / "data/snakeline.db").touch()
    outcome = CliRunner().invoke(app, arguments, env={"SNAKELINE_DATA_DIR": str(tmp_path / "data")})
    assert (outcome.exit_code, outcome.stdout) == (2, "")
    assert outcome.stderr.startswith("snakeline: ")
    assert outcome.stderr.count("\n") == 1
    assert said in outcome.stderr

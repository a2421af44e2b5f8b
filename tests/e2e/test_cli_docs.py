"""What docs/client.md and docs/cli.md show is run as it stands."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.main import get_command

from snakeline import client
from snakeline.cli import app
from tests.support.server import service_environment

if TYPE_CHECKING:
    from tests.support.server import LiveServer

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


def test_the_examples_in_python_run_one_after_the_other(
    server: LiveServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = io.StringIO()
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(said):
        for block in blocks("client.md", "python"):
            exec(block.replace("http://127.0.0.1:8000", server.url), names)
    assert said.getvalue().startswith("completed exited_zero ")
    assert "invalid-job [{'pointer': '/parameters/top_n'" in said.getvalue()
    assert (tmp_path / "report.txt").stat().st_size > 0
    assert "S-0 cannot be run: [{'pointer': '/parameters/count'" in said.getvalue()
    assert sorted(path.name for path in tmp_path.glob("S-*")) == ["S-1.txt", "S-2.txt", "S-3.txt"]


def test_the_examples_of_the_command_run_one_after_the_other(server: LiveServer, tmp_path: Path) -> None:
    script = "\n".join(blocks("cli.md", "sh"))
    setting = f'set -eu\nsnakeline() {{ "{sys.executable}" -m snakeline "$@"; }}\n'
    done = subprocess.run(
        ["bash", "-c", setting + script],
        cwd=tmp_path,
        env=service_environment({"URL": server.url}),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "got/results/report.txt").stat().st_size > 0
    assert "it failed with" not in done.stdout


def test_the_page_of_the_client_names_every_error() -> None:
    errors = {name for name in client.__all__ if isinstance(getattr(client, name), type)}
    errors = {name for name in errors if issubclass(getattr(client, name), client.ClientError)}
    page = (DOCS / "client.md").read_text()
    assert {name for name in errors if f"`{name}`" not in page} == set()


def commands(of: Any, *names: str) -> dict[str, Any]:
    """Every command by its whole name."""
    if not hasattr(of, "commands"):
        return {" ".join(names): of}
    found: dict[str, Any] = {}
    for name, each in of.commands.items():
        found |= commands(each, *names, name)
    return found


def test_the_page_of_the_command_names_every_command() -> None:
    page = (DOCS / "cli.md").read_text()
    first = {name.split()[0] for name in commands(get_command(app))} - {"version"}
    assert {name for name in first if not re.search(rf"\b{name}\b", page)} == set()


@pytest.mark.parametrize("option", ["--json", "--quiet"])
def test_every_command_but_the_service_itself_takes(option: str) -> None:
    without = {
        name
        for name, command in commands(get_command(app)).items()
        if not any(option in parameter.opts for parameter in command.params)
    }
    assert without == {"serve"}

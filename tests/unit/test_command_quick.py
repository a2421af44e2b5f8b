"""Arguments are read as typer reads them, without what that loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.core import TyperCommand, TyperGroup
from typer.testing import CliRunner

from snakeline.commands import quick
from snakeline.commands.quick import QuickCommand, QuickGroup

COMMAND = "import sys; sys.argv = ['snakeline', *sys.argv[1:]]; from snakeline.cli import main; main()"


def told(
    words: list[str],
    name: Annotated[str | None, typer.Option()] = None,
    count: Annotated[int, typer.Option(min=1, max=9)] = 5,
    plain: Annotated[int | None, typer.Option()] = None,
    each: Annotated[list[str] | None, typer.Option("-e")] = None,
    file: Annotated[Path | None, typer.Option()] = None,
    share: Annotated[float, typer.Option()] = 0.5,
    flag: Annotated[bool, typer.Option("--flag")] = False,  # noqa: FBT002
) -> None:
    typer.echo(repr((words, name, count, plain, each, file, share, flag)))


def outcome(arguments: list[str], *, is_quick: bool) -> tuple[int, str]:
    app = typer.Typer(cls=QuickGroup if is_quick else TyperGroup, rich_markup_mode=None)
    for name in ("told", "other"):
        app.command(name, cls=QuickCommand if is_quick else TyperCommand)(told)
    done = CliRunner().invoke(app, arguments)
    return done.exit_code, done.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["a"],
        [],
        ["a", "b", "--name", "ü", "-e", "1", "-e", "2", "--flag"],
        *(
            ["a", "--count", text]
            for text in ("1", "9", "0", "10", "x", "", " 3", "3.0", "03", "-1", "1_0", "+2")
        ),
        *(["a", "--plain", text] for text in ("0", "-4", "99999999999999999999", "1e3", "٣")),
        ["a", "--file", "some/file", "--share", "0.25"],
        ["a", "--share", "none"],
        ["a", "--name"],
        ["a", "--nome", "x"],
        ["--", "-x", "--name"],
    ],
)
def test_each_argument_is_read_or_refused_as_by_typer_itself(arguments: list[str]) -> None:
    assert outcome(["told", *arguments], is_quick=True) == outcome(["told", *arguments], is_quick=False)


def test_another_typer_than_the_known_one_reads_all_of_them_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quick, "_IS_KNOWN", False)
    monkeypatch.delattr(quick, "_Quick")
    assert outcome(["told", "a"], is_quick=True) == outcome(["told", "a"], is_quick=False)


def test_a_command_that_asks_loads_nothing_of_pydantic() -> None:
    asked = ["list", "-n", "3", "-s", "failed", "--label", "a=b", "--url", "http://127.0.0.1:9", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", COMMAND, *asked],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 69
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not loaded & {"pydantic", "pydantic_core", "concurrent.futures", "yaml", "rich.console"}
    assert "httpx2" in loaded

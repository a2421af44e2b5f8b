"""The synchronous client is made from the asynchronous one; neither needs what the service needs."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from snakeline import AsyncClient, AsyncJob, Client, Job
from tests.support.sync_client import CLIENT, made

ROOT = Path(__file__).parents[2]


def of_the_service() -> set[str]:
    """The packages that the extra `server` brings and nothing else does, and those of the service itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {re.split(r"[^\w.-]", each)[0] for each in project["optional-dependencies"]["server"]}
    names = {
        name for name, packages in packages_distributions().items() if wanted & {p.lower() for p in packages}
    }
    names -= {"pydantic"}  # which typer brings, too
    assert {"fastapi", "sqlalchemy", "uvicorn", "structlog"} <= names
    return names | {"api", "runner", "starlette"}


def run_without(blocked: set[str], code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The code in a process where none of these can be imported."""
    blocking = (
        "import sys\n"
        "class Blocked:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in {sorted(blocked)!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Blocked())\n"
    )
    return subprocess.run(
        [sys.executable, "-c", blocking + code, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
    )


def test_the_synchronous_client_is_made_from_the_asynchronous_one_as_it_is_now() -> None:
    there = {path.name: path.read_text() for path in (CLIENT / "sync").glob("*.py")}
    assert there == made(), "run: python -m tests.support.sync_client"


@pytest.mark.parametrize(("blocking", "waiting"), [(Client, AsyncClient), (Job, AsyncJob)])
def test_both_have_the_same_calls_with_the_same_arguments(blocking: type, waiting: type) -> None:
    def calls(of: type) -> dict[str, list[str]]:
        found = inspect.getmembers(of, inspect.isfunction)
        return {name: [*inspect.signature(call).parameters] for name, call in found if name[0] != "_"}

    assert calls(blocking) == calls(waiting)
    assert {"wait", "cancel", "retry"} <= calls(blocking).keys()


def test_the_client_needs_nothing_of_the_service_nor_of_the_command() -> None:
    code = "import asyncio, snakeline\nsnakeline.Client('http://127.0.0.1:9')\nsnakeline.AsyncClient('http://127.0.0.1:9')"
    done = run_without(of_the_service() | {"typer", "rich", "pydantic", "yaml"}, code)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_command_needs_nothing_of_the_service_to_ask_one() -> None:
    code = "sys.argv[0] = 'snakeline'\nfrom snakeline.cli import main\nmain()"
    done = run_without(of_the_service(), code, "list", "--url", "http://127.0.0.1:9", "-q")
    assert (done.returncode, done.stdout) == (69, "")
    assert done.stderr.startswith("snakeline: the service does not answer. GET http://127.0.0.1:9/jobs: ")
    done = run_without(of_the_service() - {"api", "runner"}, code, "serve")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "pip install 'snakeline[server]'" in done.stderr

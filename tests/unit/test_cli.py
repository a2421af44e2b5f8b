"""The command's own manners: help, version, and what it costs to ask for them."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest
from typer.testing import CliRunner

from snakeline.cli import app
from snakeline.client import Job, Problem
from tests.support.server import service_environment

COMMANDS = (
    *("serve", "check", "keys", "tenants", "workflows", "backup", "restore", "upgrade", "demo", "version"),
    *("submit", "list", "show", "tasks", "logs", "watch", "cancel", "retry", "delete", "outputs", "plan"),
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    outcome = CliRunner().invoke(app, [command, "--help"])
    assert outcome.exit_code == 0
    assert f"snakeline {command}" in outcome.output


def test_without_a_command_the_help_lists_all_of_them() -> None:
    outcome = CliRunner().invoke(app, [])
    assert all(command in outcome.output for command in COMMANDS)


def test_version_names_the_installed_version() -> None:
    outcome = CliRunner().invoke(app, ["version"])
    assert outcome.output.startswith(f"snakeline {version('snakeline')} ")


def test_help_does_not_load_the_service() -> None:
    # In a process of its own: here others have imported it already.
    code = (
        "import sys, snakeline.cli;"
        "heavy = {'api', 'runner', 'fastapi', 'sqlalchemy', 'pydantic', 'httpx2', 'rich'} & set(sys.modules);"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_an_unknown_option_is_a_usage_error() -> None:
    assert CliRunner().invoke(app, ["serve", "--prot", "1"]).exit_code == 2


def test_a_problem_reads_as_one_sentence_with_its_fields() -> None:
    document = {
        "type": "invalid-job",
        "title": "The job cannot be run as it stands",
        "detail": "Look at errors.",
        "errors": [{"pointer": "/parameters/top_n", "detail": "must be at least 1"}],
    }
    problem = Problem(422, document)
    assert problem.type == "invalid-job"
    assert str(problem) == (
        "422 The job cannot be run as it stands - Look at errors. - /parameters/top_n: must be at least 1"
    )


def test_a_job_is_read_from_the_answer_and_keeps_fields_it_does_not_know() -> None:
    raw = {
        "id": "1",
        "status": "failed",
        "workflow": "demo",
        "attempt": 2,
        "engine": "mock",
        "created_at": "2026-01-01T00:00:00Z",
        "reason": "timed_out",
        "name": None,
        "exit_code": None,
        "exit_signal": 9,
        "error_message": None,
        "started_at": "2026-01-01T00:00:01Z",
        "completed_at": "2026-01-01T00:00:03.5Z",
        "of_tomorrow": True,
    }
    job = Job.from_json(raw)
    assert job.has_ended
    assert job.duration_s == 2.5
    assert job.raw["of_tomorrow"] is True


@pytest.mark.parametrize(
    ("typed", "offered"), [("snakeline sub", "submit"), ("snakeline submit --wo", "--workflow-file")]
)
def test_a_shell_completes_commands_and_options(typed: str, offered: str) -> None:
    words = {
        "_SNAKELINE_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(typed.split()) - 1),
    }
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; sys.argv = ['snakeline']; from snakeline.cli import main; main()",
        ],
        env=service_environment({}) | words,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout.split() == [offered]


def test_one_command_is_prepared_without_the_others_and_a_misspelt_one_still_finds_its_neighbour() -> None:
    code = "import sys; sys.argv = ['snakeline', *sys.argv[1:]]; from snakeline.cli import main; main()"

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-X", "importtime", "-c", code, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    helped = run("submit", "--help")
    assert helped.returncode == 0
    assert "Usage: snakeline submit" in helped.stdout
    assert not [
        name for name in (" rich", " httpx2", " yaml", " api", " runner") if f"{name}\n" in helped.stderr
    ]
    assert "submit" in run("submitt").stderr.splitlines()[-1]

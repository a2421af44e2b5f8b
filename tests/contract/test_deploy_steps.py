"""The steps of the deployment that are shell, run as GitHub runs them, with a stand-in for `aws`."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.support.deploy_files import STACK_VALUES, WORKFLOWS

if TYPE_CHECKING:
    from pathlib import Path

NEW, OLD = "arn:aws:ecs:x:1:task-definition/snakeline:8", "arn:aws:ecs:x:1:task-definition/snakeline:7"
SEE, BACK = "See that it is this one that runs", "Go back to what ran before"
LOOK = "Look what the stack has made"
IMAGE = "Build and push the image of this commit, unless it is there already"

# Writes down what it was called with; answers with the next line of `answers`, and the last for ever. A line
# `error` is an answer that fails.
STAND_IN = """#!/bin/sh
echo "$1 $2 $*" >> calls
answer=$(head -n 1 answers)
[ "$(wc -l < answers)" -lt 2 ] || { tail -n +2 answers > rest; mv rest answers; }
[ "$answer" != error ] || exit 254
echo "$answer"
"""
DOCKER = """#!/bin/sh
echo "docker $*" >> calls
"""


class Steps:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        steps = yaml.safe_load((WORKFLOWS / "deploy.yml").read_text())["jobs"]["deploy"]["steps"]
        self.programs = {step["name"]: step["run"] for step in steps if "run" in step}
        (directory / "calls").touch()
        for name, program in {"aws": STAND_IN, "docker": DOCKER, "sleep": "#!/bin/sh\n"}.items():
            (directory / name).write_text(program)
            (directory / name).chmod(0o755)

    def run(self, name: str, *answers: str, **environment: str) -> subprocess.CompletedProcess[str]:
        (self.directory / "answers").write_text("".join(f"{answer}\n" for answer in answers))
        return subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", self.programs[name]],
            cwd=self.directory,
            env={"PATH": f"{self.directory}:{os.defpath}", **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @property
    def calls(self) -> list[str]:
        return [" ".join(line.split()[:2]) for line in (self.directory / "calls").read_text().splitlines()]


@pytest.fixture
def steps(tmp_path: Path) -> Steps:
    return Steps(tmp_path)


@pytest.mark.parametrize(
    ("answers", "code"),
    [
        ((f"{NEW}\tCOMPLETED",), 0),
        ((f"{NEW}\tIN_PROGRESS", f"{NEW}\tIN_PROGRESS", f"{NEW}\tCOMPLETED"), 0),
        ((f"{NEW}\tFAILED",), 1),
        ((f"{NEW}\tIN_PROGRESS", f"{OLD}\tIN_PROGRESS", f"{OLD}\tCOMPLETED"), 1),
        ((f"{NEW}\tIN_PROGRESS",), 1),
    ],
    ids=["done", "done later", "failed", "taken back by ECS", "never done"],
)
def test_a_deployment_counts_only_when_its_own_task_definition_runs(
    steps: Steps, answers: tuple[str, ...], code: int
) -> None:
    outcome = steps.run(SEE, *answers, CLUSTER="main", SERVICE="snakeline", DEPLOYED=NEW)
    assert outcome.returncode == code, outcome.stderr
    assert set(steps.calls) == {"ecs describe-services"}


def test_going_back_deploys_the_old_one_before_the_failed_one_is_deregistered_and_waits(steps: Steps) -> None:
    outcome = steps.run(BACK, "", CLUSTER="main", SERVICE="snakeline", DEPLOYED=NEW, PREVIOUS=OLD)
    assert outcome.returncode == 0, outcome.stderr
    assert steps.calls == ["ecs update-service", "ecs deregister-task-definition", "ecs wait"]
    update, deregister, _ = (steps.directory / "calls").read_text().splitlines()
    assert f"--task-definition {OLD}" in update
    assert f"--task-definition {NEW}" in deregister
    assert "was taken back" in outcome.stdout


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
@pytest.mark.parametrize(("exists", "service", "previous"), [("true", "snakeline", OLD), ("false", "", "")])
def test_without_a_service_yet_nothing_is_deployed_and_nothing_to_go_back_to(
    steps: Steps, exists: str, service: str, previous: str
) -> None:
    outputs = STACK_VALUES | {
        "ClusterName": "main",
        "RepositoryName": "images",
        "Url": "https://x.example.org",
        "ServiceExists": exists,
    }
    told = ", ".join(f'{{"OutputKey": "{key}", "OutputValue": "{value}"}}' for key, value in outputs.items())
    (steps.directory / "github").touch()
    outcome = steps.run(
        LOOK,
        f"[{told}]",
        OLD,
        STACK_NAME="snakeline",
        RUNNER_TEMP=str(steps.directory),
        GITHUB_OUTPUT=str(steps.directory / "github"),
    )
    assert outcome.returncode == 0, outcome.stderr
    assert (steps.directory / "github").read_text().splitlines() == [
        "cluster=main",
        f"service={service}",
        "repository=images",
        "url=https://x.example.org",
        f"previous={previous}",
    ]


@pytest.mark.parametrize(
    ("answers", "code", "built"),
    [
        (("sha256:1", "sha256:1"), 0, []),
        (("error", "sha256:2"), 0, ["docker build", "docker push"]),
        (("error", "error"), 254, ["docker build", "docker push"]),
    ],
    ids=["there already", "built", "no digest"],
)
def test_an_image_is_built_once_and_named_by_its_digest(
    steps: Steps, answers: tuple[str, ...], code: int, built: list[str]
) -> None:
    outputs = steps.directory / "github"
    outputs.touch()
    outcome = steps.run(
        IMAGE,
        *answers,
        REGISTRY="registry",
        REPOSITORY="images",
        GITHUB_SHA="abc",
        GITHUB_REF_NAME="v1",
        GITHUB_OUTPUT=str(outputs),
    )
    assert outcome.returncode == code, outcome.stderr
    assert [call for call in steps.calls if call.startswith("docker")] == built
    assert outputs.read_text() == (f"uri=registry/images@{answers[-1]}\n" if code == 0 else "")

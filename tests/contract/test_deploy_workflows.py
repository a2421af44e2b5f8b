"""The pipelines of GitHub Actions: checked by actionlint, and for what it does not look at."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.deploy_files import ROOT, WORKFLOWS

ACTIONLINT = Path(sys.executable).with_name("actionlint")
FILES = sorted(WORKFLOWS.glob("*.yml"))
OFFICIAL = ("actions/", "aws-actions/")


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def actionlint(*files: Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    # Without ShellCheck, which is not everywhere: the outcome must be the same on each machine.
    return subprocess.run(
        [ACTIONLINT, "-no-color", "-shellcheck=", "-pyflakes=", *map(str, files)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_workflows_are_ones_that_github_takes() -> None:
    outcome = actionlint(*FILES)
    assert (outcome.returncode, outcome.stdout, outcome.stderr) == (0, "", "")


def test_a_mistake_in_a_workflow_would_be_seen(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yml"
    text = (WORKFLOWS / "deploy.yml").read_text()
    broken.write_text(text.replace("steps.register.outputs", "steps.registre.outputs"))
    assert "registre" in actionlint(broken).stdout


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_workflow_may_do_no_more_than_it_has_to(path: Path) -> None:
    workflow = read(path)
    rights = [workflow["permissions"], *(job.get("permissions", {}) for job in workflow["jobs"].values())]
    granted = {(name, level) for each in rights for name, level in each.items()}
    assert granted <= {("contents", "read"), ("id-token", "write")}
    # Only the job that deploys may ask for a role in AWS.
    asking = [name for name, job in workflow["jobs"].items() if "id-token" in job.get("permissions", {})]
    assert asking == (["deploy"] if path.name == "deploy.yml" else [])
    assert "id-token" not in workflow["permissions"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_workflow_uses_only_official_actions_with_their_version_beside_the_commit(path: Path) -> None:
    used = re.findall(r"uses: (\S+)(.*)", path.read_text())
    assert used
    for action, comment in used:
        ours = action == "./.github/workflows/ci.yml"
        assert ours or action.startswith(OFFICIAL), action
        assert ours or re.fullmatch(r" # v\d+\.\d+\.\d+", comment), action


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_job_ends_by_itself_and_leaves_no_credentials_in_the_checkout(path: Path) -> None:
    for name, job in read(path)["jobs"].items():
        if "uses" in job:
            continue
        assert job["timeout-minutes"] <= 60, name
        [checkout] = [s for s in job["steps"] if s.get("uses", "").startswith("actions/checkout@")]
        assert checkout["with"]["persist-credentials"] is False, name


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_text_from_outside_is_put_into_a_shells_program(path: Path) -> None:
    for job in read(path)["jobs"].values():
        for step in job.get("steps", []):
            assert "${{" not in step.get("run", ""), step


def test_deployments_come_one_after_the_other_and_none_is_broken_off() -> None:
    workflow = read(WORKFLOWS / "deploy.yml")
    assert workflow["concurrency"] == {"group": "deploy-production", "cancel-in-progress": False}
    assert workflow["jobs"]["deploy"]["environment"] == "production"
    assert workflow["jobs"]["deploy"]["needs"] == "ci"


def test_a_deployment_is_tried_through_the_balancer_and_taken_back_when_anything_failed() -> None:
    steps = read(WORKFLOWS / "deploy.yml")["jobs"]["deploy"]["steps"]
    order = [
        next(number for number, step in enumerate(steps) if word in str(step))
        for word in (
            "aws-actions/configure-aws-credentials@",
            "aws-actions/amazon-ecr-login@",
            "docker push",
            "deploy/ecs/render.py",
            "aws-actions/amazon-ecs-deploy-task-definition@",
            "rolloutState",
            "deploy/smoke_test.py",
            "deregister-task-definition",
        )
    ]
    assert order == sorted(order)
    assert steps[order[-1]]["if"].startswith("(failure() || cancelled())")


def test_the_documentation_names_every_variable_and_secret_of_the_pipeline() -> None:
    text = (WORKFLOWS / "deploy.yml").read_text()
    wanted = set(re.findall(r"\b(?:vars|secrets)\.(\w+)", text))
    page = (ROOT / "docs/deploy-ecs.md").read_text()
    assert wanted
    assert {name for name in wanted if f"`{name}`" not in page} == set()

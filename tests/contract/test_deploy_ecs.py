"""The files for Amazon ECS, by the tools of those who take them: cfn-lint, and moto in place of AWS."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from moto import mock_aws

from deploy.ecs import render
from tests.support import deploy_files
from tests.support.deploy_files import IMAGE, ROOT, STACK, STACK_VALUES

if TYPE_CHECKING:
    from collections.abc import Iterator

CFN_LINT = Path(sys.executable).with_name("cfn-lint")
PASCAL_EXCEPTIONS = {
    "fileSystemId": "FilesystemId",
    "iam": "IAM",
    "efsVolumeConfiguration": "EFSVolumeConfiguration",
}


def cfn_lint(*templates: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [CFN_LINT, "--format", "parseable", "--include-checks", "W", "--", *map(str, templates)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def assert_clean(outcome: subprocess.CompletedProcess[str]) -> None:
    assert (outcome.returncode, outcome.stdout, outcome.stderr) == (0, "", "")


def differences(wanted: Any, found: Any, place: str = "") -> Iterator[str]:
    """Where something of `wanted` is missing in `found` or is another; what `found` has besides is let be."""
    match wanted, found:
        case dict(), dict():
            for key, value in wanted.items():
                yield from differences(value, found.get(key), f"{place}.{key}")
        case list(), list() if len(wanted) == len(found):
            for number, (one, other) in enumerate(zip(wanted, found, strict=True)):
                yield from differences(one, other, f"{place}[{number}]")
        case _ if wanted != found:
            yield f"{place}: {wanted!r} became {found!r}"
        case _:
            pass


def pascal(value: Any, *, place: str = "") -> Any:
    """A task definition of the API as CloudFormation spells it."""
    match value:
        case dict() if place == "options":
            return value
        case dict():
            return {
                PASCAL_EXCEPTIONS.get(key, key[:1].upper() + key[1:]): pascal(inner, place=key)
                for key, inner in value.items()
            }
        case list():
            return [pascal(inner, place=place) for inner in value]
        case _:
            return value


@pytest.fixture
def ecs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "nobody")
    with mock_aws():
        yield boto3.client("ecs", region_name="eu-central-1")


def test_every_field_of_the_task_definition_arrives_at_ecs(ecs: Any) -> None:
    wanted = deploy_files.task_definition()
    ecs.register_task_definition(**wanted)  # refuses a field that ECS does not know
    found = ecs.describe_task_definition(taskDefinition="snakeline")["taskDefinition"]
    assert list(differences(wanted, found)) == []
    assert (found["revision"], found["status"]) == (1, "ACTIVE")


def test_a_field_that_does_not_arrive_would_be_seen() -> None:
    wanted = deploy_files.task_definition()
    found = json.loads(json.dumps(wanted))
    del found["containerDefinitions"][0]["stopTimeout"]
    found["volumes"][0]["efsVolumeConfiguration"]["transitEncryption"] = "DISABLED"
    assert list(differences(wanted, found)) == [
        ".containerDefinitions[0].stopTimeout: 120 became None",
        ".volumes[0].efsVolumeConfiguration.transitEncryption: 'ENABLED' became 'DISABLED'",
    ]


def test_the_task_definition_is_one_that_fargate_takes(tmp_path: Path) -> None:
    # cfn-lint knows which values and which pairs of processors and memory there are.
    def template(name: str, definition: Any) -> Path:
        path = tmp_path / name
        resource = {"Type": "AWS::ECS::TaskDefinition", "Properties": pascal(definition)}
        path.write_text(
            json.dumps({"AWSTemplateFormatVersion": "2010-09-09", "Resources": {"Task": resource}})
        )
        return path

    definition = deploy_files.task_definition()
    ours = template("ours.json", definition)
    impossible = template("impossible.json", definition | {"memory": "32"})
    found = cfn_lint(ours, impossible).stdout.splitlines()
    assert found
    assert all(line.startswith(str(impossible)) for line in found), found


def test_the_stack_is_one_that_cloudformation_takes() -> None:
    assert_clean(cfn_lint(STACK))


def test_the_stack_makes_nothing_that_is_there_already() -> None:
    kinds = {resource["Type"] for resource in deploy_files.stack()["Resources"].values()}
    assert not {
        kind
        for kind in kinds
        if re.search(
            r"::(VPC|Subnet|Cluster|Repository|OIDCProvider|LoadBalancer|Listener|NatGateway)$", kind
        )
    }


def test_every_placeholder_is_an_output_of_the_stack() -> None:
    outputs = deploy_files.stack()["Outputs"]
    names = render.placeholders(render.TEMPLATE.read_text())
    assert names == {*STACK_VALUES, "Image"}
    assert names - {"Image"} <= set(outputs)


def test_the_pipeline_reads_only_outputs_that_there_are() -> None:
    read = set(re.findall(r"\$\(output (\w+)\)", (deploy_files.WORKFLOWS / "deploy.yml").read_text()))
    assert read
    assert read <= set(deploy_files.stack()["Outputs"])


def test_two_tasks_are_never_meant_to_run_at_a_time() -> None:
    service = deploy_files.stack()["Resources"]["Service"]["Properties"]
    assert service["DesiredCount"] == 1
    assert service["DeploymentConfiguration"] == {
        "MinimumHealthyPercent": 0,
        "MaximumPercent": 100,
        "DeploymentCircuitBreaker": {"Enable": True, "Rollback": True},
    }
    assert service["AvailabilityZoneRebalancing"] == "DISABLED"


def test_the_balancer_asks_for_readiness_and_ecs_for_life() -> None:
    assert deploy_files.stack()["Resources"]["TargetGroup"]["Properties"]["HealthCheckPath"] == "/readyz"
    [container] = deploy_files.task_definition()["containerDefinitions"]
    assert "/healthz" in container["healthCheck"]["command"][-1]
    assert container["healthCheck"]["command"][0] == "CMD"  # no shell


def test_a_job_can_do_nothing_in_aws_but_use_its_files() -> None:
    resources = deploy_files.stack()["Resources"]
    policies = [r for r in resources.values() if r["Type"] == "AWS::IAM::RolePolicy"]
    [policy] = policies
    [statement] = policy["Properties"]["PolicyDocument"]["Statement"]
    assert statement["Action"] == ["elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite"]
    assert "elasticfilesystem:AccessPointArn" in statement["Condition"]["StringEquals"]
    assert not {"Policies", "ManagedPolicyArns"} & set(resources["TaskRole"]["Properties"])


def test_no_role_may_do_everything_somewhere_or_something_everywhere() -> None:
    everywhere = {"ecr:GetAuthorizationToken", "ecs:RegisterTaskDefinition", "ecs:DeregisterTaskDefinition"}
    resources = deploy_files.stack()["Resources"]
    for role in ("ExecutionRole", "DeployRole"):
        for policy in resources[role]["Properties"]["Policies"]:
            for statement in policy["PolicyDocument"]["Statement"]:
                actions = statement["Action"]
                named = {actions} if isinstance(actions, str) else set(actions)
                assert not any("*" in action for action in named)
                assert statement["Resource"] != "*" or named <= everywhere


def test_only_one_environment_of_one_repository_may_deploy() -> None:
    role = deploy_files.stack()["Resources"]["DeployRole"]["Properties"]
    [statement] = role["AssumeRolePolicyDocument"]["Statement"]
    claims = statement["Condition"]["StringEquals"]
    assert claims["token.actions.githubusercontent.com:aud"] == "sts.amazonaws.com"
    assert claims["token.actions.githubusercontent.com:sub"] == {
        "Fn::Sub": "repo:${GitHubRepository}:environment:${GitHubEnvironment}"
    }


def test_every_alarm_says_what_it_means_and_what_to_do() -> None:
    alarms = {
        n: r for n, r in deploy_files.stack()["Resources"].items() if r["Type"] == "AWS::CloudWatch::Alarm"
    }
    assert len(alarms) >= 10
    for name, alarm in alarms.items():
        properties = alarm["Properties"]
        assert len(properties["AlarmDescription"].split(". ")) >= 2, name
        assert properties["AlarmActions"] == {"Fn::If": ["WithTopic", [{"Ref": "AlarmTopicArn"}], []]}, name
        assert properties["TreatMissingData"] in ("breaching", "notBreaching"), name


def test_every_event_that_an_alarm_counts_is_one_that_the_service_logs() -> None:
    patterns = [
        resource["Properties"]["FilterPattern"]
        for resource in deploy_files.stack()["Resources"].values()
        if resource["Type"] == "AWS::Logs::MetricFilter"
    ]
    counted = set(re.findall(r'\$\.event = "([^"]+)"', " ".join(patterns)))
    assert counted
    sources = "".join(
        path.read_text() for package in ("api", "runner") for path in (ROOT / package).rglob("*.py")
    )
    logged = set(re.findall(r"_log\.\w+\(\s*\"([\w.]+)\"", sources))
    assert counted <= logged
    assert set(re.findall(r"\$\.(\w+)", " ".join(patterns))) == {"level", "event"}


def test_the_fields_that_alarms_count_by_are_those_of_a_line_of_the_log(tmp_path: Path) -> None:
    program = (
        "from api.log_format import configure_logging; import structlog; configure_logging('info');"
        "structlog.get_logger('x').error('something.failed', detail='why')"
    )
    outcome = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    line = json.loads(outcome.stderr)
    assert (line["event"], line["level"]) == ("something.failed", "error")


def test_a_template_that_cannot_be_filled_in_is_refused_by_name() -> None:
    values = {**STACK_VALUES, "AccessPointId": ""}
    with pytest.raises(render.NothingToFillIn, match="AccessPointId, Image"):
        render.render(render.TEMPLATE.read_text(), values)


def test_a_value_is_never_taken_for_part_of_the_json() -> None:
    assert render.render('{"a": "<${X}>"}', {"X": 'qu"ote\\ ${X}\n'}) == {"a": '<qu"ote\\ ${X}\n>'}


def test_the_program_writes_what_is_registered(tmp_path: Path) -> None:
    outputs = tmp_path / "outputs.json"
    outputs.write_text(json.dumps([{"OutputKey": k, "OutputValue": v} for k, v in STACK_VALUES.items()]))

    def run(image: str) -> subprocess.CompletedProcess[str]:
        program = [
            sys.executable,
            str(ROOT / "deploy/ecs/render.py"),
            "--outputs",
            str(outputs),
            "--image",
            image,
        ]
        return subprocess.run(program, capture_output=True, text=True, check=False, timeout=30)

    assert json.loads(run(IMAGE).stdout) == deploy_files.task_definition()
    refused = run("")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == "render: no value for Image: is the stack up to date?\n"

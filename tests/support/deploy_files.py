"""What the files in deploy/ say, read as those who take them read them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import yaml

from deploy.ecs import render

ROOT: Final = Path(__file__).parents[2]
DEPLOY: Final = ROOT / "deploy"
WORKFLOWS: Final = ROOT / ".github/workflows"
STACK: Final = DEPLOY / "ecs/stack.yaml"
MANIFEST: Final = DEPLOY / "kubernetes/snakeline.yaml"
UNIT: Final = DEPLOY / "systemd/snakeline.service"

STACK_VALUES: Final = {
    "ServiceName": "snakeline",
    "ExecutionRoleArn": "arn:aws:iam::123456789012:role/execution",
    "TaskRoleArn": "arn:aws:iam::123456789012:role/task",
    "FileSystemId": "fs-0123456789abcdef0",
    "AccessPointId": "fsap-0123456789abcdef0",
    "LogGroup": "/ecs/snakeline",
    "Region": "eu-central-1",
    "DatabaseUrlSecretArn": "arn:aws:secretsmanager:eu-central-1:123456789012:secret:snakeline/url-AbCdEf",
    "BalancerNetworks": "10.0.0.0/24,10.0.1.0/24",
}
IMAGE: Final = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/snakeline@sha256:" + 64 * "0"


class _Loader(yaml.SafeLoader):
    """Reads `!Ref X` as `{"Ref": "X"}`, `!GetAtt a.b` as `{"Fn::GetAtt": "a.b"}` and so on."""


def _short_form(loader: _Loader, tag: str, node: yaml.Node) -> Any:
    match node:
        case yaml.ScalarNode():
            value: Any = loader.construct_scalar(node)
        case yaml.SequenceNode():
            value = loader.construct_sequence(node, deep=True)
        case _:
            raise AssertionError(f"a short form of another kind: {tag}")
    return {tag if tag in ("Ref", "Condition") else f"Fn::{tag}": value}


_Loader.add_multi_constructor("!", _short_form)


def stack() -> Any:
    """The template of the stack."""
    return yaml.load(STACK.read_text(), _Loader)


def task_definition() -> Any:
    """The task definition as the pipeline registers it."""
    return render.render(render.TEMPLATE.read_text(), STACK_VALUES | {"Image": IMAGE})


def manifests() -> list[Any]:
    """The documents of the Kubernetes manifest."""
    return list(yaml.safe_load_all(MANIFEST.read_text()))


def manifest(kind: str) -> Any:
    """The only one of its kind."""
    [found] = [document for document in manifests() if document["kind"] == kind]
    return found


def unit() -> dict[str, list[str]]:
    """What the systemd unit sets, by name; a name may be there more than once."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", UNIT.read_text(), re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


def settings_of_ecs() -> dict[str, str]:
    """Secrets too: what the stack makes of each at first."""
    [container] = task_definition()["containerDefinitions"]
    secret = stack()["Resources"]["DatabaseUrlSecret"]["Properties"]["SecretString"]
    return {each["name"]: each["value"] for each in container["environment"]} | {
        each["name"]: secret for each in container["secrets"]
    }


def settings_of_kubernetes() -> dict[str, str]:
    [container] = manifest("Deployment")["spec"]["template"]["spec"]["containers"]
    secret = manifest("Secret")

    def value(variable: Any) -> str:
        if "value" in variable:
            return str(variable["value"])
        wanted = variable["valueFrom"]["secretKeyRef"]
        assert wanted["name"] == secret["metadata"]["name"]
        return str(secret["stringData"][wanted["key"]])

    return {each["name"]: value(each) for each in container["env"]}


def settings_of_systemd() -> dict[str, str]:
    return dict(pair.split("=", 1) for line in unit()["Environment"] for pair in line.split())


def settings_of_compose() -> dict[str, str]:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    return {name: str(value) for name, value in services["snakeline"]["environment"].items()}


def settings_of_the_image() -> dict[str, str]:
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    instructions = re.findall(r"^ENV (.*)$", text, re.MULTILINE)
    pairs = [pair.split("=", 1) for line in instructions for pair in line.split()]
    return {name: value for name, value in pairs if name.startswith("SNAKELINE_")}

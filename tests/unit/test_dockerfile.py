"""The Dockerfile keeps up with the project, and stays as it is meant."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
INSTRUCTIONS = [line.split(maxsplit=1) for line in TEXT.splitlines() if re.match(r"[A-Z]+ ", line)]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def given(instruction: str) -> list[str]:
    return [rest for name, rest in INSTRUCTIONS if name == instruction]


def copied() -> set[str]:
    """What comes from the checkout."""
    sources = [rest.split()[:-1] for rest in given("COPY") if not rest.startswith("--from")]
    return {name for names in sources for name in names}


def test_the_base_is_one_certain_image_until_somebody_names_another() -> None:
    (base,) = [rest for rest in given("ARG") if rest.startswith("BASE=")]
    assert re.fullmatch(r"BASE=python:3\.\d+\.\d+-slim-bookworm@sha256:[0-9a-f]{64}", base)
    outside = [rest for rest in given("FROM") if rest.split()[0] == "${BASE}"]
    stages = {rest.split()[-1] for rest in given("FROM")}
    assert len(outside) == 1
    assert all(rest.split()[0] in stages | {"${BASE}"} for rest in given("FROM"))


def test_everything_that_the_package_is_built_from_is_copied_and_let_through() -> None:
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    wanted = {*wheel["packages"], *wheel["force-include"], "pyproject.toml", PROJECT["project"]["readme"]}
    assert wanted <= copied()
    let_through = set(re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    assert copied() == let_through
    assert all((ROOT / name).exists() for name in let_through)


def test_dependencies_come_before_the_source_and_each_with_its_hash() -> None:
    assert TEXT.index("-r /requirements-otel.lock") < TEXT.index("COPY pyproject.toml")
    for run in given("RUN"):
        for command in re.findall(r"-m pip [^&]*", run):
            assert (
                "--require-hashes" in command or "--no-index" in command or "--no-build-isolation" in command
            )


def test_what_is_installed_is_all_that_the_service_needs() -> None:
    locked = set(re.findall(r"^([\w.-]+)==", (ROOT / "requirements-otel.lock").read_text(), re.MULTILINE))
    project = PROJECT["project"]
    extras = project.get("optional-dependencies", {})
    wanted = [*project["dependencies"], *extras.get("server", []), *extras["otel"]]
    assert {re.split(r"[^\w.-]", requirement)[0] for requirement in wanted} <= locked


def test_labels_tell_the_projects_version() -> None:
    versions = re.findall(r"\bVERSION=(\S+)", " ".join(given("ARG")))
    assert versions
    assert set(versions) == {PROJECT["project"]["version"]}


@pytest.mark.parametrize("instruction", ["ENTRYPOINT", "CMD"])
def test_no_shell_stands_between_the_container_and_the_service(instruction: str) -> None:
    assert all(isinstance(json.loads(rest), list) for rest in given(instruction))
    assert all(" CMD [" in f" {' '.join(rest.split())}" for rest in given("HEALTHCHECK"))


def test_both_targets_run_the_service_as_a_user_that_has_a_number() -> None:
    assert given("USER") == ["10001:10001"]

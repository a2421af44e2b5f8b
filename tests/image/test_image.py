"""What is in the image, and what is not."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.image.docker import HARDENED, SERVICE_USER

if TYPE_CHECKING:
    from tests.image.docker import Docker

pytestmark = pytest.mark.image
ROOT = Path(__file__).parents[2]
FOUND = Path(__file__).with_name("found_inside.py").read_text()


def test_it_has_what_it_runs_on_compiled_and_nothing_it_was_built_with(docker: Docker, image: str) -> None:
    def found_by(user: int) -> dict[str, Any]:
        options = ["--cap-drop=ALL", f"--user={user}:{user}", "--entrypoint=/opt/snakeline/bin/python"]
        answer: dict[str, Any] = json.loads(docker.once(image, "-I", "-S", "-c", FOUND, options=options))
        return answer

    by_root = found_by(0)  # who sees all
    assert by_root["modules"] > 1000
    for nothing in ("not_compiled", "tools", "left", "package_lists"):
        assert by_root[nothing] == [], nothing
    assert by_root["tmp_mode"] == 0o1777
    assert found_by(SERVICE_USER)["writable"] == []


def test_it_says_what_it_is(docker: Docker, image: str) -> None:
    config = docker.inspect(image)["Config"]
    labels = {
        name.rpartition(".")[2]: text for name, text in config["Labels"].items() if "opencontainers" in name
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert labels["title"].startswith("Snakeline")
    assert labels["licenses"] == project["license"]
    assert labels["version"] == project["version"]
    assert docker.once(image, "version").split()[:2] == ["snakeline", labels["version"]]
    assert {"description", "revision", "created"} <= labels.keys()
    assert config["User"] == f"{SERVICE_USER}:{SERVICE_USER}"
    assert config["Entrypoint"] == ["tini", "-s", "--", "snakeline"]
    assert config["Cmd"] == ["serve", "--restart"]
    assert "/data" in config["Volumes"]
    assert config["Healthcheck"]["Test"][0] == "CMD"  # no shell
    assert "8000/tcp" in config["ExposedPorts"]


@pytest.mark.parametrize("engine", ["mock", "snakemake"])
def test_the_demo_runs_inside_with_nothing_it_may_write_to_but_a_temporary_folder(
    docker: Docker, service_image: str, snakemake_image: str, engine: str
) -> None:
    if engine == "mock":
        shown = docker.once(service_image, "demo", options=HARDENED, timeout_s=300)
    else:
        command = ["demo", "--engine", "snakemake", "--snakemake", "/opt/snakemake/bin/snakemake"]
        options = [*HARDENED, "--memory=2g"]
        shown = docker.once(snakemake_image, *command, options=options, timeout_s=600)
    assert "completed" in shown


def test_a_mistake_in_the_settings_ends_the_container_with_one_line(
    docker: Docker, service_image: str
) -> None:
    name = docker("run", "--detach", "--env=SNAKELINE_PROT=80", service_image).strip()
    try:
        assert docker("wait", name, timeout_s=60).strip() == "2"
        (line,) = docker.logs(name).splitlines()
        assert line.startswith("snakeline: ")
        assert "SNAKELINE_PROT" in line
    finally:
        docker("rm", "--force", "--volumes", name)

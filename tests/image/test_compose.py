"""deploy/compose.yaml, by the tool it is for."""

from __future__ import annotations

import shutil
import subprocess
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from snakeline.client import Client
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from tests.image.docker import Docker

pytestmark = pytest.mark.image
FILE = Path(__file__).parents[2] / "deploy/compose.yaml"


def compose_command() -> list[str]:
    plugin = subprocess.run(["docker", "compose", "version"], check=False, capture_output=True)
    if plugin.returncode == 0:
        return ["docker", "compose"]
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    pytest.skip("neither docker compose nor docker-compose is installed")


def test_the_compose_file_starts_a_service_with_real_snakemake(docker: Docker, snakemake_image: str) -> None:
    project = f"snakeline-{uuid.uuid4().hex[:8]}"
    environment = docker.environment | {"IMAGE": snakemake_image, "PORT": "0", "MEMORY": "1g"}
    command = [*compose_command(), "--file", str(FILE), "--project-name", project]

    def compose(*arguments: str) -> str:
        done = subprocess.run(
            [*command, *arguments], env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    compose("config", "--quiet")
    try:
        compose("up", "--detach", "--no-build")
        container = compose("ps", "--quiet", "snakeline")
        wait_until(
            lambda: docker.inspect(container)["State"]["Health"]["Status"] == "healthy",
            timeout_s=60,
            what="it to be healthy",
        )
        with Client(f"http://{compose('port', 'snakeline', '8000')}") as client:
            ready = client.ready()
            assert (ready["status"], ready["engine"]["name"]) == ("ready", "snakemake")
            job = client.submit("wordcount")
            assert client.wait(job.id, timeout_s=120).status == "completed"
        about = docker.inspect(container)["HostConfig"]
        assert about["ReadonlyRootfs"]
        assert about["CapDrop"] == ["ALL"]
        assert about["Memory"] == 2**30
    finally:
        compose("down", "--volumes", "--timeout", "10")

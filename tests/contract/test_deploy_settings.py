"""Each deployment sets what is a setting, to what can be used, and what it says elsewhere agrees with it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from api.server import KEEP_ALIVE_S
from api.settings import OF_CLIENTS, ServiceSettings, load_settings
from tests.support import deploy_files
from tests.support.deploy_files import DEPLOY, ROOT, WORKFLOWS

if TYPE_CHECKING:
    from collections.abc import Callable

DEPLOYMENTS = {
    "ecs": deploy_files.settings_of_ecs,
    "kubernetes": deploy_files.settings_of_kubernetes,
    "systemd": deploy_files.settings_of_systemd,
    "compose": deploy_files.settings_of_compose,
    "image": deploy_files.settings_of_the_image,
}
BALANCER_IDLE_S = 60
"""How long a load balancer of AWS waits for something to happen on a connection, if nobody says otherwise."""


@pytest.mark.parametrize("settings_of", DEPLOYMENTS.values(), ids=DEPLOYMENTS)
def test_a_deployment_sets_only_settings_and_to_values_that_can_be_used(
    settings_of: Callable[[], dict[str, str]],
) -> None:
    environ = settings_of()
    assert environ
    assert all(name.startswith("SNAKELINE_") for name in environ)
    load_settings(environ)


def test_every_setting_that_a_file_of_a_deployment_names_is_one() -> None:
    known = {f"SNAKELINE_{name.upper()}" for name in ServiceSettings.model_fields} | OF_CLIENTS
    files = [*DEPLOY.rglob("*"), *WORKFLOWS.glob("*.yml"), ROOT / "Dockerfile"]
    named = {
        (str(path.relative_to(ROOT)), name)
        for path in files
        if path.suffix in {".json", ".yaml", ".yml", ".py", ".service", ""} and path.is_file()
        for name in re.findall(r"\bSNAKELINE_[A-Z][A-Z_]*[A-Z]\b", path.read_text())
    }
    assert {file.split("/")[0] for file, _ in named} >= {"deploy", ".github", "Dockerfile"}
    assert {pair for pair in named if pair[1] not in known} == set()


@pytest.mark.parametrize("settings_of", DEPLOYMENTS.values(), ids=DEPLOYMENTS)
def test_what_is_reached_by_others_asks_for_keys(settings_of: Callable[[], dict[str, str]]) -> None:
    settings = load_settings(settings_of())
    # Of compose the port is published on this machine alone.
    assert settings.auth != "none" or settings_of is deploy_files.settings_of_compose
    assert settings.host in ("127.0.0.1", "0.0.0.0")


def test_on_ecs_the_service_is_gone_before_it_is_killed() -> None:
    [container] = deploy_files.task_definition()["containerDefinitions"]
    settings = load_settings(deploy_files.settings_of_ecs())
    assert container["stopTimeout"] == 120  # Fargate allows no more
    assert settings.shutdown_s < container["stopTimeout"]
    assert settings.stop_grace_s < settings.shutdown_s / 2
    assert settings.on_shutdown == "stop"


def test_on_ecs_jobs_fit_into_the_task() -> None:
    task = deploy_files.task_definition()
    settings = load_settings(deploy_files.settings_of_ecs())
    assert settings.max_cores * 1024 == int(task["cpu"])
    assert settings.default_memory_mb is not None
    assert settings.max_memory_mb is not None
    # Beside the jobs there is the service.
    assert settings.max_cores * settings.default_memory_mb <= int(task["memory"]) - 1024
    assert settings.max_memory_mb <= int(task["memory"]) - 1024


def test_on_ecs_no_answer_and_no_connection_outlasts_the_balancers_patience() -> None:
    settings = load_settings(deploy_files.settings_of_ecs())
    assert settings.plan_timeout_s < BALANCER_IDLE_S
    assert settings.report_timeout_s < BALANCER_IDLE_S
    # The balancer closes idle connections first: a request never meets one that we are just closing.
    assert KEEP_ALIVE_S > BALANCER_IDLE_S


def test_on_ecs_the_log_has_the_form_that_its_alarms_read() -> None:
    assert load_settings(deploy_files.settings_of_ecs()).log_format == "json"


def test_on_kubernetes_the_service_is_gone_before_it_is_killed_and_jobs_fit_into_the_pod() -> None:
    pod = deploy_files.manifest("Deployment")["spec"]["template"]["spec"]
    [container] = pod["containers"]
    settings = load_settings(deploy_files.settings_of_kubernetes())
    assert settings.shutdown_s < pod["terminationGracePeriodSeconds"]
    assert settings.on_shutdown == "stop"
    limits = container["resources"]["limits"]
    assert limits["memory"] == "8Gi"
    assert settings.default_memory_mb is not None
    assert settings.max_memory_mb is not None
    assert int(limits["cpu"]) * settings.default_memory_mb <= 8192 - 1024
    assert settings.max_memory_mb <= 8192 - 1024


def test_under_systemd_the_service_is_gone_before_it_is_killed_and_jobs_outlive_it() -> None:
    unit = deploy_files.unit()
    settings = load_settings(deploy_files.settings_of_systemd())
    assert settings.shutdown_s < float(unit["TimeoutStopSec"][0].removesuffix("s"))
    assert settings.on_shutdown == "detach"
    assert unit["KillMode"] == ["process"]

"""The Kubernetes manifest against Kubernetes' own schemas, and for what they don't say."""

from __future__ import annotations

from typing import Any

import kubernetes_validate
import pytest

from tests.support import deploy_files

VERSIONS = ("1.30", "1.37")
"""The oldest and the newest that are looked at."""


def pod() -> Any:
    return deploy_files.manifest("Deployment")["spec"]["template"]["spec"]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_document_is_one_that_kubernetes_takes(version: str) -> None:
    for document in deploy_files.manifests():
        kubernetes_validate.validate(document, version, strict=True)


def test_a_mistake_in_the_manifest_would_be_seen() -> None:
    broken = deploy_files.manifest("Deployment")
    broken["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readinesProbe"):
        kubernetes_validate.validate(broken, VERSIONS[-1], strict=True)


def test_two_pods_never_run_at_a_time() -> None:
    spec = deploy_files.manifest("Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    assert deploy_files.manifest("PersistentVolumeClaim")["spec"]["accessModes"] == ["ReadWriteOnce"]


def test_everything_belongs_together() -> None:
    deployment, service = deploy_files.manifest("Deployment"), deploy_files.manifest("Service")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels == service["spec"]["selector"]
    [container] = pod()["containers"]
    assert {port["name"] for port in container["ports"]} == {
        port["targetPort"] for port in service["spec"]["ports"]
    }
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        volume["name"] for volume in pod()["volumes"]
    }
    claims = {
        v["persistentVolumeClaim"]["claimName"] for v in pod()["volumes"] if "persistentVolumeClaim" in v
    }
    assert claims == {deploy_files.manifest("PersistentVolumeClaim")["metadata"]["name"]}
    assert pod()["serviceAccountName"] == deploy_files.manifest("ServiceAccount")["metadata"]["name"]


def test_only_life_ends_the_pod_and_only_readiness_takes_it_off_the_service() -> None:
    [container] = pod()["containers"]
    asked = {
        name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")
    }
    assert asked == {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}


def test_the_pod_has_no_powers_and_nothing_of_the_clusters() -> None:
    [container] = pod()["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod()["securityContext"]["runAsNonRoot"] is True
    assert pod()["securityContext"]["runAsUser"] == 10001
    assert pod()["securityContext"]["fsGroup"] == 10001
    assert pod()["automountServiceAccountToken"] is False
    assert deploy_files.manifest("ServiceAccount")["automountServiceAccountToken"] is False

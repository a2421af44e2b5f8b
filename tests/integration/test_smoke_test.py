"""The smoke test of a deployment, against services of this machine: good ones pass, each fault is told."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.deploy_files import ROOT
from tests.support.keys import KeyedServer, keyed_server
from tests.support.tls_balancer import make_certificate, tls_balancer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.server import LiveServer


def smoke_test(
    url: str, *options: str, key: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-E", str(ROOT / "deploy/smoke_test.py"), url, *options],
        env={"SNAKELINE_API_KEY": key, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def assert_failed(outcome: subprocess.CompletedProcess[str], why: str) -> None:
    assert outcome.returncode == 1
    assert outcome.stderr.startswith("smoke test failed: ")
    assert why in outcome.stderr
    assert "passed" not in outcome.stdout


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    make_certificate(path)
    return path


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeyedServer]:
    """A service that believes proxies of this machine."""
    with keyed_server(tmp_path_factory.mktemp("keyed"), TRUSTED_PROXIES="127.0.0.1") as keyed:
        yield keyed


def test_a_good_service_behind_a_balancer_passes_and_nothing_is_left_there(
    keyed: KeyedServer, certificate: Path
) -> None:
    key = keyed.key("read", "submit", tenant="smoke")
    with tls_balancer(keyed.server.url, certificate) as url:
        outcome = smoke_test(url, key=key, SSL_CERT_FILE=str(certificate))
    assert (outcome.returncode, outcome.stderr) == (0, "")
    ready, door, job, last = outcome.stdout.splitlines()
    assert ready.startswith("ready: engine mock, isolation ")
    assert door == "the door is closed to strangers"
    assert "completed, exit code 0" in job
    assert last == "smoke test passed"
    assert keyed.admin.get("/jobs").json()["total"] == 0


def test_a_service_that_does_not_believe_its_balancer_is_told_of(
    server: LiveServer, certificate: Path
) -> None:
    with tls_balancer(server.url, certificate) as url:
        outcome = smoke_test(url, SSL_CERT_FILE=str(certificate))
    assert_failed(outcome, "SNAKELINE_TRUSTED_PROXIES does not name the proxy")


def test_a_service_that_lets_strangers_in_is_told_of(server: LiveServer) -> None:
    assert_failed(smoke_test(server.url, key="snk_0000000000.any"), "the service is open")


def test_a_key_that_is_not_good_is_told_of_at_once(keyed: KeyedServer) -> None:
    assert_failed(smoke_test(keyed.server.url, key="snk_0000000000.none"), "credentials-invalid")


def test_a_service_that_is_not_there_is_waited_for_and_told_of() -> None:
    # Nothing listens on port 1.
    outcome = smoke_test("http://127.0.0.1:1", "--ready-timeout", "0.1")
    assert_failed(outcome, "not ready after 0.1 s")


def test_a_job_that_does_not_complete_is_told_of_and_stopped(keyed: KeyedServer) -> None:
    outcome = smoke_test(keyed.server.url, "--job-timeout", "0.05", key=keyed.first_key)
    assert_failed(outcome, "the job is ")
    # What could not be deleted, because it ran, was cancelled or has timed out.
    for job in keyed.admin.get("/jobs").json()["items"]:
        ended = keyed.admin.get(f"/jobs/{job['id']}", params={"wait": 30}).json()
        assert ended["status"] in ("failed", "cancelled")
        assert keyed.admin.delete(f"/jobs/{job['id']}").status_code == 204

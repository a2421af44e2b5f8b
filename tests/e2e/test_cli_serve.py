"""`snakeline serve` and `check` as a user meets them: a mistake is one line that says what to do."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.command import snakeline_with
from tests.support.server import running_server

if TYPE_CHECKING:
    from pathlib import Path


def environment(settings: dict[str, str]) -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "COLUMNS": "200"} | {f"SNAKELINE_{k}": v for k, v in settings.items()}


def executed(*arguments: str, cwd: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "snakeline", *arguments],
        cwd=cwd,
        env=environment(settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def snakeline(*arguments: str, cwd: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    return snakeline_with(environment(settings), *arguments, cwd=cwd)


def assert_one_line(outcome: subprocess.CompletedProcess[str], *said: str) -> None:
    assert outcome.returncode == 2
    assert outcome.stderr.count("\n") == 1, outcome.stderr
    assert outcome.stderr.startswith("snakeline: ")
    assert all(part in outcome.stderr for part in said), outcome.stderr


def test_a_misspelt_setting_stops_the_start_with_one_line(tmp_path: Path) -> None:
    assert_one_line(executed("serve", cwd=tmp_path, PROT="9000"), "SNAKELINE_PROT", "SNAKELINE_PORT")
    assert list(tmp_path.iterdir()) == []


def test_a_value_that_makes_no_sense_stops_the_start_with_one_line(tmp_path: Path) -> None:
    assert_one_line(executed("serve", cwd=tmp_path, STOP_GRACE_S="soon"), "SNAKELINE_STOP_GRACE_S", "soon")


def test_rules_for_tokens_that_would_be_ignored_stop_the_start_with_one_line(tmp_path: Path) -> None:
    outcome = snakeline("serve", cwd=tmp_path, OIDC_ISSUER="https://login.example.org", AUTH="none")
    assert_one_line(outcome, "SNAKELINE_OIDC_ISSUER", "SNAKELINE_AUTH=oidc")


def test_a_port_in_use_stops_the_start_with_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert_one_line(snakeline("serve", cwd=tmp_path, PORT=port), port, "SNAKELINE_PORT")


def test_a_data_directory_that_cannot_be_made_stops_the_start_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    outcome = snakeline("serve", cwd=tmp_path, PORT="0", DATA_DIR=str(tmp_path / "file/data"))
    assert_one_line(outcome, str(tmp_path / "file/data"), "SNAKELINE_DATA_DIR")


@pytest.mark.parametrize("name", [b"caf\xe9", b"two\nlines"])
def test_a_data_directory_whose_name_is_no_text_stops_the_start_with_one_line(
    tmp_path: Path, name: bytes
) -> None:
    outcome = snakeline(
        "serve", cwd=tmp_path, PORT="0", DATA_DIR=os.fsdecode(os.fsencode(tmp_path) + b"/" + name)
    )
    assert_one_line(outcome, "SNAKELINE_DATA_DIR", "UTF-8")


def test_a_data_directory_in_use_stops_the_second_service_and_not_the_first(tmp_path: Path) -> None:
    with running_server(tmp_path) as first:
        outcome = snakeline("serve", cwd=tmp_path, PORT="0", DATA_DIR=str(tmp_path / "data"))
        assert_one_line(outcome, str(tmp_path / "data"), "in use by another service")
        assert first.client.get("/readyz").status_code == 200


def test_check_finds_all_that_the_stand_in_needs(tmp_path: Path) -> None:
    outcome = snakeline("check", "--json", cwd=tmp_path)
    report = json.loads(outcome.stdout)
    assert outcome.returncode == 0
    assert report["ok"]
    names = {check["name"] for check in report["checks"]}
    assert names >= {"settings", "callers", "engine", "isolation", "workflows"}
    assert list(tmp_path.iterdir()) == [], "a check makes nothing"


def test_check_shows_the_same_as_text(tmp_path: Path) -> None:
    outcome = snakeline("check", cwd=tmp_path)
    assert outcome.returncode == 0
    assert "✓ ok" in outcome.stdout
    assert "✗" not in outcome.stdout


def test_check_says_what_to_do_about_a_setting(tmp_path: Path) -> None:
    outcome = snakeline("check", "--json", cwd=tmp_path, ENGIN="mock")
    [check] = json.loads(outcome.stdout)["checks"]
    assert outcome.returncode == 1
    assert check["name"] == "settings"
    assert "SNAKELINE_ENGINE" in check["detail"]


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_check_says_what_is_missing(tmp_path: Path, form: tuple[str, ...]) -> None:
    outcome = snakeline("check", *form, cwd=tmp_path, ENGINE="snakemake", SNAKEMAKE="/nowhere/snakemake")
    assert outcome.returncode == 1
    assert "/nowhere/snakemake" in outcome.stdout
    assert outcome.stderr == ""


def test_check_leaves_a_running_service_alone(tmp_path: Path) -> None:
    with running_server(tmp_path) as running:
        outcome = snakeline("check", "--json", cwd=tmp_path, DATA_DIR=str(tmp_path / "data"))
        assert outcome.returncode == 0, outcome.stdout
        told = {check["name"]: check["detail"] for check in json.loads(outcome.stdout)["checks"]}
        assert "/readyz" in told["store"]
        # Whoever asks may be another user in another control group than the service.
        assert "the running one tells its own in /readyz" in told["isolation"]
        assert running.client.run()["status"] == "completed"

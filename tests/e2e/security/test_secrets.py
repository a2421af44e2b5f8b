"""No secret of the service and nothing of another job can be read by a job."""

from __future__ import annotations

import json
import os
import secrets
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.support import engines, planted_secrets, secrets_probe, stand_in_engine
from tests.support.keys import KeyedServer
from tests.support.levels import OPEN_HOUSE, isolating_server

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.server import LiveServer


OTHER_PATHS: Final = ("/events", "/keys", "/audit", "/metrics", "/readyz", "/healthz")
WALLS: Final = {"landlock": (), "uid": (*OPEN_HOUSE, "--without-landlock")}
"""What keeps jobs from the service's secrets, and what to start the service through to have it."""


PLANTED: Final = (sys.executable, planted_secrets.__file__)
# Under real Snakemake the probe is a rule's command, below a process that was forked warm.
PROBING_WORKFLOW: Final = """
import json
with open("asked.json", "w") as file:
    json.dump(dict(config), file)

rule probe:
    output: "probe.json"
    params: python=config["python"], program=config["program"]
    shell: "{params.python} -I -S {params.program} --configfile asked.json"
"""


def planted() -> str:
    return f"planted-{secrets.token_hex(16)}"


@pytest.fixture
def hidden(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """One secret for each place; that of the environment is handed to the service with all of ours."""
    places = ("environment", "database", "file", "parameter", "key", "mounted")
    chosen = {place: planted() for place in places}
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", chosen["environment"])
    monkeypatch.setenv("PLANTED_KEY", chosen["key"])
    monkeypatch.setenv("PLANTED_FILE", chosen["mounted"])
    return chosen


def probe(service: LiveServer, hidden: dict[str, str]) -> tuple[dict[str, set[str]], dict[str, int]]:
    """What a job finds when another job and the data directory have a secret each, and where it looked."""
    keyed = KeyedServer(service)
    secret = service.data_dir / "secret"
    secret.touch(0o600)  # as the service makes its files
    secret.write_text(hidden["file"])
    client = keyed.admin
    other = client.run(workflow=stand_in_engine.WORKFLOW, parameters={"text": hidden["parameter"]})
    assert other["status"] == "completed"
    here = f"/jobs/{other['id']}"
    paths = (here, f"{here}/logs", f"{here}/outputs/result.txt", "/jobs", *OTHER_PATHS)
    asked = {
        "data_dir": str(service.data_dir),
        "pid": service.process.pid,
        "urls": [service.url + path for path in paths],
    }
    job = client.run(workflow=stand_in_engine.WORKFLOW, parameters=asked)
    assert job["status"] == "completed", client.get(f"/jobs/{job['id']}/logs").text
    told = json.loads((service.data_dir / "jobs" / job["id"] / "work/probe.json").read_text())
    return {place: set(found) for place, found in told["found"].items()}, told["tried"]


def settings(directory: Path, hidden: dict[str, str]) -> dict[str, Any]:
    return {
        **stand_in_engine.installed(secrets_probe, directory),
        "DATABASE_URL": f"sqlite:///{directory}/data/{hidden['database']}.db",
        "AUTH": "keys",
    }


@pytest.mark.parametrize("apart_by", WALLS)
def test_a_job_finds_no_secret_anywhere(place: Path, hidden: dict[str, str], apart_by: str) -> None:
    through = WALLS[apart_by]
    if through and os.geteuid() != 0:
        pytest.skip("needs root: every job has a user of its own")
    with isolating_server(
        place, f"require:{apart_by}", through=(*PLANTED, *through), **settings(place, hidden)
    ) as service:
        found, tried = probe(service, hidden)
    assert found == {}
    assert tried.keys() >= {
        "service: environ",
        "service: memory",
        "files",
        "hard link",
        "own memory",
        "keyring",
        "API",
    }


@pytest.mark.snakemake
@pytest.mark.skipif(engines.snakemake_command() is None, reason="no Snakemake")
def test_a_rule_of_real_snakemake_finds_none_either(place: Path, hidden: dict[str, str]) -> None:
    """Nor does what its process has inherited, which was forked and not executed, hold any."""
    chosen = settings(place, hidden)
    folder = place / "workflows" / "probing"
    folder.mkdir()
    (folder / "Snakefile").write_text(PROBING_WORKFLOW)
    chosen["SNAKEMAKE"] = engines.snakemake_command()
    del chosen["DATABASE_URL"]  # which files must be hidden from it is no secret
    with isolating_server(place, "require:landlock", **chosen) as service:
        (service.data_dir / "secret").write_text(hidden["file"])
        job = KeyedServer(service).admin.run(
            workflow="probing",
            targets=["probe.json"],
            parameters={
                "data_dir": str(service.data_dir),
                "pid": service.process.pid,
                "python": sys.executable,
                "program": secrets_probe.__file__,
            },
        )
        assert job["status"] == "completed", job["error_message"]
        told = json.loads((service.data_dir / "jobs" / job["id"] / "work/probe.json").read_text())
    assert told["found"] == {}
    assert told["tried"].keys() >= {"snakeline-shim: memory", "service: memory", "files"}
    assert any(place.startswith("job's own ") for place in told["tried"])


@pytest.mark.skipif(os.geteuid() != 0, reason="another user's memory may be closed to it anyway")
def test_without_isolation_the_same_job_finds_them_all(place: Path, hidden: dict[str, str]) -> None:
    with isolating_server(place, "off", through=PLANTED, **settings(place, hidden)) as service:
        found, _ = probe(service, hidden)
    assert hidden["environment"] in found["service: environ"] | found["service: memory"]
    assert hidden["database"] in found["file names"]
    assert hidden["key"] in found["keyring"]
    assert {hidden["file"], hidden["parameter"], hidden["mounted"]} <= found["files"]

"""`snakeline keys` and `snakeline tenants`, beside a service that runs and without one."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import httpx2
import pytest
from typer.testing import CliRunner

from snakeline.cli import app
from tests.support.command import snakeline
from tests.support.keys import FIRST_KEY, KeyedServer, keyed_server
from tests.support.server import running_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from typer.testing import Result

KEY = re.compile(r"snk_[a-z0-9]{10}\.[A-Za-z0-9_-]{43}\n")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.fixture(scope="module")
def keyed(directory: Path) -> Iterator[KeyedServer]:
    with keyed_server(directory) as running:
        yield running


def command(*arguments: str, directory: Path, columns: int = 200, **settings: str) -> Result:
    """The command in this process, which is another than the service's."""
    given = {"DATA_DIR": str(directory / "data"), **settings}
    environ = {f"SNAKELINE_{name}": value for name, value in given.items()} | {"COLUMNS": str(columns)}
    return CliRunner().invoke(app, arguments, env=environ)


def done(*arguments: str, directory: Path) -> str:
    result = command(*arguments, directory=directory)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def prefix_of(key: str) -> str:
    return key.partition(".")[0]


def test_a_key_made_here_is_good_for_the_running_service_until_it_is_revoked_here(
    keyed: KeyedServer, directory: Path
) -> None:
    made = snakeline(
        *("keys", "create", "--name", "lims", "--scopes", "read,submit"),
        *("--tenant", "atlas", "--expires", "90d"),
        cwd=directory,
    )
    assert made.returncode == 0
    assert KEY.fullmatch(made.stdout)  # alone, ready for a script
    key = made.stdout.strip()
    assert f"{prefix_of(key)}: lims, tenant atlas, read,submit, until" in made.stderr
    assert key.partition(".")[2] not in made.stderr
    client = keyed.client(key)
    job = client.submit()
    assert client.wait_for(job["id"])["status"] == "completed"
    assert client.get("/keys").status_code == 403
    assert done("keys", "revoke", prefix_of(key), directory=directory) == f"{prefix_of(key)} is revoked.\n"
    assert client.get("/jobs").status_code == 401
    records = keyed.admin.get(f"/audit?subject={prefix_of(key)}").json()["items"]
    assert [(each["action"], each["actor"], each["address"]) for each in records] == [
        ("key.revoked", "operator", None),
        ("key.created", "operator", None),
    ]


def test_a_key_is_replaced_and_the_old_one_stays_good_for_as_long_as_told(
    keyed: KeyedServer, directory: Path
) -> None:
    old = keyed.key("read", name="turns")
    rotated = done("keys", "rotate", prefix_of(old), "--overlap", "1d", "--json", directory=directory)
    new = json.loads(rotated)
    assert (new["name"], new["scopes"]) == ("turns", ["read"])
    for key in (old, new["key"]):
        assert keyed.client(key).get("/jobs").status_code == 200
    listed = json.loads(done("keys", "list", "--json", directory=directory))["items"]
    ends = {each["prefix"]: each["expires_at"] for each in listed}
    assert ends[prefix_of(old)] is not None
    assert ends[new["prefix"]] is None
    text = done("keys", "list", directory=directory)
    assert prefix_of(old) in text
    assert old.partition(".")[2] not in text


@pytest.mark.usefixtures("keyed")
def test_a_list_that_is_too_wide_still_shows_what_is_to_be_typed(directory: Path) -> None:
    name = "a-name-that-takes-much-room-beside-all-the-others"
    made = json.loads(done("keys", "create", "--name", name, "--json", directory=directory))
    text = command("keys", "list", directory=directory, columns=60).stdout
    assert made["prefix"] in text
    assert "…" not in text


def test_a_quota_is_set_part_by_part(keyed: KeyedServer, directory: Path) -> None:
    done("tenants", "set", "boreas", "--cores", "4", "--gb", "0.5", directory=directory)
    done("tenants", "set", "boreas", "--pending", "9", "--cores", "default", directory=directory)
    told = next(each for each in keyed.admin.get("/tenants").json()["items"] if each["name"] == "boreas")
    assert told == {"name": "boreas", "max_cores": None, "max_pending": 9, "max_gb": 0.5}
    assert "boreas" in done("tenants", "list", directory=directory)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("keys", "create", "--name", "Lims"), "--name: must be"),
        (("keys", "create", "--name", "a", "--scopes", "root"), "--scopes: root is no scope"),
        (("keys", "create", "--name", "a", "--scopes", ","), "--scopes: name a scope"),
        (("keys", "create", "--name", "a", "--expires", "soon"), "'soon' is no length of time"),
        (("keys", "create", "--name", "a", "--expires", "0d"), "'0d' is no length of time"),
        (("keys", "create", "--name", "a", "--tenant", "a b"), "--tenant: must be"),
        (("keys", "revoke", "snk_abcdefghij"), "There is no key 'snk_abcdefghij'"),
        (("keys", "rotate", "nonsense"), "There is no key 'nonsense'"),
        (("keys", "revoke", f"snk_abcdefghij.{'s' * 43}"), "There is no key 'snk_abcdefghij'"),
        (("tenants", "set", "A"), "--name: must be"),
        (("tenants", "set", "a", "--cores", "many"), "--cores: 'many' is neither"),
        (("tenants", "set", "a", "--gb", "nan"), "--gb: 'nan' is neither"),
    ],
)
def test_what_cannot_be_done_is_one_line(directory: Path, arguments: tuple[str, ...], said: str) -> None:
    result = command(*arguments, directory=directory)
    assert (result.exit_code, result.stdout) == (1, "")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


def test_keys_in_memory_cannot_be_made_from_here(tmp_path: Path) -> None:
    result = command("keys", "create", "--name", "a", directory=tmp_path, DATABASE_URL="memory://")
    assert result.exit_code == 1
    assert "memory" in result.stderr


def test_a_key_may_be_made_before_the_first_start_and_then_none_is_printed(tmp_path: Path) -> None:
    key = done("keys", "create", "--name", "first", "--tenant", "*", directory=tmp_path).strip()
    with running_server(tmp_path, AUTH="keys") as server:
        server.client.headers["X-API-Key"] = key
        assert not FIRST_KEY.search(server.log)
        assert server.client.get("/jobs").status_code == 200


def test_reachable_from_elsewhere_it_prints_a_key_for_everything_once(tmp_path: Path) -> None:
    with running_server(tmp_path, HOST="0.0.0.0") as server:
        found = FIRST_KEY.findall(server.log)
        assert len(found) == 1
        assert server.log.count(found[0].partition(".")[2]) == 1
        assert not [line for line in server.log.splitlines() if line.startswith("{") and "snk_" in line]
        assert httpx2.get(f"{server.url}/jobs", trust_env=False).status_code == 401
        server.client.headers["Authorization"] = f"Bearer {found[0]}"
        for path in ("/jobs", "/keys", "/tenants", "/audit", "/metrics"):
            assert server.client.get(path).status_code == 200
    with running_server(tmp_path, HOST="0.0.0.0") as again:
        assert not FIRST_KEY.search(again.log)
        again.client.headers["Authorization"] = f"Bearer {found[0]}"
        assert again.client.get("/jobs").status_code == 200

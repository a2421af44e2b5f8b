"""Which paths a job is allowed to read, so that the service's data stays hidden."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from runner.errors import IsolationUnavailable
from runner.isolation import landlock, probe
from runner.isolation.secret_places import secret_places

if TYPE_CHECKING:
    from pathlib import Path


def seen(*hidden: str) -> set[str]:
    view = landlock.SystemView(hidden)
    view.look()
    return {*view.folders(), *view.files()}


def test_the_neighbours_all_along_the_way_are_seen_and_the_way_is_not(tmp_path: Path) -> None:
    data = tmp_path / "srv" / "data"
    data.mkdir(parents=True)
    (tmp_path / "refs").mkdir()
    (tmp_path / "srv" / "file.txt").touch()
    (tmp_path / "srv" / "data-beside").mkdir()
    paths = seen(str(data))
    assert {f"{tmp_path}/refs", f"{tmp_path}/srv/file.txt", f"{tmp_path}/srv/data-beside"} <= paths
    assert not {"/", str(tmp_path), f"{tmp_path}/srv", str(data), "/dev"} & paths
    assert "/proc" in paths


def test_a_link_to_what_is_hidden_is_no_way_in(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (tmp_path / "link").symlink_to(data)
    assert not {f"{tmp_path}/link", f"{tmp_path}/data"} & seen(str(data))


def test_a_database_is_hidden_with_all_that_stands_beside_it(tmp_path: Path) -> None:
    for name in ("store.db", "store.db-wal", "store.db-shm", "store.txt"):
        (tmp_path / name).touch()
    assert {p for p in seen(f"{tmp_path}/store.db*") if p.startswith(str(tmp_path))} == {
        f"{tmp_path}/store.txt"
    }


def test_what_comes_later_is_seen_by_the_next_look(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    view = landlock.SystemView([str(data)])
    view.look()
    before = view.folders()
    view.look()
    assert view.folders() is before, "nothing has changed"
    (tmp_path / "new").mkdir()
    view.look()
    assert f"{tmp_path}/new" in view.folders()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/data/snakeline", ["/mnt/disk/snakeline", "/srv/part/snakeline"]),
        ("/data", ["/mnt/disk", "/srv/part", "/srv/jobs"]),
        ("/data/other", ["/mnt/disk/other", "/srv/part/other"]),
        ("/home/x", []),
    ],
)
def test_every_other_mount_of_the_data_is_found(path: str, expected: list[str]) -> None:
    mountinfo = (
        "20 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "21 20 8:2 /vol /data rw - ext4 /dev/sda2 rw\n"
        "22 20 8:2 /vol /mnt/disk rw shared:1 - ext4 /dev/sda2 rw\n"
        "23 20 8:2 /vol /srv/part rw - ext4 /dev/sda2 rw\n"
        "24 20 8:2 /vol/snakeline/jobs /srv/jobs rw - ext4 /dev/sda2 rw\n"
        "25 20 8:3 /vol /elsewhere rw - ext4 /dev/sda3 rw\n"
    )
    found = landlock.aliases(path, mountinfo)
    if path == "/data/snakeline":
        expected = [*expected, "/srv/jobs"]
    assert sorted(found) == sorted(expected)


@pytest.mark.parametrize(
    ("abi", "rights"), [(1, 13), (2, 14), (3, 15), (4, 15), (5, 16), (6, 16), (7, 16), (9, 16)]
)
def test_a_kernel_is_asked_for_no_right_that_it_does_not_know(abi: int, rights: int) -> None:
    assert landlock.file_rights(abi) == (1 << rights) - 1


def test_a_folder_for_jobs_must_not_contain_the_data(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    scope = probe.Scope(str(data), writable=(str(tmp_path),))
    if landlock.abi_version() < landlock.LEAST_ABI:
        pytest.skip("no Landlock here")
    with pytest.raises(IsolationUnavailable, match=r"SNAKELINE_JOB_WRITABLE: .* name the folders beside it"):
        probe.find(scope)


def test_data_in_shared_memory_takes_the_default_folder_away_and_nothing_fails() -> None:
    scope = probe.Scope("/dev/shm/not/there", writable=probe.DEFAULT_WRITABLE)
    rules = probe.find(scope).measures.files
    assert rules is None or rules.writable == ()


def test_what_is_required_and_missing_is_said_in_one_line() -> None:
    level = probe.IsolationLevel("subreaper", ("landlock",), "best effort: …", certain=False)
    assert probe.unmet("auto", level) is None
    assert probe.unmet("require:landlock+subreaper", level) is None
    told = probe.unmet("require:cgroup+landlock", level)
    assert told is not None
    assert "\n" not in told
    assert "cgroup: give the service a writable control group" in told
    assert level.label == "subreaper (best effort)"


def test_off_is_what_it_says() -> None:
    found = probe.find(probe.Scope(os.getcwd()), wanted="off")
    assert found.measures == type(found.measures)()
    assert (found.level.name, found.level.certain, found.level.protections) == ("subreaper", False, ())


def test_the_usual_places_of_secrets_are_not_seen(tmp_path: Path) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".config" / "gcloud").mkdir(parents=True)
    (tmp_path / ".config" / "other").mkdir()
    (tmp_path / "refs").mkdir()
    places = secret_places(str(tmp_path))
    assert {"/run/secrets", "/run/credentials", f"{tmp_path}/.ssh"} <= {*places}
    assert f"{tmp_path}/.aws" not in places, "it is not there"
    assert {p for p in seen(*places) if p.startswith(str(tmp_path))} == {
        f"{tmp_path}/.config/other",
        f"{tmp_path}/refs",
    }


def test_a_group_that_a_job_may_leave_is_called_best_effort(tmp_path: Path) -> None:
    found = probe.find(probe.Scope(str(tmp_path)), wanted="without:landlock", is_service=False)
    assert found.measures.files is None
    assert "no Landlock: switched off" in found.level.detail
    assert not found.level.certain
    if found.level.name == "cgroup":
        assert probe.MAY_LEAVE in found.level.detail


@pytest.mark.parametrize(
    ("wanted", "trouble"),
    [
        ("auto", None),
        ("require:cgroup+uid+pid_namespace+memory_limit", None),
        ("without:landlock+cgroup+uid", None),
        ("require:none", "none is unknown behind require"),
        ("require:jail", "jail is unknown behind require"),
        ("without:subreaper", "subreaper is unknown behind without"),
    ],
)
def test_only_what_there_is_can_be_required_or_left_out(wanted: str, trouble: str | None) -> None:
    told = probe.misnamed(wanted)
    assert (told is None) if trouble is None else (told is not None and told.startswith(trouble))

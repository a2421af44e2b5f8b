"""Where a service that is root cannot give that up it says why, in one line, and what to do."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runner.attempt_files import try_lock
from runner.backends.launcher_choice import cold_spec
from runner.data_owner import hand_over, is_handed_over, stay_root
from runner.isolation.job_users import JobUsers
from runner.isolation.probe import IsolationLevel
from runner.isolation.uids import UidRange
from runner.privilege_separation import NotSeparable, find_users, with_users, without_users
from tests.support.command import snakeline_with
from tests.support.mounts import small_disk
from tests.support.runners import settings_for
from tests.support.server import service_environment
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it is about giving that up")

SERVICE, JOB = 1_980_000_000, 1_980_000_001


def obstacle(data_dir: Path, *, python: str = sys.executable, **changes: Any) -> str:
    with pytest.raises(NotSeparable) as refused:
        find_users(settings_for(data_dir, **changes), [cold_spec(python)])
    text = str(refused.value)
    assert "\n" not in text
    return text


@pytest.mark.skipif(os.geteuid() == 0, reason="this process is root")
def test_who_is_not_root_cannot_give_it_up(tmp_path: Path) -> None:
    assert "not started as root" in obstacle(tmp_path)


@needs_root
def test_a_folder_that_is_closed_to_others_is_named(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    assert "is not searchable for others" in obstacle(closed / "data")


@needs_root
@pytest.mark.parametrize(
    ("user", "said"),
    [
        ("no-such-user", "is no account here"),
        ("root", "neither root nor"),
        ("0", "neither root nor"),
        ("1900000007", "nor one of the jobs' users"),
        ("1234:no-such-group", "is no account here"),
    ],
)
def test_a_user_that_cannot_be_the_services_is_refused(tmp_path: Path, user: str, said: str) -> None:
    assert said in obstacle(tmp_path, user=user)


@needs_root
def test_who_named_a_user_in_vain_does_not_get_a_service_that_stays_root(tmp_path: Path) -> None:
    settings = {"DATA_DIR": str(tmp_path / "data"), "PORT": "0", "USER": "no-such-user"}
    for command in ("serve", "check"):
        done = snakeline_with(service_environment(settings), command, cwd=tmp_path)
        assert done.returncode != 0
        assert "SNAKELINE_USER=no-such-user is no account here" in " ".join(
            (done.stdout + done.stderr).split()
        )


@needs_root
def test_a_store_outside_of_the_data_directory_is_not_handed_over(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/elsewhere.db"
    assert "outside of the data directory" in obstacle(tmp_path / "data", database_url=url)


@needs_root
@pytest.mark.parametrize("by", ["owner", "group", "folder"])
def test_what_others_can_change_is_not_run_as_root(by: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        python = folder / "python"
        python.symlink_to(sys.executable)
        if by == "folder":
            folder.chmod(0o777)
        elif by == "owner":
            os.chown(folder, 1000, 0)
        else:
            folder.chmod(0o775)
            os.chown(folder, 0, 1000)
        assert f"{folder} is not root's alone to change" in obstacle(folder / "data", python=str(python))


@needs_root
@pytest.mark.parametrize("how", ["owned", "group", "sticky", "link"])
def test_the_services_user_cannot_have_another_folder_handed_over(how: str) -> None:
    """What it can put in place of the data directory would be its own after the next start as root."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        place = folder / "place"
        place.mkdir()
        data_dir = place / "data"
        if how == "link":
            (folder / "real").mkdir()
            os.chown(place, SERVICE, SERVICE)
            data_dir.symlink_to(folder / "real")
        elif how == "owned":
            os.chown(place, SERVICE, SERVICE)
        elif how == "group":
            os.chown(place, 0, SERVICE)
            place.chmod(0o775)
        else:
            place.chmod(0o1777)
        said = obstacle(data_dir, user=str(SERVICE))
        assert f"may change {place}, and could put" in said


def obstacle_through(*command: str, data_dir: Path) -> str:
    """What stands in the way of a process that the command starts."""
    script = (
        "import sys; from pathlib import Path; from tests.support.runners import settings_for\n"
        "from runner.privilege_separation import NotSeparable, find_users\n"
        "try: find_users(settings_for(Path(sys.argv[1])), [])\n"
        "except NotSeparable as error: print(error)"
    )
    done = subprocess.run(
        [*command, sys.executable, "-c", script, str(data_dir)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if command[0] in done.stderr:
        pytest.skip(f"refused here: {done.stderr.strip()}")
    return done.stdout


@needs_root
def test_a_namespace_without_the_ids_is_told_of(tmp_path: Path) -> None:
    said = obstacle_through("unshare", "--user", "--map-root-user", data_dir=tmp_path)
    assert "neither the ids 1900000000-1900009999 nor 50000-59999" in said


@needs_root
def test_root_without_its_powers_is_told_which_it_lacks(tmp_path: Path) -> None:
    said = obstacle_through("setpriv", "--bounding-set=-chown,-kill", data_dir=tmp_path)
    assert "lacks CAP_CHOWN, CAP_KILL" in said


def test_the_level_says_whether_jobs_have_users_of_their_own() -> None:
    best_effort = IsolationLevel(
        "subreaper", ("landlock",), "best effort: tries; no control groups: x", False
    )
    groups = IsolationLevel("cgroup", (), "in one group; no Landlock: y", certain=True)
    assert (with_users(best_effort).name, with_users(best_effort).certain) == ("uid", True)
    assert with_users(best_effort).protections == ("landlock", "uid")
    assert "best effort" not in with_users(best_effort).detail
    assert "no control groups: x" in with_users(best_effort).detail
    assert (with_users(groups).name, with_users(groups).protections) == ("cgroup", ("uid",))
    assert without_users(groups, "because").detail.endswith("no user of its own for each job: because")


# ---------------------------------------------------------------- whose the data directory is


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        data_dir = Path(name) / "data"
        (data_dir / "jobs/one/attempts/1").mkdir(parents=True)
        (data_dir / "snakeline.db").touch(mode=0o600)
        (data_dir / "jobs/one/attempts/1/log.0").touch()
        yield data_dir


def users(data_dir: Path) -> JobUsers:
    return JobUsers(
        SERVICE, SERVICE, UidRange(JOB, JOB + 9), str(data_dir.parent / "uids"), f"{data_dir}/jobs"
    )


def owner(path: Path) -> int:
    return path.lstat().st_uid


@needs_root
def test_all_data_is_handed_over_once_and_later_only_what_root_made_since(data_dir: Path) -> None:
    job = data_dir / "jobs/one/attempts/1/log.0"
    given_away = data_dir / "jobs/one/work"
    given_away.mkdir()
    os.chown(given_away, JOB, JOB)
    hand_over(data_dir, users(data_dir))
    assert {owner(path) for path in (data_dir, data_dir / "snakeline.db", data_dir / "jobs", job)} == {
        SERVICE
    }
    assert owner(given_away) == JOB
    assert data_dir.stat().st_mode & 0o001
    assert is_handed_over(str(data_dir), SERVICE)
    assert not is_handed_over(str(data_dir), SERVICE + 1)
    (data_dir / "lock").touch()
    os.chown(job, 0, 0)
    hand_over(data_dir, users(data_dir))
    assert owner(data_dir / "lock") == SERVICE
    assert owner(job) == 0  # not looked at again
    stay_root(data_dir)
    assert not is_handed_over(str(data_dir), SERVICE)
    hand_over(data_dir, users(data_dir))
    assert owner(job) == SERVICE


@needs_root
def test_the_data_directory_and_folders_in_it_may_be_volumes_of_their_own(data_dir: Path) -> None:
    with small_disk(data_dir), small_disk(data_dir / "jobs"):
        (data_dir / "jobs/one").mkdir()
        hand_over(data_dir, users(data_dir))
        assert {owner(path) for path in (data_dir, data_dir / "jobs", data_dir / "jobs/one")} == {SERVICE}
        os.chown(data_dir / "jobs", 0, 0)
        hand_over(data_dir, users(data_dir))
        assert owner(data_dir / "jobs") == SERVICE


@needs_root
def test_what_an_earlier_services_user_owned_is_handed_over_and_nobody_elses(data_dir: Path) -> None:
    log = data_dir / "jobs/one/attempts/1/log.0"
    hand_over(data_dir, users(data_dir))
    (data_dir / "jobs/one/others").touch()
    os.chown(data_dir / "jobs/one/others", SERVICE - 2, SERVICE - 2)
    other = replace(users(data_dir), service_uid=SERVICE - 1, service_gid=SERVICE - 1)
    hand_over(data_dir, other)
    assert {owner(path) for path in (data_dir, data_dir / "snakeline.db", log)} == {SERVICE - 1}
    assert owner(data_dir / "jobs/one/others") == SERVICE - 2


@needs_root
def test_an_earlier_services_user_may_have_become_one_that_is_kept_for_jobs(data_dir: Path) -> None:
    """As when the service is given an account, and had the first of its ids before."""
    hand_over(data_dir, replace(users(data_dir), service_uid=JOB, service_gid=JOB))
    hand_over(data_dir, users(data_dir))
    places = (data_dir, data_dir / "snakeline.db", data_dir / "jobs/one/attempts/1/log.0")
    assert {owner(path) for path in places} == {SERVICE}


@needs_root
def test_nothing_outside_is_handed_over_by_a_link(data_dir: Path) -> None:
    outside = data_dir.parent / "outside"
    outside.mkdir()
    (outside / "file").touch()
    (data_dir / "link").symlink_to(outside)
    (data_dir / "jobs/two").symlink_to(outside)
    os.link(outside / "file", data_dir / "jobs/one/linked")
    for _ in range(2):
        hand_over(data_dir, users(data_dir))
        assert owner(outside) == owner(outside / "file") == 0


@needs_root
def test_a_mark_that_is_not_roots_is_not_believed(data_dir: Path) -> None:
    (data_dir / "owner").write_text(f"{SERVICE}\n")
    os.chown(data_dir / "owner", SERVICE, SERVICE)
    assert not is_handed_over(str(data_dir), SERVICE)


@needs_root
def test_while_jobs_of_roots_still_run_root_is_not_given_up() -> None:
    with tempfile.TemporaryDirectory() as name:
        attempt = Path(name) / "data/jobs/one/attempts/1"
        attempt.mkdir(parents=True)
        holding = subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"from {try_lock.__module__} import try_lock; try_lock({str(attempt / 'lock')!r}); input()",
            ],
            cwd=ROOT,
            stdin=subprocess.PIPE,
        )
        try:
            wait_until((attempt / "lock").exists)
            script = (
                "import sys; from runner.privilege_separation import require_no_job_of_roots, NotSeparable\n"
                "try: require_no_job_of_roots(sys.argv[1], 5)\n"
                "except NotSeparable as error: print(error)"
            )

            def said() -> str:
                command = [sys.executable, "-c", script, f"{name}/data"]
                return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

            assert "still run" in wait_until(said, what="the lock to be held")
        finally:
            holding.communicate(b"\n")

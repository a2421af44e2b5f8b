"""A workflow's version is what its folder holds, and what jobs run is a copy that has exactly that."""

from __future__ import annotations

import os
import re
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runner import folder_copy, workflow_versions
from runner.errors import JobFilesGone, StorageFull, WorkflowNotFound, WorkflowUnavailable
from runner.folder_version import Look, look_at, version_of
from runner.jobs import Job, JobSpec, JobStatus
from runner.workflow_pins import FolderPins
from runner.workflow_versions import WorkflowVersions
from runner.workflows import FolderRegistry
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.ports import PinnedWorkflow

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def tree(folder: Path) -> Path:
    (folder / "scripts").mkdir(parents=True)
    (folder / "Snakefile").write_text("rule a:\n")
    (folder / "scripts" / "a.py").write_text("1")
    (folder / "link").symlink_to("scripts/a.py")
    (folder / "empty").mkdir()
    return folder


def version(folder: Path) -> str:
    return version_of(str(folder), set())


def a_job(pinned: PinnedWorkflow) -> Job:
    spec = JobSpec(workflow=pinned.workflow.name)
    job = Job("019aaaac", spec, JobStatus.PENDING, "mock", created_at=NOON, updated_at=NOON)
    return replace(job, workflow_version=pinned.version)


class House:
    def __init__(self, path: Path) -> None:
        self.folder = tree(path / "workflows" / "one")
        self.data = path / "data"
        self.data.mkdir()
        self.versions = WorkflowVersions(self.data)
        self.pins = FolderPins(self.data, FolderRegistry(path / "workflows"), self.versions)

    def kept(self) -> list[str]:
        return sorted(os.listdir(self.data / "workflows" / "versions"))

    def sweep(self, *needed: str) -> None:
        self.versions.sweep(lambda each: each in {*needed, *self.pins.held()}, lambda: None)


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    monkeypatch.setattr("runner.workflow_pins._SHARE", 1e9)  # a look is due at once
    return House(tmp_path)


# ---------------------------------------------------------------- the version


def test_the_version_is_the_same_wherever_and_whenever_the_folder_was_made(tmp_path: Path) -> None:
    one, two = tree(tmp_path / "one"), tree(tmp_path / "two")
    os.utime(two / "Snakefile", (1, 1))
    os.chmod(two / "Snakefile", 0o600)
    (two / ".git").mkdir()
    (two / ".git" / "HEAD").write_text("x")
    (two / "scripts" / "__pycache__").mkdir()
    assert version(one) == version(two)
    assert re.fullmatch("sha256:[0-9a-f]{64}", version(one))


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "scripts" / "a.py").write_text("2"),
        lambda folder: (folder / "scripts" / "a.py").chmod(0o755),
        lambda folder: (folder / "scripts" / "a.py").rename(folder / "scripts" / "b.py"),
        lambda folder: (folder / "empty").rmdir(),
        lambda folder: (folder / "new").write_text(""),
        lambda folder: ((folder / "link").unlink(), (folder / "link").symlink_to("Snakefile")),
        lambda folder: ((folder / "link").unlink(), (folder / "link").write_text("1")),
    ],
)
def test_whatever_changes_in_what_jobs_would_get_changes_the_version(
    tmp_path: Path, change: Callable[[Path], object]
) -> None:
    folder = tree(tmp_path / "one")
    before, looked = version(folder), look_at(str(folder), set())
    change(folder)
    assert version(folder) != before
    assert look_at(str(folder), set()).digest != looked.digest


def test_a_look_just_after_a_change_is_not_trusted_to_see_the_next_one(tmp_path: Path) -> None:
    folder = tree(tmp_path / "one")
    assert not look_at(str(folder), set()).is_settled
    wait_until(lambda: look_at(str(folder), set()).is_settled, what="the change to be a while ago")


# ---------------------------------------------------------------- pins


def test_what_a_job_runs_is_the_folder_as_it_was_pinned(house: House) -> None:
    pinned = house.pins.pin("one")
    assert pinned.version == version(house.folder) == version(pinned.workflow.folder)
    assert house.pins.version(pinned.workflow) == pinned.version
    (house.folder / "scripts" / "a.py").write_text("changed since")
    again = house.pins.pin("one")
    assert (again.workflow.folder / "scripts" / "a.py").read_text() == "changed since"
    ran = house.pins.of(a_job(pinned))
    assert (ran.folder / "scripts" / "a.py").read_text() == "1"
    assert again.version != pinned.version
    assert len(house.kept()) == 2


def test_an_unchanged_folder_is_neither_read_nor_copied_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned = house.pins.pin("one")
    monkeypatch.setattr("runner.folder_version._JUST_NOW_S", -1.0)  # so that every look is settled
    house.pins.pin("one")
    monkeypatch.setattr(house.versions, "keep", lambda *_: pytest.fail("it was read"))
    for _ in range(3):
        assert house.pins.pin("one") == pinned
    assert house.pins.pinned("one") == pinned


def test_a_change_is_seen_by_the_look_that_takes_no_time(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.folder_version._JUST_NOW_S", -1.0)
    monkeypatch.setattr("runner.workflow_pins._SHORT_S", 60.0)
    assert house.pins.pinned("one") is None
    pinned = house.pins.pin("one")
    assert house.pins.pinned("one") == pinned
    (house.folder / "scripts" / "a.py").write_text("2")
    assert house.pins.pinned("one") is None
    assert house.pins.pin("one").version != pinned.version


def test_a_large_folder_is_not_looked_at_all_the_time_but_its_readme_and_its_schema_are(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.workflow_pins._SHARE", 1e-9)
    pinned = house.pins.pin("one")
    (house.folder / "scripts" / "a.py").write_text("2")
    assert house.pins.pinned("one") == house.pins.pin("one") == pinned
    (house.folder / "parameters.schema.json").write_text("{}")
    assert house.pins.pinned("one") is None
    assert house.pins.pin("one").version != pinned.version


@pytest.mark.parametrize("is_settled", [False, True])
def test_a_change_that_a_look_could_not_see_is_read(
    house: House, monkeypatch: pytest.MonkeyPatch, *, is_settled: bool
) -> None:
    """Within one tick of the clock a file may change twice and look the same."""
    monkeypatch.setattr("runner.workflow_pins.look_at", lambda *_: Look(b"same", is_settled, 0.0))
    pinned = house.pins.pin("one")
    (house.folder / "scripts" / "a.py").write_text("2")
    assert (house.pins.pin("one").version == pinned.version) is is_settled


def test_many_who_submit_at_once_make_one_copy(house: House) -> None:
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(house.pins.pin("one").version)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [version(house.folder)] * 8
    assert house.kept() == [found[0].removeprefix("sha256:")]


def test_a_folder_that_changes_while_it_is_copied_has_the_version_of_the_copy(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = folder_copy.copy_tree

    def change_and_copy(source: str, *arguments: object) -> None:
        Path(source, "scripts", "a.py").write_text("in the meantime")
        copy(source, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(workflow_versions, "copy_tree", change_and_copy)
    pinned = house.pins.pin("one")
    assert pinned.version == version(pinned.workflow.folder)
    assert (pinned.workflow.folder / "scripts" / "a.py").read_text() == "in the meantime"


def test_the_copy_is_durable_before_it_has_its_name(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(
        workflow_versions,
        "sync_file_system",
        lambda place: seen.append((Path(place).name[:5], house.kept())),
    )
    pinned = house.pins.pin("one")
    digits = pinned.version.removeprefix("sha256:")
    assert [place for place, _ in seen] == [".new-", "versi"]
    assert digits not in seen[0][1]
    assert digits in seen[1][1]


def test_a_data_directory_inside_the_workflow_is_not_copied_into_itself(tmp_path: Path) -> None:
    folder = tree(tmp_path / "workflows" / "one")
    data = folder / ".snakeline"
    data.mkdir()
    versions = WorkflowVersions(data)
    pinned = FolderPins(data, FolderRegistry(tmp_path / "workflows"), versions).pin("one")
    assert not (pinned.workflow.folder / ".snakeline").exists()
    assert (pinned.workflow.folder / "Snakefile").exists()


def test_a_folder_that_cannot_be_copied_is_told_apart_from_a_full_disk(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(WorkflowNotFound):
        house.pins.pin("two")
    assert "two" not in house.pins._locks

    def fail(number: int) -> None:
        def failing(*_: object) -> None:
            raise OSError(number, os.strerror(number), "/x/scripts/a.py")

        monkeypatch.setattr(workflow_versions, "copy_tree", failing)

    fail(13)
    with pytest.raises(WorkflowUnavailable, match=r"Permission denied: a\.py"):
        house.pins.pin("one")
    fail(28)
    with pytest.raises(StorageFull):
        house.pins.pin("one")
    assert house.kept() == []


def test_a_snakefile_that_is_a_link_out_of_the_folder_is_refused(house: House) -> None:
    (house.folder / "Snakefile").rename(house.folder.parent / "shared")
    (house.folder / "Snakefile").symlink_to("../shared")
    with pytest.raises(WorkflowUnavailable, match="leads out"):
        house.pins.pin("one")


# ---------------------------------------------------------------- how long they stay


def test_a_version_stays_as_long_as_anybody_needs_it(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    first = house.pins.pin("one")
    house.versions._wanted_at[first.version] -= 2 * workflow_versions._KEPT_S
    (house.folder / "scripts" / "a.py").write_text("2")
    second = house.pins.pin("one")
    house.sweep()
    assert len(house.kept()) == 2  # a job with the first may be on its way
    monkeypatch.setattr(workflow_versions, "_KEPT_S", 0.0)
    house.sweep(first.version)
    assert len(house.kept()) == 2
    house.sweep()
    assert house.kept() == [second.version.removeprefix("sha256:")]
    with pytest.raises(JobFilesGone):
        house.pins.of(a_job(first))


def test_a_job_that_has_its_own_copy_goes_on_without_the_version(house: House) -> None:
    job = replace(a_job(house.pins.pin("one")), workflow_version="sha256:" + "0" * 64)
    tree(house.data / "jobs" / job.id / "work")
    assert house.pins.of(job).snakefile == "Snakefile"


def test_what_was_left_by_copies_cut_short_is_swept(house: House) -> None:
    house.pins.pin("one")
    place = house.data / "workflows" / "versions"
    (place / ".new-1").mkdir()
    (place / ".old-2").mkdir()
    house.sweep()
    assert len(house.kept()) == 1

"""Crates and archives take little, whatever a job says of its tasks and has put into its folder."""

from __future__ import annotations

import asyncio
import tracemalloc
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from api import crate_files, ro_crate
from api.crate_files import CrateFiles
from api.problems import Problem
from api.ro_crate import RunCrate
from api.routes import outputs
from api.turns import Turns
from runner.errors import OutputNotFound
from runner.file_listing import ListedFile, TooManyFiles
from runner.jobs import Job, JobSpec, JobStatus
from runner.tasks import RuleGraph, Task, TaskPage, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.callers_jobs import CallersJobs

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
SNAKEFILE = ListedFile(b"Snakefile", 1, 0)


class ToldJob:
    """An ended job with these tasks and these files, for whoever may read it."""

    def __init__(self, *tasks: Task, files: tuple[ListedFile, ...] = (SNAKEFILE,), ends: bool = True) -> None:
        self.job = Job("one", JobSpec(), JobStatus.COMPLETED, "mock", NOW, NOW, completed_at=NOW)
        self._tasks, self._files, self._ends = tasks, files, ends

    def tasks(self, *_: Any) -> TaskPage:
        return TaskPage(self._tasks, len(self._tasks), {}, has_more=False, attempt=1)

    def graph(self, _: str) -> RuleGraph:
        return RuleGraph((), (), 1)

    def engine_version(self, _: str) -> None:
        return None

    def every_output(self, *_: Any) -> Iterator[tuple[ListedFile, None]]:
        yield from ((file, None) for file in self._files)
        if not self._ends:
            raise TooManyFiles

    def crate(self) -> RunCrate:
        jobs = cast("CallersJobs", self)
        files = CrateFiles(jobs, "one")
        return RunCrate(jobs, self.job, files, license_=None, log_bytes=0)


def task(number: int, *read: str) -> Task:
    return Task(number, "rule", TaskStatus.COMPLETED, started_at=NOW, input=read, output=(f"made/{number}",))


def test_a_path_of_very_many_folders_is_one_path() -> None:
    told = ToldJob(task(1, "a/" * 20_000 + "file"))
    tracemalloc.start()
    try:
        document = b"".join(told.crate().document())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(document) < 2**20
    assert peak < 2**23


@pytest.mark.parametrize(("name", "most"), [("_MOST_TASKS", 2), ("_MOST_PATH_CHARS", 60)])
def test_a_run_that_tells_too_much_has_no_crate(
    monkeypatch: pytest.MonkeyPatch, name: str, most: int
) -> None:
    monkeypatch.setattr(ro_crate, name, most)
    ToldJob(task(1, "a"), task(2, "a")).crate()
    with pytest.raises(Problem, match="too many for one document"):
        ToldJob(task(1, "a"), task(2, "b"), task(3, "c")).crate()


@pytest.mark.parametrize("cut_by", ["their number", "their paths", "all there is"])
def test_of_very_many_files_some_are_described(monkeypatch: pytest.MonkeyPatch, cut_by: str) -> None:
    if cut_by == "their number":
        monkeypatch.setattr(crate_files, "MOST_DESCRIBED", 2)
    if cut_by == "their paths":
        monkeypatch.setattr(crate_files, "_MOST_PATH_BYTES", 30)
    found = [SNAKEFILE, ListedFile(b"folder/in/it", 1, 0), ListedFile(b"folder/in/it too", 1, 0)]
    if cut_by == "all there is":
        del found[2]
    told = ToldJob(files=tuple(found), ends=cut_by != "all there is")
    files = CrateFiles(cast("CallersJobs", told), "one")
    assert files.files == found[:2]
    assert not files.is_whole


def test_a_folder_is_where_files_are_below_it() -> None:
    told = ToldJob(files=(SNAKEFILE, ListedFile(b"a/b/c", 1, 0), ListedFile(b"a/b-", 1, 0)))
    files = CrateFiles(cast("CallersJobs", told), "one")
    places = {path: files.place(path) for path in ("a", "a/b/", "a/b-", "a/b/c", "b", "a/b/c/d", "zz")}
    assert [path for path, place in places.items() if not place.startswith("#")] == [
        "a",
        "a/b/",
        "a/b-",
        "a/b/c",
    ]
    assert places["a/b/"] == "work/a/b/"


def test_a_folder_with_no_file_among_as_many_entries_as_are_looked_at_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def is_disconnected() -> bool:
        return False

    monkeypatch.setattr(outputs, "state_of", lambda _: SimpleNamespace(making=Turns(1)))
    request: Any = SimpleNamespace(method="GET", is_disconnected=is_disconnected)
    told: Any = ToldJob(files=(), ends=False)
    told.caller = SimpleNamespace(visible_tenant=None)
    with pytest.raises(OutputNotFound):
        asyncio.run(outputs._folder(request, told, "one", b"", hidden=False))

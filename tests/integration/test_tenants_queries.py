"""Another tenant's job costs the store what a missing one costs: the same questions, by the same words."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from runner.access import ALL_SCOPES, Caller
from runner.errors import JobNotFound
from runner.file_listing import FileQuery
from runner.job_outputs import OutputQuery
from runner.stores.sql.sqlite import SqliteFile
from runner.tasks import TaskQuery
from tests.support.runners import RunningRunner, settings_for

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator

    from runner.callers_jobs import CallersJobs
    from runner.jobs import Job

MISSING = "019ab5f0-1c2d-7e3f-8a4b-5c6d7e8f9a0b"
QUESTIONS: dict[str, Callable[[CallersJobs, str], object]] = {
    "get": lambda jobs, job_id: jobs.get(job_id),
    "log": lambda jobs, job_id: jobs.log(job_id),
    "log of an attempt": lambda jobs, job_id: jobs.log(job_id, 1),
    "outputs": lambda jobs, job_id: jobs.outputs(job_id, OutputQuery(FileQuery())),
    "open_output": lambda jobs, job_id: jobs.open_output(job_id, b"results/a.txt"),
    "tasks": lambda jobs, job_id: jobs.tasks(job_id, TaskQuery()),
    "task": lambda jobs, job_id: jobs.task(job_id, 0),
    "graph": lambda jobs, job_id: jobs.graph(job_id),
    "engine_version": lambda jobs, job_id: jobs.engine_version(job_id),
    "open_task_log": lambda jobs, job_id: jobs.open_task_log(job_id, 0),
    "open_report": lambda jobs, job_id: jobs.open_report(job_id),
    "make_report": lambda jobs, job_id: jobs.make_report(job_id),
    "cancel": lambda jobs, job_id: jobs.cancel(job_id),
    "retry": lambda jobs, job_id: jobs.retry(job_id),
    "delete": lambda jobs, job_id: jobs.delete(job_id),
}


class Asked:
    """What the thread of the test has asked of the database, values included."""

    def __init__(self) -> None:
        self.statements: list[str] = []
        self._thread = threading.get_ident()

    def __call__(self, statement: str) -> None:
        if threading.get_ident() == self._thread:
            self.statements.append(statement)


@pytest.fixture(scope="module")
def asked() -> Iterator[Asked]:
    asked = Asked()
    prepared = SqliteFile._prepared

    def traced(self: SqliteFile, pragmas: tuple[str, ...]) -> sqlite3.Connection:
        connection = prepared(self, pragmas)
        connection.set_trace_callback(asked)
        return connection

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SqliteFile, "_prepared", traced)
        yield asked


@pytest.fixture(scope="module")
def runner(asked: Asked, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRunner]:
    running = RunningRunner(settings_for(tmp_path_factory.mktemp("queries") / "data"))
    yield running
    running.close()


@pytest.fixture(scope="module")
def job(runner: RunningRunner) -> Job:
    return runner.ended(runner.submit())


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
def test_the_same_is_asked_of_the_store(
    runner: RunningRunner, job: Job, asked: Asked, question: Callable[[CallersJobs, str], object]
) -> None:
    jobs = runner.service.acting_for(Caller("a", "alpha", ALL_SCOPES))
    found = []
    for job_id in (job.id, MISSING):
        asked.statements.clear()
        with pytest.raises(JobNotFound):
            question(jobs, job_id)
        found.append([statement.replace(job_id, "ID") for statement in asked.statements])
    assert found[0] == found[1]
    assert [statement for statement in found[0] if "ID" in statement], "the trace sees nothing"
    assert runner.service.get(job.id) == job

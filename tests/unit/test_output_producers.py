"""Which task has made a file: the one whose declared output it is, or is in."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from runner import output_producers
from runner.jobs import Job, JobSpec, JobStatus
from runner.output_producers import OutputProducers, Producer
from runner.tasks import Task, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Iterable

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
WORK = "/".join(["/data/jobs/one", "work"])
DONE = TaskStatus.COMPLETED


def job(attempt: int = 1, status: JobStatus = JobStatus.COMPLETED, name: str = "one") -> Job:
    return Job(name, JobSpec(), status, "mock", NOW, NOW, attempt=attempt)


class Run:
    """The tasks of attempts as they are told, and how often somebody has asked."""

    def __init__(self, **of_attempts: list[Task]) -> None:
        self.of_attempts = of_attempts
        self.asked: list[tuple[str, int]] = []
        self.producers = OutputProducers("/data", self.tasks, most=4)

    def tasks(self, job: Job, attempt: int) -> Iterable[Task]:
        self.asked.append((job.id, attempt))
        return self.of_attempts.get(f"a{attempt}", [])


def task(number: int, rule: str, *output: str, status: TaskStatus = DONE) -> Task:
    return Task(number, rule, status, output=output)


@pytest.mark.parametrize(
    ("path", "made_by"),
    [
        (b"results/a.txt", Producer(1, "make", 1)),
        (b"results/folder/deep/file", Producer(2, "split", 1)),
        (b"results/folder", Producer(2, "split", 1)),
        (b"results/folder2", None),
        (b"results", None),
        (b"below/b", Producer(3, "absolute", 1)),
        (b"failed", None),
        (b"outside", None),
        ("größe".encode(), Producer(4, "odd", 1)),
        (b"\xff", Producer(4, "odd", 1)),
        (b"", None),
    ],
)
def test_a_file_is_its_tasks(path: bytes, made_by: Producer | None) -> None:
    run = Run(
        a1=[
            task(1, "make", "results/a.txt"),
            task(2, "split", "./results//folder/"),
            task(3, "absolute", f"{WORK}/below/b", f"{WORK}2/outside", "../outside", "/outside"),
            task(4, "odd", "größe", "\udcff", "\ud800", ""),
            task(5, "broken", "failed", status=TaskStatus.FAILED),
        ]
    )
    run.producers = OutputProducers("/data", run.tasks)
    assert run.producers.of_job(job()).of(path) == made_by


def test_a_file_is_the_last_attempts_that_made_it() -> None:
    run = Run(a1=[task(1, "old", "a"), task(2, "kept", "b")], a2=[task(1, "new", "a")])
    of_job = run.producers.of_job(job(attempt=2))
    assert (of_job.of(b"a"), of_job.of(b"b")) == (Producer(1, "new", 2), Producer(2, "kept", 1))


def test_an_ended_attempt_is_asked_once_and_a_running_one_as_it_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = Run(a1=[task(1, "first", "a")])
    running = job(attempt=2, status=JobStatus.RUNNING)
    assert run.producers.of_job(running).of(b"b") is None
    run.of_attempts["a2"] = [task(1, "second", "b")]
    monkeypatch.setattr(output_producers, "_REST", 0.0)
    assert run.producers.of_job(running).of(b"b") == Producer(1, "second", 2)
    # What took long to find out is not looked for again at once.
    monkeypatch.setattr(output_producers, "_REST", 1e9)
    run.of_attempts["a2"] = []
    assert run.producers.of_job(running).of(b"b") == Producer(1, "second", 2)
    assert run.asked == [("one", 1), ("one", 2), ("one", 2)]
    run.of_attempts["a2"] = [task(1, "last", "c")]
    ended = replace(running, status=JobStatus.FAILED)
    assert run.producers.of_job(ended).of(b"c") == Producer(1, "last", 2)
    run.producers.of_job(ended)
    assert run.asked == [("one", 1), ("one", 2), ("one", 2), ("one", 2)]


def test_what_is_remembered_is_bounded() -> None:
    run = Run(a1=[task(n, "rule", f"{n}") for n in range(3)])
    for name in ("one", "two", "one", "two"):
        run.producers.of_job(job(name=name))
    assert run.asked == [("one", 1), ("two", 1), ("one", 1), ("two", 1)]
    many = Run(a1=[task(n, "rule", f"{n}") for n in range(100)])
    of_job = many.producers.of_job(job())
    assert [of_job.of(b"%d" % n) is not None for n in (0, 3, 4, 99)] == [True, True, False, False]


def test_long_paths_count_as_many_and_those_of_no_file_are_not_kept() -> None:
    run = Run(a1=[task(n, "rule", f"{n}" + "x" * 300) for n in range(3)] + [task(9, "rule", "y" * 4096)])
    of_job = run.producers.of_job(job())
    kept = [of_job.of(b"%d" % n + b"x" * 300) is not None for n in range(3)]
    assert (kept, of_job.of(b"y" * 4096)) == ([True, True, False], None)


def test_few_of_very_many_attempts_are_asked() -> None:
    run = Run()
    run.producers.of_job(job(attempt=100))
    assert run.asked == [("one", n) for n in range(81, 101)]

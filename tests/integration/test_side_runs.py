"""Runs beside the jobs: as isolated and as surely ended, unknown to the store, and nothing of them stays."""

from __future__ import annotations

import errno
import os
import threading
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from runner.attempt_files import AttemptFiles
from runner.backends.local import LocalBackend
from runner.errors import BackendUnavailable, JobBusy, ShuttingDown, StorageFull
from runner.isolation.confinement import Measures
from runner.job_store import EndedJob
from runner.jobs import JobSpec, JobStatus
from runner.ports import Command, Ended, Handle, LaunchRequest, Running
from runner.repair import repair
from runner.side_answers import record_of
from runner.side_files import IN_A_JOB, SideFiles, new_id
from tests.support import groups, job_processes
from tests.support.runners import Hold, RunningRunner, settings_for
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runner.attempt_files import ExitRecord
    from runner.jobs import Job
    from runner.side_runs import SideRuns


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[RunningRunner]:
    with closing(RunningRunner(settings_for(tmp_path / "data", stop_grace_s=0.2))) as runner:
        yield runner


def side_runs(runner: RunningRunner) -> SideRuns:
    return runner.service._side_runs


def asking(script: str, handle: Handle | None = None, *, timeout_s: float = 30.0) -> LaunchRequest:
    """A shell in place of the engine."""
    handle = handle or Handle(new_id(), 1)
    environment = {"PATH": "/usr/bin:/bin", "SNAKELINE_JOB_ID": handle.job_id}
    command = Command(("/bin/sh", "-c", script), environment, title="side question")
    return LaunchRequest(handle, command, None, timeout_s)


def left_behind(data_dir: Path) -> list[str]:
    """What is there of side runs, apart from jobs."""
    return [
        f"{name}/{entry}"
        for name in ("jobs", "side", "trash")
        for entry in sorted(os.listdir(data_dir / name))
    ]


@contextmanager
def going_on(runner: RunningRunner, request: LaunchRequest) -> Iterator[list[ExitRecord | Exception]]:
    """Within, the run goes on, in a thread; after, what came of it is in the list."""
    found: list[ExitRecord | Exception] = []

    def wait() -> None:
        try:
            with side_runs(runner).run(request, request.timeout_s or 0) as end:
                found.append(record_of(end))
        except Exception as error:  # noqa: BLE001 - looked at by the test
            found.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        wait_until(lambda: job_processes.by_job().get(request.handle.job_id), what="the run to go on")
        yield found
    finally:
        thread.join(20)
    assert not thread.is_alive()


def test_its_files_are_there_to_be_read_and_then_gone_and_the_store_knows_nothing(
    runner: RunningRunner, tmp_path: Path
) -> None:
    secret = tmp_path / "data" / "snakeline.db"
    request = asking(f"echo told; echo made > file; cat {secret} && exit 99; sleep 300 & exit 3")
    files = AttemptFiles.of(runner.settings.data_dir, request.handle.job_id, 1)
    with side_runs(runner).run(request, 30) as end:
        assert record_of(end).exit_code == 3
        with open(f"{files.work}/file") as made:
            assert made.read() == "made\n"
        assert runner.service._logs.open(request.handle.job_id, 1).read(0, 5)[1] == b"told\n"
        assert left_behind(runner.settings.data_dir) == [
            f"jobs/{request.handle.job_id}",
            f"side/{request.handle.job_id}.1",
        ]
    assert left_behind(runner.settings.data_dir) == []
    assert request.handle.job_id not in job_processes.by_job()
    assert not any(runner.service.counts().values())
    assert not runner.service._store.events()


def test_one_that_takes_too_long_is_stopped_with_all_its_processes(runner: RunningRunner) -> None:
    request = asking("trap '' TERM; setsid sleep 300 & sleep 300 & wait; sleep 300", timeout_s=0.3)
    with side_runs(runner).run(request, 0.3) as end:
        assert isinstance(end, Ended)
        assert end.record.stopped == "timeout"
    assert request.handle.job_id not in job_processes.by_job()
    assert left_behind(runner.settings.data_dir) == []


def test_one_that_cannot_be_set_up_says_so_and_leaves_nothing(runner: RunningRunner) -> None:
    nowhere = LaunchRequest(Handle(new_id(), 1), Command(("/nonexistent/engine",), {}, title="x"), None, 5.0)
    with (
        pytest.raises(BackendUnavailable, match="/nonexistent/engine was not found"),
        side_runs(runner).run(nowhere, 5.0) as end,
    ):
        record_of(end)
    assert left_behind(runner.settings.data_dir) == []


@pytest.mark.parametrize(
    ("number", "told"), [(errno.ENOSPC, StorageFull), (errno.EACCES, BackendUnavailable)]
)
def test_what_the_disk_has_against_one_is_told_and_nothing_is_left(
    runner: RunningRunner, number: int, told: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("runner.backends.launch_files.write", refuse)
    with pytest.raises(told):
        runner.service.plan(JobSpec(), limit=1)
    assert left_behind(runner.settings.data_dir) == []


def test_a_service_that_stops_ends_them_at_once_and_takes_no_more(runner: RunningRunner) -> None:
    with going_on(runner, asking("trap '' TERM; while :; do sleep 300; done")) as found:
        runner.service.drain()
    assert isinstance(found[0], ShuttingDown)
    with pytest.raises(ShuttingDown), side_runs(runner).run(asking("exit 0"), 5):
        pass
    assert left_behind(runner.settings.data_dir) == []


# ---------------------------------------------------------------- after a crash


def test_what_a_killed_service_has_left_is_ended_and_removed_at_the_next_start(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "data")
    with closing(RunningRunner(settings)) as runner:
        job = runner.ended(runner.submit())
    files = SideFiles(settings.data_dir)
    plan, report = asking("sleep 300 & wait"), asking("sleep 300 & wait", Handle(job.id, IN_A_JOB))
    dead, dead_report = Handle(new_id(), 1), Handle(str(uuid4()), IN_A_JOB)
    with closing(
        LocalBackend(
            data_dir=str(settings.data_dir),
            python=settings.python,
            warm=lambda: None,
            log_limit_bytes=2**20,
            stop_grace_s=1.0,
            open_files=1024,
            measures=Measures,
        )
    ) as backend:
        backend.start()
        for request in (plan, report):
            files.note(request.handle)
            backend.launch(request)
            started = AttemptFiles.of(
                settings.data_dir, request.handle.job_id, request.handle.attempt
            ).started
            wait_until(lambda: backend.wait(0.01) or os.path.exists(started), what="the start")  # noqa: B023
            assert isinstance(backend.observe(request.handle), Running)
    for handle in (dead, dead_report):
        files.note(handle)
    os.makedirs(settings.data_dir / "jobs" / dead.job_id / "work" / "results")
    # Whoever says so: a job's own attempt is no side run.
    (settings.data_dir / "side" / f"{job.id}.1").touch()

    assert not repair(settings, apply=False).findings  # none of these is a job that the store has lost

    with closing(RunningRunner(settings)) as runner:
        theirs = [f"{job.id}.1"]
        wait_until(lambda: os.listdir(settings.data_dir / "side") == theirs, what="the side runs to be gone")
        wait_until(lambda: not os.listdir(settings.data_dir / "trash"), what="the trash to be emptied")
        assert os.listdir(settings.data_dir / "jobs") == [job.id]
        assert os.listdir(settings.data_dir / "jobs" / job.id / "attempts") == ["1"]
        assert {plan.handle.job_id, job.id}.isdisjoint(job_processes.by_job())
        with side_runs(runner).holding(job.id):
            pass


# ---------------------------------------------------------------- in a job's folder


def failed_job(runner: RunningRunner) -> Job:
    job = runner.ended(runner.submit(exit_code=1))
    assert job.status is JobStatus.FAILED
    return job


def test_a_job_in_whose_folder_one_runs_is_neither_started_nor_removed(
    runner: RunningRunner, tmp_path: Path
) -> None:
    job, hold = failed_job(runner), Hold(tmp_path)
    service = runner.service
    with ExitStack() as stack:
        stack.enter_context(side_runs(runner).holding(job.id))
        stack.enter_context(going_on(runner, asking(f"cat {hold.path}", Handle(job.id, IN_A_JOB))))
        with pytest.raises(JobBusy), side_runs(runner).holding(job.id):
            pass
        with pytest.raises(JobBusy):
            service.delete(job.id)
        ended = EndedJob(job.seq, job.id, job.completed_at or job.updated_at, job.created_at)
        runner._runner.retention._delete([ended], why="too old")
        assert service.get(job.id).status is JobStatus.FAILED
        service.retry(job.id)
        wait_until(lambda: service.figures().launches_postponed, what="the attempt to be put off")
        assert not (runner.job_dir(job) / "attempts" / "2").exists()
        hold.release()
    assert runner.ended(job).attempt == 2
    assert sorted(os.listdir(runner.job_dir(job) / "attempts")) == ["1", "2"]
    service.delete(job.id)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes control groups")
def test_a_job_stays_held_for_as_long_as_something_of_one_survives(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "data", isolation="off", stop_grace_s=0.1)
    with closing(RunningRunner(settings)) as runner, groups.freezer("side") as freezer:
        job = failed_job(runner)
        request = asking("sleep 300 & echo $! > child; wait", Handle(job.id, IN_A_JOB))
        with going_on(runner, request), side_runs(runner).holding(job.id):
            child = runner.work_dir(job) / "child"
            wait_until(lambda: child.exists() and child.read_text(), what="the child")
            freezer.freeze(int(child.read_text()))
            side_runs(runner)._stop(request.handle)
        with pytest.raises(JobBusy), side_runs(runner).holding(job.id):
            pass
        freezer.thaw()

        def is_free() -> bool:
            try:
                with side_runs(runner).holding(job.id):
                    return True
            except JobBusy:
                return False

        wait_until(is_free, what="the job to be free")
        wait_until(lambda: not os.listdir(settings.data_dir / "side"), what="its files to be removed")

"""What stands still without ending: shims, launchers, stores and single launches."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING

import psutil
import pytest

from runner.errors import StoreUnavailable
from runner.jobs import Change, JobSpec, JobStatus
from runner.ports import Ended, Running
from runner.stores.sql import SqlStore
from tests.support.attempts import Attempts
from tests.support.mounts import small_disk
from tests.support.runners import Hold, RunningRunner, settings_for
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from runner.job_store import Update
    from runner.jobs import Job


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[RunningRunner]:
    with contextlib.closing(RunningRunner(settings_for(tmp_path / "data"))) as runner:
        yield runner


def launcher_of(attempts: Attempts) -> psutil.Process:
    launcher = attempts.backend._launches.launcher
    assert launcher is not None
    return psutil.Process(launcher.pid)


# ---------------------------------------------------------------- shims


def test_a_stopped_shim_goes_on_by_itself_and_keeps_its_deadline(tmp_path: Path) -> None:
    with contextlib.closing(Attempts(tmp_path, warm=True, nudge_every_s=0.2)) as attempts:
        handle = attempts.launch("out=ready", "sleep=60", timeout_s=0.5)
        shim = psutil.Process(attempts.until_running(handle))
        attempts.until_log(handle, b"ready")
        shim.suspend()
        ended = attempts.end(handle)
        assert isinstance(ended, Ended)
        assert ended.record.stopped == "timeout"


def test_an_interruption_is_told_apart_from_a_cancel(tmp_path: Path) -> None:
    with contextlib.closing(Attempts(tmp_path, warm=True)) as attempts:
        plain = attempts.launch("out=ready", "sleep=60", job_id="plain")
        forced = attempts.launch("ignore-term", "out=ready", "sleep=60", job_id="forced")
        for handle in (plain, forced):
            attempts.until_running(handle)
            attempts.until_log(handle, b"ready")
            attempts.backend.stop(handle, why="interrupt")
        attempts.backend.stop(forced, why="interrupt", force=True)
        for handle, number in ((plain, 15), (forced, 9)):
            ended = attempts.end(handle)
            assert isinstance(ended, Ended)
            assert (ended.record.stopped, ended.record.exit_signal) == ("interrupt", number)


# ---------------------------------------------------------------- launchers


def test_a_launcher_that_hangs_is_replaced_and_its_requests_are_not_lost(tmp_path: Path) -> None:
    with contextlib.closing(Attempts(tmp_path, warm=True, launcher_within_s=0.3)) as attempts:
        assert isinstance(attempts.end(attempts.launch("exit=1", job_id="first")), Ended)
        hanging = launcher_of(attempts)
        hanging.suspend()
        ended = attempts.end(attempts.launch("exit=7", job_id="second"))
        assert isinstance(ended, Ended)
        assert ended.record.exit_code == 7
        assert launcher_of(attempts).pid != hanging.pid


def test_an_idle_launcher_is_never_taken_for_one_that_hangs(tmp_path: Path) -> None:
    with contextlib.closing(Attempts(tmp_path, warm=True, launcher_within_s=0.05)) as attempts:
        assert isinstance(attempts.end(attempts.launch("exit=1", job_id="first")), Ended)
        before = launcher_of(attempts).pid
        for _ in range(4):
            attempts.backend.wait(0.05)
        assert launcher_of(attempts).pid == before


def test_a_shim_whose_descriptor_did_not_fit_is_found_by_its_lock(tmp_path: Path) -> None:
    with contextlib.closing(Attempts(tmp_path, warm=False)) as attempts:
        assert isinstance(attempts.end(attempts.launch("exit=0", job_id="first")), Ended)
        hold = Hold(tmp_path)
        handle = attempts.launch(f"wait={hold.path}", "exit=9")
        wait_until(lambda: os.path.exists(attempts.files(handle).started), what="the attempt to be started")
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
        fillers: list[socket.socket] = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 8, hard))
        try:
            with contextlib.suppress(OSError):
                while True:
                    fillers.append(socket.socket())
            assert attempts.backend.wait(0.2) == []
        finally:
            for filler in fillers:
                filler.close()
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert isinstance(attempts.observe(handle), Running)
        hold.release()
        ended = attempts.end(handle)
        assert isinstance(ended, Ended)
        assert ended.record.exit_code == 9


def test_what_was_withdrawn_before_its_launch_stays_withdrawn_over_a_restart(tmp_path: Path) -> None:
    with contextlib.closing(Attempts(tmp_path, warm=True)) as attempts:
        hanging = launcher_of(attempts)
        hanging.suspend()  # before it was ready
        launcher = attempts.backend._launches.launcher
        if launcher is None or launcher.is_ready:
            pytest.skip("the launcher was ready before it could be stopped")
        handle = attempts.launch("exit=0")
        attempts.backend.stop(handle, why="cancel")
        attempts.reopen()
        found = attempts.observe(handle)
        assert isinstance(found, Ended)
        assert (found.record.exit_code, found.record.stopped) == (None, "cancel")


# ---------------------------------------------------------------- stores and single launches


@pytest.mark.parametrize("kind", [Change.CLAIMED, Change.ENDED])
def test_what_the_store_did_and_denied_is_found_out(
    runner: RunningRunner, monkeypatch: pytest.MonkeyPatch, kind: Change
) -> None:
    """As after a commit that is there although its fsync failed."""
    store = runner._runner._store
    denied: list[Update] = []

    def update(updates: Sequence[Update]) -> Future[list[Job | None]]:
        answer = SqlStore.update(store, updates)  # type: ignore[arg-type]
        if denied or updates[0].kind is not kind:
            return answer
        answer.result()
        denied.extend(updates)
        failed: Future[list[Job | None]] = Future()
        failed.set_exception(StoreUnavailable("The disk said no."))
        return failed

    monkeypatch.setattr(store, "update", update)
    job = runner.ended(runner.submit(exit_code=6))
    assert (job.exit_code, job.attempt) == (6, 1)
    assert denied
    assert runner.ended(runner.submit(JobSpec(cores=4))).exit_code == 0  # and its cores are free again


def test_an_attempt_that_cannot_be_launched_now_holds_up_no_other(runner: RunningRunner) -> None:
    everything = runner.submit(JobSpec(cores=4), seconds=30)
    runner.wait_for(everything, JobStatus.RUNNING)
    stuck = runner.submit()
    directory = runner.job_dir(stuck) / "attempts" / "1"
    directory.mkdir(parents=True)
    with small_disk(directory, options="size=4k"):
        others = [runner.submit() for _ in range(40)]
        runner.service.cancel(everything.id)
        began = time.monotonic()
        for job in others:
            assert runner.ended(job).status is JobStatus.COMPLETED
        assert time.monotonic() - began < 30  # one a second would be 40
        assert runner.service.get(stuck.id).status is JobStatus.RUNNING
        runner.service.cancel(stuck.id)
        assert runner.ended(stuck).status is JobStatus.CANCELLED

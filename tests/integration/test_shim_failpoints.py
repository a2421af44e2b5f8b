"""A shim that dies, fails or waits at each named point of launch and exit: exactly what becomes of it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from runner.backends.attempt_marks import RECORD_BYTES
from runner.ports import Ended, Handle, Lost, NotStarted, Running
from tests.support.attempts import Attempts
from tests.support.failpoints import POINTS, preload_of
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from runner.attempt_files import AttemptFiles, ExitRecord
    from runner.ports import Observation


WORKFLOW = ["Snakefile", "one.smk", "two.smk"]


class Workplace:
    """Attempts whose launcher has one failpoint, and a job that counts its starts and exits with 7."""

    def __init__(self, folder: Path, point: str, action: str) -> None:
        self.switch = folder / "switch"
        if action == "hold":
            os.mkfifo(self.switch)
        else:
            self.switch.touch()
        self._starts = folder / "starts"
        (folder / "data").mkdir()
        preload = preload_of(point, action, self.switch)
        self.attempts = Attempts(folder / "data", warm=True, preload=preload)
        for name in WORKFLOW:
            (self.attempts.source / name).write_text("rule all: input: []\n")
        self.handle = Handle(self.attempts.job_id, 1)

    @property
    def files(self) -> AttemptFiles:
        return self.attempts.files(self.handle)

    @property
    def starts(self) -> int:
        return len(self._starts.read_text().splitlines()) if self._starts.exists() else 0

    def launch(self, *acts: str, prepare: tuple[tuple[str, ...], ...] = ()) -> None:
        self.attempts.launch(f"count={self._starts}", *acts, "exit=7", prepare=prepare)

    def end(self) -> Observation:
        return self.attempts.end(self.handle)

    def run(self) -> Observation:
        self.launch()
        return self.end()

    def until_held(self) -> None:
        """The shim waits at the point, until `let_go`."""
        self.attempts.until_running(self.handle)

        def reader() -> bool:
            with contextlib.suppress(OSError):
                self._held = os.open(self.switch, os.O_WRONLY | os.O_NONBLOCK)
                return True
            return False

        wait_until(reader, what="the shim at its point")

    def let_go(self) -> None:
        os.unlink(self.switch)
        os.close(self._held)


@pytest.fixture
def workplace(tmp_path: Path) -> Iterator[Callable[[str, str], Workplace]]:
    with contextlib.ExitStack() as stack:

        def make(point: str, action: str) -> Workplace:
            workplace = Workplace(tmp_path, point, action)
            stack.enter_context(contextlib.closing(workplace.attempts))
            return workplace

        yield make


def ended(observation: Observation) -> ExitRecord:
    assert isinstance(observation, Ended), observation
    return observation.record


def is_result(observation: Observation) -> bool:
    record = ended(observation)
    return (record.exit_code, record.exit_signal, record.launch_error, record.stopped) == (
        7,
        None,
        None,
        None,
    )


# ---------------------------------------------------------------- dying at a point

NOT_STARTED = [
    *("launch.born", "launch.locked", "launch.reserved", "launch.fork", "launch.forked"),
    *("launch.copying", "launch.before_mark"),
]
LOST_UNSTARTED = ["launch.marked", "launch.mark_sync", "launch.mark_synced"]
LOST = [
    *("launch.told", "exit.ended", "exit.collected", "exit.before_record", "exit.written"),
    *("exit.record_sync", "exit.before_rename"),
]
ENDED = ["exit.renamed", "exit.directory_sync", "exit.recorded"]


def test_every_point_has_its_outcome() -> None:
    assert sorted([*NOT_STARTED, *LOST_UNSTARTED, *LOST, *ENDED]) == sorted(POINTS)


@pytest.mark.parametrize("point", NOT_STARTED)
def test_a_shim_that_dies_before_the_mark_has_started_nothing_and_the_next_one_runs_the_job(
    workplace: Callable[[str, str], Workplace], point: str
) -> None:
    work = workplace(point, "die")
    assert work.run() == NotStarted()
    assert not work.switch.exists()
    assert work.starts == 0
    assert is_result(work.run())
    assert work.starts == 1
    assert sorted(os.listdir(work.files.work)) == WORKFLOW


@pytest.mark.parametrize("point", [*LOST_UNSTARTED, *LOST])
def test_a_shim_that_dies_between_mark_and_record_is_lost_for_ever(
    workplace: Callable[[str, str], Workplace], point: str
) -> None:
    work = workplace(point, "die")
    assert isinstance(work.run(), Lost)
    assert not work.switch.exists()
    if point != "launch.told":  # there the job runs, until the kernel has ended it: both are possible
        assert work.starts == (0 if point in LOST_UNSTARTED else 1)
    before = work.starts
    assert isinstance(work.run(), Lost)
    assert work.starts == before


@pytest.mark.parametrize("point", ENDED)
def test_a_shim_that_dies_after_the_record_is_there_costs_nothing(
    workplace: Callable[[str, str], Workplace], point: str
) -> None:
    work = workplace(point, "die")
    assert is_result(work.run())
    assert not work.switch.exists()
    assert is_result(work.run())
    assert work.starts == 1


# ---------------------------------------------------------------- trouble before the mark


@pytest.mark.parametrize("error", ["EAGAIN", "ENOMEM", "ENOSPC", "EROFS", "EMFILE"])
@pytest.mark.parametrize("point", ["launch.fork", "launch.copying", "launch.before_mark"])
def test_what_ails_the_machine_before_the_mark_keeps_an_attempt_from_starting_and_heals(
    workplace: Callable[[str, str], Workplace], point: str, error: str
) -> None:
    work = workplace(point, error)
    for _ in range(2):
        assert work.run() == NotStarted()
    assert work.starts == 0
    assert not os.path.exists(work.files.work + ".new")  # the room is for others
    work.switch.unlink()
    assert is_result(work.run())


@pytest.mark.parametrize("point", ["launch.fork", "launch.copying", "launch.before_mark", "launch.mark_sync"])
def test_what_will_not_pass_is_told_as_an_attempt_that_could_not_be_launched(
    workplace: Callable[[str, str], Workplace], point: str
) -> None:
    work = workplace(point, "EIO")
    for _ in range(2):
        assert ended(work.run()).launch_error == "The job could not be set up: Input/output error."
        work.switch.unlink(missing_ok=True)
    assert work.starts == 0


def test_what_nobody_expects_before_the_mark_is_not_tried_for_ever(
    workplace: Callable[[str, str], Workplace],
) -> None:
    work = workplace("launch.copying", "RecursionError")
    for _ in range(2):
        assert ended(work.run()).launch_error == "The job could not be set up: RecursionError('too deep')."
    assert work.starts == 0


def test_a_deeply_nested_workflow_needs_no_more_descriptors_than_another(
    workplace: Callable[[str, str], Workplace],
) -> None:
    work = workplace("launch.copying", "die")
    work.switch.unlink()
    deep = work.attempts.source
    for _ in range(300):  # more than a shim may have open here
        deep = deep / "d"
        deep.mkdir()
    (deep / "file").touch()
    assert is_result(work.run())
    assert os.path.exists(str(deep / "file").replace(str(work.attempts.source), work.files.work))


def test_the_words_of_a_try_that_started_nothing_are_not_those_of_a_later_one(
    workplace: Callable[[str, str], Workplace],
) -> None:
    work = workplace("launch.fork", "EMFILE")
    assert work.run() == NotStarted()
    with open(work.files.crash) as crash:
        assert "Too many open files" in crash.read()
    work.switch.unlink()
    work.launch("out=ready", "sleep=60")
    shim = os.pidfd_open(work.attempts.until_running(work.handle))
    work.attempts.until_log(work.handle, b"ready")
    signal.pidfd_send_signal(shim, signal.SIGKILL)
    os.close(shim)
    lost = work.end()
    assert isinstance(lost, Lost)
    assert lost.detail.startswith("its supervising process ended without a record")
    assert "Too many open files" not in lost.detail


def test_a_mark_made_by_another_while_a_shim_prepares_keeps_it_from_starting_the_job(
    workplace: Callable[[str, str], Workplace],
) -> None:
    work = workplace("launch.before_mark", "hold")
    work.launch()
    work.until_held()
    with open(work.files.started, "x"):
        pass
    work.let_go()
    assert isinstance(work.end(), Lost)
    assert work.starts == 0


def test_an_attempt_stopped_before_its_mark_stays_stopped(
    workplace: Callable[[str, str], Workplace],
) -> None:
    work = workplace("launch.copying", "hold")
    work.launch()
    work.until_held()
    work.attempts.backend.stop(work.handle, why="cancel")
    work.let_go()
    for _ in range(2):
        record = ended(work.end())
        assert (record.exit_code, record.stopped) == (None, "cancel")
        assert not os.path.exists(work.files.started)
        work.launch()
    assert work.starts == 0


# ---------------------------------------------------------------- trouble after the mark


def test_an_engine_killed_before_it_was_told_to_run_is_an_attempt_that_could_not_be_launched(
    workplace: Callable[[str, str], Workplace],
) -> None:
    work = workplace("launch.mark_synced", "hold")
    work.launch()
    work.until_held()
    [engine] = psutil.Process(work.attempts.until_running(work.handle)).children()
    engine.kill()
    wait_until(lambda: engine.status() == psutil.STATUS_ZOMBIE, what="the engine's process is dead")
    work.let_go()
    assert ended(work.end()).launch_error == "The engine's process was killed before it could start."
    assert work.starts == 0


def test_a_further_command_waits_for_a_process_while_the_machine_has_none(
    workplace: Callable[[str, str], Workplace], tmp_path: Path
) -> None:
    work = workplace("launch.fork", "EAGAIN")
    work.switch.unlink()
    os.mkfifo(tmp_path / "first")
    work.launch(prepare=(work.attempts.actor(f"wait={tmp_path / 'first'}"),))
    work.attempts.until_running(work.handle)
    with open(tmp_path / "first", "wb"):  # its reader has begun
        work.switch.touch()
    pause = time.monotonic() + 0.3
    wait_until(lambda: time.monotonic() > pause, what="the second command has been refused")
    assert work.attempts.observe(work.handle) == Running()
    assert work.starts == 0
    work.switch.unlink()
    assert is_result(work.end())


@pytest.mark.parametrize("point", ["exit.record_sync", "exit.directory_sync"])
def test_a_sync_that_fails_does_not_cost_the_result(
    workplace: Callable[[str, str], Workplace], point: str
) -> None:
    assert is_result(workplace(point, "EIO").run())


@pytest.mark.parametrize("error", ["EROFS", "ENOSPC", "EIO"])
def test_a_record_that_cannot_be_put_in_place_is_kept_until_it_can_and_no_stop_ends_that(
    workplace: Callable[[str, str], Workplace], error: str
) -> None:
    work = workplace("exit.before_rename", error)
    work.launch("out=done")
    shim = work.attempts.until_running(work.handle)
    work.attempts.until_log(work.handle, b"done")
    wait_until(lambda: not psutil.Process(shim).children(), what="the job has ended")
    for force in (False, True):
        work.attempts.backend.stop(work.handle, why="cancel", force=force)
    pause = time.monotonic() + 0.2
    wait_until(lambda: time.monotonic() > pause, what="the record has been refused")
    assert work.attempts.observe(work.handle) == Running()
    assert not os.path.exists(work.files.exit)
    work.switch.unlink()
    assert is_result(work.end())


def test_a_temporary_record_that_was_removed_is_made_again_as_often_as_it_takes(
    workplace: Callable[[str, str], Workplace],
) -> None:
    work = workplace("exit.before_rename", "EROFS")
    temporary = work.files.exit + ".tmp"
    work.launch()
    shim = psutil.Process(work.attempts.until_running(work.handle))

    def waits() -> bool:
        written = os.path.exists(temporary) and 0 < os.stat(temporary).st_size < RECORD_BYTES
        return written and shim.status() == psutil.STATUS_SLEEPING

    for _ in range(2):
        wait_until(waits, what="the record waits to get its name")
        os.unlink(temporary)
    work.switch.unlink()
    assert is_result(work.end())

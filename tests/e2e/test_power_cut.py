"""The power is cut at any moment: what was told is there afterwards, what had started never starts again."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from runner.ports import Ended, Lost, NotStarted
from tests.support.attempts import Attempts
from tests.support.failpoints import preload_of
from tests.support.load import Load
from tests.support.planned_jobs import Plan, Starts, make_workflows
from tests.support.power_cut import PowerCutDisk
from tests.support.service_under_fire import ServiceUnderFire
from tests.support.stores import open_store
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.ports import Handle, Observation

pytestmark = pytest.mark.root
ROOT = Path(__file__).parents[2]
Recorder = Callable[[str, object], None]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[PowerCutDisk]:
    with PowerCutDisk(tmp_path / "disk") as disk:
        yield disk


@pytest.fixture
def attempts(disk: PowerCutDisk) -> Iterator[Attempts]:
    with contextlib.closing(Attempts(disk.folder, warm=True)) as attempts:
        disk.settle()
        yield attempts


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


# ---------------------------------------------------------------- one thing on the disk, then nothing


def test_a_result_that_was_told_is_there_after_the_power_was_cut(
    disk: PowerCutDisk, attempts: Attempts
) -> None:
    for code in (5, 0, 77):
        handle = attempts.launch(f"exit={code}", job_id=str(code))
        told = attempts.end(handle)
        disk.cut()
        disk.restore()
        attempts.reopen()
        assert attempts.observe(handle) == told
        assert isinstance(told, Ended)
        assert told.record.exit_code == code


def test_a_job_that_had_started_is_not_started_again_after_the_power_was_cut(
    disk: PowerCutDisk, attempts: Attempts, tmp_path: Path
) -> None:
    acts = (f"count={tmp_path / 'starts'}", "sleep=60")
    handle = attempts.launch(*acts)
    attempts.until_running(handle)
    wait_until(lambda: lines(tmp_path / "starts"), what="the job has started")
    disk.cut()
    disk.restore()
    attempts.reopen()
    assert isinstance(attempts.observe(handle), Lost)
    attempts.launch(*acts)
    assert isinstance(attempts.end(handle), Lost)
    assert len(lines(tmp_path / "starts")) == 1


def test_a_workflow_whose_copy_lost_its_content_is_whole_for_the_next_attempt(
    disk: PowerCutDisk, attempts: Attempts, tmp_path: Path
) -> None:
    workflow = b"rule all: input: []\n" * 1000
    (attempts.source / "Snakefile").write_bytes(workflow)
    disk.settle()
    handle = attempts.launch(f"count={tmp_path / 'starts'}", "sleep=60")
    attempts.until_running(handle)
    wait_until(lambda: lines(tmp_path / "starts"), what="the job has started")
    disk.cut()
    disk.restore()
    attempts.reopen()
    assert isinstance(attempts.observe(handle), Lost)
    copy = Path(attempts.files(handle).work) / "Snakefile"
    assert copy.stat().st_size < len(workflow)  # nobody has synced it
    ended = attempts.end(attempts.launch("exit=3", attempt=2))
    assert isinstance(ended, Ended)
    assert ended.record.exit_code == 3
    assert copy.read_bytes() == workflow


def test_a_record_never_has_its_name_before_it_has_its_content(disk: PowerCutDisk, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    preload = preload_of("exit.renamed", "hold", gate)
    with contextlib.closing(Attempts(disk.folder, warm=True, preload=preload)) as attempts:
        disk.settle()
        handle = attempts.launch("exit=5")
        attempts.until_running(handle)
        wait_until(lambda: os.path.exists(attempts.files(handle).exit), what="the record has its name")
        # What others sync takes the new name along, but not the content.
        other = os.open(disk.folder / "other", os.O_WRONLY | os.O_CREAT)
        os.fsync(other)
        os.close(other)
        disk.cut()
        disk.restore()
        attempts.reopen()
        observed = attempts.observe(handle)
        assert isinstance(observed, Ended)
        assert observed.record.exit_code == 5


def test_the_next_attempt_runs_the_whole_workflow_after_the_power_was_cut(
    disk: PowerCutDisk, attempts: Attempts, tmp_path: Path
) -> None:
    (attempts.source / "tool.sh").write_text("echo the whole workflow\n")
    disk.settle()
    handle = attempts.launch(f"count={tmp_path / 'starts'}", "sleep=60")
    attempts.until_running(handle)
    wait_until(lambda: lines(tmp_path / "starts"), what="the job has started")
    disk.cut()
    disk.restore()
    attempts.reopen()
    assert isinstance(attempts.observe(handle), Lost)
    again = attempts.launch_argv(("/bin/sh", "tool.sh"), attempt=2)
    assert isinstance(attempts.end(again), Ended)
    assert attempts.log(again) == b"the whole workflow\n"


def test_every_row_that_was_acknowledged_is_there_after_the_power_was_cut(
    disk: PowerCutDisk, tmp_path: Path, record_property: Recorder
) -> None:
    dice = random.Random(20266)
    rows: set[str] = set()
    for turn in range(3):
        rows |= written_until_cut(disk, tmp_path / f"acknowledged-{turn}", at_least=dice.randrange(5, 200))
        disk.restore()
        with contextlib.closing(open_store("sqlite", disk.folder)) as store:
            for row in rows:
                store.get(row)
        disk.settle()
    told(record_property, cuts=disk.cuts, rows=len(rows), lost=0)


def written_until_cut(disk: PowerCutDisk, acknowledged: Path, *, at_least: int) -> set[str]:
    """The rows that a store's writer was told are stored, before the power was cut in the middle of it."""
    command = [sys.executable, "-m", "tests.support.row_writer", str(disk.folder)]
    with acknowledged.open("wb") as output, subprocess.Popen(command, stdout=output, cwd=ROOT) as writer:
        wait_until(lambda: len(lines(acknowledged)) >= at_least, what="rows")
        disk.cut(writer.pid)
        writer.kill()
    return set(acknowledged.read_text().rpartition("\n")[0].splitlines())


# ---------------------------------------------------------------- everything at once


class Storm:
    """Many short attempts at once, until the power is cut; and what must be true of each afterwards."""

    def __init__(self, disk: PowerCutDisk, attempts: Attempts, folder: Path, *, seed: int) -> None:
        self._disk = disk
        self._attempts = attempts
        self._starts = folder
        self._dice = random.Random(seed)
        self._codes: dict[Handle, int] = {}
        self._told: dict[Handle, Observation] = {}
        self.announced = self.lost = self.unstarted = 0

    @property
    def launched(self) -> int:
        return len(self._codes)

    def blow(self) -> None:
        """Launch and hear of ends for a moment, but of one at least, then cut the power in their midst."""
        attempts, dice = self._attempts, self._dice
        fresh: set[Handle] = set()
        until = time.monotonic() + dice.uniform(0.02, 0.4)
        while time.monotonic() < until or not self._told:
            while len(fresh - self._told.keys()) < 6:
                fresh.add(self._launch())
            self._told.update(dict(attempts.backend.wait(0.005)))
        self._disk.cut(*(c.pid for c in psutil.Process().children() if c.name() == "snakeline-lnch"))
        self._disk.restore()
        attempts.reopen()
        for handle in fresh:
            self._check(handle)
            shutil.rmtree(attempts.files(handle).job_dir, ignore_errors=True)  # the disk is small
        self._disk.settle()

    def _launch(self) -> Handle:
        name = str(len(self._codes))
        code = self._dice.randrange(256)
        handle = self._attempts.launch(*self._acts(name, code), job_id=name)
        self._codes[handle] = code
        return handle

    def _acts(self, name: str, code: int) -> tuple[str, ...]:
        return (f"count={self._starts / name}", "out=some output", f"exit={code}")

    def _check(self, handle: Handle) -> None:
        attempts, code = self._attempts, self._codes[handle]
        name = handle.job_id.removeprefix(f"{attempts.job_id}-")
        observed = attempts.observe(handle)
        starts = lines(self._starts / name)
        if handle in self._told:
            assert observed == self._told[handle], f"announced and gone: {handle}"
            self.announced += 1
        if isinstance(observed, NotStarted):
            assert not starts, f"started and forgotten: {handle}"
            self.unstarted += 1
            attempts.launch(*self._acts(name, code), job_id=name)
            observed = attempts.end(handle)
        if isinstance(observed, Lost):
            self.lost += 1
            assert not os.path.exists(attempts.files(handle).exit), f"a record without content: {observed}"
        else:
            assert isinstance(observed, Ended)
            assert observed.record.exit_code == code
        assert len(lines(self._starts / name)) <= 1, f"started twice: {handle}"


@pytest.mark.parametrize(
    ("seed", "cuts"),
    [
        pytest.param(20267, 3, id="3"),
        pytest.param(20268, 300, id="300", marks=[pytest.mark.soak, pytest.mark.timeout(1800)]),
    ],
)
def test_power_cuts_over_many_attempts_take_no_announced_result_and_start_nothing_twice(
    disk: PowerCutDisk, attempts: Attempts, tmp_path: Path, record_property: Recorder, seed: int, cuts: int
) -> None:
    (tmp_path / "starts").mkdir()
    storm = Storm(disk, attempts, tmp_path / "starts", seed=seed)
    for _ in range(cuts):
        storm.blow()
    told(
        record_property,
        cuts=disk.cuts,
        attempts=storm.launched,
        announced=storm.announced,
        in_flight_and_lost=storm.lost,
        not_started_and_run_again=storm.unstarted,
        announced_and_gone=0,
        twice=0,
        wrong=0,
    )
    assert storm.announced > 0


# ---------------------------------------------------------------- the whole service


@pytest.mark.parametrize(
    ("seed", "cuts"),
    [
        pytest.param(20269, 2, id="2"),
        pytest.param(20270, 40, id="40", marks=[pytest.mark.soak, pytest.mark.timeout(1800)]),
    ],
)
def test_power_cuts_of_a_busy_service_take_no_acknowledged_job_and_no_result(
    tmp_path: Path, record_property: Recorder, seed: int, cuts: int
) -> None:
    dice = random.Random(seed)
    starts = Starts(tmp_path / "starts")
    settings = {"MAX_CORES": "8", "STOP_GRACE_S": "1", "WORKFLOWS_DIR": str(make_workflows(tmp_path))}
    told_ends: dict[str, tuple[object, ...]] = {}
    with (
        PowerCutDisk(tmp_path / "data") as disk,
        ServiceUnderFire(tmp_path, settings) as service,
        Load(service, starts.path, seed=seed, pace_s=0.02) as load,
    ):
        service.start().until_up()
        for _ in range(cuts):
            service.run_for(dice.uniform(0.3, 1.2))
            told_ends |= wait_until(partial(ends, service), what="a job to end")
            disk.cut(*filter(None, (service.process.pid, service.launcher_pid())))
            service.kill()
            disk.restore()
            service.start().until_up()
        load.finish()
        service.until_all_ended()
        now = ends(service)
        planned = load.acknowledged
    stored = {job_id: end for job_id, end in now.items() if job_id in planned}
    wrong = [
        (plan, stored[job_id])
        for job_id, plan in planned.items()
        if job_id in stored and stored[job_id] not in (plan_end(plan), LOST)
    ]
    numbers = {
        "cuts": cuts,
        "jobs": len(planned),
        "in_flight_and_lost": sum(end == LOST for end in stored.values()),
        "acknowledged_and_gone": len(planned.keys() - stored.keys()),
        "ends_changed": sum(now.get(job_id) != end for job_id, end in told_ends.items()),
        "twice": sum(times > 1 for times in starts.counted().values()),
        "wrong": len(wrong),
    }
    told(record_property, **numbers)
    assert told_ends
    assert numbers["in_flight_and_lost"] <= 8 * cuts
    assert [numbers[name] for name in ("acknowledged_and_gone", "ends_changed", "twice")] == [0, 0, 0]
    assert not wrong, wrong


LOST = ("failed", "lost", None, None)


def plan_end(plan: Plan) -> tuple[object, ...]:
    return (plan.status, "exited_nonzero" if plan.exit_code else "exited_zero", plan.exit_code, None)


def ends(service: ServiceUnderFire) -> dict[str, tuple[object, ...]]:
    """How each job ended that has, as the API tells."""
    return {
        job["id"]: (job["status"], job["reason"], job["exit_code"], job["exit_signal"])
        for job in service.jobs()
        if job["status"] not in ("pending", "running")
    }


def told(record_property: Recorder, **numbers: int) -> None:
    for name, number in numbers.items():
        record_property(name, number)
    print(", ".join(f"{name.replace('_', ' ')}: {n}" for name, n in numbers.items()))  # noqa: T201 - quoted in docs

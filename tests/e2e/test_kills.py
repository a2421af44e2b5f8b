"""kill -9 at random instants over continuous load: nothing lost, nothing twice, nothing wrong."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import pytest

from runner.attempt_files import AttemptFiles
from tests.support import job_processes
from tests.support.load import Load
from tests.support.planned_jobs import Starts, make_workflows
from tests.support.service_under_fire import ServiceUnderFire
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Within its first milliseconds, while it opens its data and recovers, and while it works.
_DURING_START_S: Final = (0.0, 0.02, 0.8)
_AT_WORK_S: Final = 0.6

pytestmark = pytest.mark.timeout(300)  # most of it is starting services: on a busy machine that takes long

Recorder = Callable[[str, object], None]


@dataclass
class Barrage:
    """A service over continuous load that is killed again and again, and what must have come of it."""

    service: ServiceUnderFire
    load: Load
    starts: Starts
    dice: random.Random
    kills: dict[str, int] = field(default_factory=lambda: {"service": 0, "launcher": 0, "shim": 0})
    started_when_killed: set[str] = field(default_factory=set)
    """Jobs whose shim was killed between its start mark and its exit record: nobody can know their end."""

    def run(self, kills: int, *others: Callable[[], None]) -> None:
        """Kill the service so many times, and with each life of it every one of `others` about once."""
        self.service.start()
        for _ in range(kills):
            if self.dice.random() < 0.35:
                self.service.run_for(self.dice.uniform(0, self.dice.choice(_DURING_START_S)))
            else:
                self.service.until_up()
                for other in others:
                    self.service.run_for(self.dice.uniform(0, _AT_WORK_S / 2))
                    other()
                self.service.run_for(self.dice.uniform(0, _AT_WORK_S))
            self.service.kill()
            self.kills["service"] += 1
            self.service.start()
        self.service.until_up()

    def kill_launcher(self) -> None:
        pid = self.service.launcher_pid()
        if pid is not None and job_processes.kill_and_wait(pid, job_processes.title_of(pid)):
            self.kills["launcher"] += 1

    def kill_shim(self) -> None:
        ours = [(key, pid) for key, pid in job_processes.shims().items() if self._files(*key) is not None]
        if not ours:
            return
        key, pid = self.dice.choice(sorted(ours))
        files = self._files(*key)
        assert files is not None
        title = f"snakeline: shim of job {key[0]}/{key[1]}"
        found = job_processes.kill_frozen(pid, title, lambda: (_exists(files.started), _exists(files.exit)))
        if found is not None:
            self.kills["shim"] += 1
        if found == (True, False):
            self.started_when_killed.add(key[0])

    def has_lost_one(self) -> bool:
        """Whether an attempt is lost by now; kills one more shim if none is."""
        if not self.started_when_killed:
            self.kill_shim()
        return bool(self.started_when_killed)

    def _files(self, job_id: str, attempt: int) -> AttemptFiles | None:
        files = AttemptFiles.of(self.service.data_dir, job_id, attempt)
        return files if _exists(files.directory) else None

    def verify(self, record_property: Recorder) -> None:
        """Let everything end, and hold what is stored against what was acknowledged and planned."""
        self.load.finish()
        stored = {job["id"]: job for job in self.service.until_all_ended()}
        planned = self.load.acknowledged
        starts = self.starts.counted()
        lost = planned.keys() - stored.keys()
        twice = {key: times for key, times in starts.items() if times > 1 or key[1] != 1}
        wrong = []
        for job_id, plan in planned.items():
            if job_id in lost:
                continue
            job = stored[job_id]
            told = (job["status"], job["reason"], job["exit_code"], job["exit_signal"], job["attempt"])
            log = self.service.log_of(job_id, 1)
            if job_id in self.started_when_killed:
                right = told == ("failed", "lost", None, None, 1) and plan.log_is_cut(log)
            else:
                reason = "exited_nonzero" if plan.exit_code else "exited_zero"
                right = told == (plan.status, reason, plan.exit_code, None, 1) and plan.log_is_exact(log)
                right = right and starts[job_id, 1] == 1
            if not right:
                wrong.append((plan, told, job["error_message"], starts[job_id, 1], log[-300:]))
        numbers = {
            **{f"kills of the {victim}": times for victim, times in self.kills.items() if times},
            "jobs": len(planned),
            "requests broken off": self.load.broken_off,
            "expectedly lost": len(self.started_when_killed),
            "lost": len(lost),
            "twice": len(twice),
            "wrong": len(wrong),
        }
        print(", ".join(f"{name}: {number}" for name, number in numbers.items()))  # noqa: T201 - quoted in docs
        for name, number in numbers.items():
            record_property(name, number)
        assert not lost
        assert stored.keys() == planned.keys(), "a request repeated with its key made a second job"
        assert not twice, twice
        assert not wrong, wrong
        assert not planned.keys() & job_processes.by_job().keys(), "an ended job has a process"


@pytest.fixture
def barrage(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Barrage]:
    seed: int = request.param
    settings = {"MAX_CORES": "16", "STOP_GRACE_S": "1", "WORKFLOWS_DIR": str(make_workflows(tmp_path))}
    starts = Starts(tmp_path / "starts")
    with (
        ServiceUnderFire(tmp_path, settings) as service,
        Load(service, starts.path, seed=seed, pace_s=0.05) as load,
    ):
        yield Barrage(service, load, starts, random.Random(seed))


def _exists(path: str) -> bool:
    return os.path.lexists(path)


def with_kills(kills: int, *, soak: int, seed: int) -> pytest.MarkDecorator:
    """So many kills, and `soak` of them with the next seed in the long run."""
    long = [pytest.mark.soak, pytest.mark.timeout(3600)]
    return pytest.mark.parametrize(
        ("barrage", "kills"),
        [
            pytest.param(seed, kills, id=f"{kills}"),
            pytest.param(seed + 1, soak, id=f"{soak}", marks=long),
        ],
        indirect=["barrage"],
    )


@with_kills(3, soak=200, seed=20261)
def test_kills_of_the_service_lose_nothing_start_nothing_twice_and_change_no_result(
    barrage: Barrage, kills: int, record_property: Recorder
) -> None:
    barrage.run(kills)
    barrage.verify(record_property)


@with_kills(2, soak=100, seed=20263)
def test_kills_of_the_launcher_as_well_disturb_no_job(
    barrage: Barrage, kills: int, record_property: Recorder
) -> None:
    barrage.run(kills, barrage.kill_launcher, barrage.kill_launcher)
    assert barrage.kills["launcher"] > 0
    barrage.verify(record_property)


@with_kills(2, soak=100, seed=20265)
def test_kills_of_shims_lose_just_the_attempts_they_ran(
    barrage: Barrage, kills: int, record_property: Recorder
) -> None:
    barrage.run(kills, barrage.kill_shim, barrage.kill_launcher, barrage.kill_shim, barrage.kill_shim)
    # With few kills it may be that each of them hit an attempt that had not begun, or had ended.
    wait_until(barrage.has_lost_one, timeout_s=30, what="a shim to be killed while its engine runs")
    barrage.verify(record_property)

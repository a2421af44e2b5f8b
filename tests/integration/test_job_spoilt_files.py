"""What a job may leave where its supervision reads and writes, and deadlines that are far away."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from runner.jobs import Reason
from runner.ports import Ended, Lost
from tests.support.attempts import Attempts
from tests.support.runners import RunningRunner, settings_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def attempts(tmp_path: Path) -> Iterator[Attempts]:
    with contextlib.closing(Attempts(tmp_path, warm=False)) as attempts:
        yield attempts


def test_a_deadline_of_years_is_kept_like_any_other(attempts: Attempts) -> None:
    ended = attempts.end(attempts.launch_argv(("/bin/sh", "-c", "exit 7"), timeout_s=315_360_000))
    assert isinstance(ended, Ended)
    assert ended.record.exit_code == 7


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["exit.json", "crash.txt"])
def test_a_fifo_in_place_of_a_record_holds_up_nobody(attempts: Attempts, name: str) -> None:
    script = f"mkfifo ../attempts/1/{name}; kill -9 $PPID; sleep 60"
    assert isinstance(attempts.end(attempts.launch_argv(("/bin/sh", "-c", script))), Lost)


@pytest.mark.timeout(20)
def test_a_fifo_in_place_of_the_log_costs_the_log_alone(attempts: Attempts) -> None:
    script = "mkfifo ../attempts/1/log.0; echo hi; exit 4"
    ended = attempts.end(attempts.launch_argv(("/bin/sh", "-c", script)))
    assert isinstance(ended, Ended)
    assert ended.record.exit_code == 4


def test_an_attempt_whose_record_cannot_be_made_is_lost_and_not_launched_for_ever(tmp_path: Path) -> None:
    with contextlib.closing(RunningRunner(settings_for(tmp_path / "data"))) as runner:
        job = runner.ended(runner.submit(exit_code=1))
        (runner.job_dir(job) / "attempts" / "2" / "exit.json.tmp").mkdir(parents=True)
        runner.service.retry(job.id)
        assert runner.ended(job).reason is Reason.LOST

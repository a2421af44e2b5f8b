"""What is told of an attempt's use of the machine: from what was seen of it, and from how it ended."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from runner.attempt_files import AttemptFiles, ExitRecord
from runner.jobs import Job, JobSpec, JobStatus, Usage
from runner.usage_history import UsageHistory, UsagePoint, history_of
from runner.usage_samples import UsageSample, add_sample

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
JOB = Job(
    id="one",
    seq=1,
    spec=JobSpec(cores=2, memory_mb=512),
    engine="mock",
    status=JobStatus.RUNNING,
    attempt=1,
    created_at=NOW,
    updated_at=NOW,
    started_at=NOW,
)
RECORD = ExitRecord(
    exit_code=0,
    exit_signal=None,
    launch_error=None,
    stopped=None,
    started_at=NOW.timestamp(),
    ended_at=NOW.timestamp() + 10,
    cpu_s=8.0,
    max_rss_bytes=5000,
    read_bytes=70,
    written_bytes=80,
    log_bytes=0,
)
FIRST = UsageSample(2.0, 1.0, 1000, 2, 10, 20)
SECOND = UsageSample(4.0, 5.0, 9000, 4, 30, 20)


@pytest.fixture
def files(tmp_path: Path) -> AttemptFiles:
    found = AttemptFiles.of(tmp_path, "one", 1)
    os.makedirs(found.directory)
    return found


def seen(files: AttemptFiles, *samples: UsageSample) -> None:
    for each in samples:
        add_sample(files, each, started_at=NOW.timestamp() + 1)


def ended(files: AttemptFiles, record: ExitRecord = RECORD) -> None:
    Path(files.exit).write_bytes(record.dump())


def told(files: AttemptFiles, job: Job = JOB) -> UsageHistory:
    return history_of(job, files.attempt, files)


def test_while_it_runs_each_point_tells_of_the_time_since_the_one_before(files: AttemptFiles) -> None:
    seen(files, FIRST, SECOND)
    assert told(files) == UsageHistory(
        job_id="one",
        attempt=1,
        cores=2,
        memory_bytes=512 * 2**20,
        started_at=NOW,
        ended_at=None,
        usage=Usage(5.0, 9000, 30, 20),
        points=(UsagePoint(2.0, 0.5, 1000, 2, 10, 20), UsagePoint(4.0, 2.0, 9000, 4, 20, 0)),
    )


def test_when_it_has_ended_the_last_point_makes_the_sums_whole(files: AttemptFiles) -> None:
    seen(files, FIRST, SECOND)
    ended(files)
    found = told(files)
    assert found.points[2:] == (UsagePoint(10.0, 0.5, None, None, 40, 60),)
    assert found.usage == Usage(8.0, 9000, 70, 80)
    assert (found.started_at, found.ended_at) == (NOW, NOW.replace(second=10))
    cpu_s, before_s = 0.0, 0.0
    for point in found.points:
        cpu_s += point.cores * (point.elapsed_s - before_s)
        before_s = point.elapsed_s
    assert cpu_s == RECORD.cpu_s


def test_a_peak_after_the_last_sample_counts_for_its_own_attempt_alone(files: AttemptFiles) -> None:
    seen(files, FIRST)
    job = replace(JOB, usage=Usage(1.0, 7777, 0, 0))
    assert told(files, job).usage == Usage(1.0, 7777, 10, 20)
    assert told(files, replace(job, attempt=2)).usage == Usage(1.0, 1000, 10, 20)


def test_one_that_nobody_had_time_to_look_at_has_its_end(files: AttemptFiles) -> None:
    ended(files)
    assert told(files).points == (UsagePoint(10.0, 0.8, 5000, None, 70, 80),)
    assert told(files).usage == Usage(8.0, 5000, 70, 80)


@pytest.mark.parametrize("elapsed_s", [9.9, 10.0, 10.4])
def test_a_look_just_before_the_end_is_the_ends(files: AttemptFiles, elapsed_s: float) -> None:
    seen(files, FIRST, UsageSample(elapsed_s, 7.0, 9000, 4, 30, 20))
    ended(files)
    assert told(files).points[1:] == (UsagePoint(10.0, 0.875, 9000, 4, 60, 60),)


def test_a_clock_that_tells_less_at_the_end_makes_nothing_negative(files: AttemptFiles) -> None:
    seen(files, FIRST, UsageSample(4.0, 99.0, 9000, 4, 900, 900))
    ended(files)
    assert told(files).points[2] == UsagePoint(10.0, 0.0, None, None, 0, 0)


def test_before_it_starts_nothing_is_told(tmp_path: Path, files: AttemptFiles) -> None:
    pending = replace(JOB, status=JobStatus.PENDING, started_at=None)
    assert (told(files, pending).started_at, told(files, pending).usage) == (None, None)
    absent = AttemptFiles.of(tmp_path, "one", 2)
    again = replace(JOB, status=JobStatus.PENDING, attempt=2)
    assert told(absent, again).points == ()
    assert told(absent, again).started_at is None


def test_an_earlier_attempt_that_was_lost_tells_what_was_seen(files: AttemptFiles) -> None:
    seen(files, FIRST)
    found = told(files, replace(JOB, attempt=2))
    assert (found.started_at, found.ended_at) == (NOW.replace(second=1), None)
    assert (found.usage, len(found.points)) == (Usage(1.0, 1000, 10, 20), 1)


def test_one_that_never_became_anything_has_no_end_to_show(files: AttemptFiles) -> None:
    ended(files, replace(RECORD, exit_code=None, launch_error="no such engine"))
    assert told(files).points == ()
    ended(files, replace(RECORD, ended_at=RECORD.started_at))
    assert told(files).points == ()


@pytest.mark.parametrize("content", [b"", b"{", b'{"format": 1}', b"\xff" * 100])
def test_a_damaged_record_is_no_record(files: AttemptFiles, content: bytes) -> None:
    seen(files, FIRST)
    Path(files.exit).write_bytes(content)
    found = told(files)
    assert (found.ended_at, len(found.points)) == (None, 1)


@pytest.mark.parametrize("module", ["usage_history", "usage_samples"])
def test_what_nobody_may_read_is_as_if_it_were_not_there(
    files: AttemptFiles, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    def refused(*_: object) -> int:
        raise PermissionError

    seen(files, FIRST)
    ended(files)
    monkeypatch.setattr(f"runner.{module}.open_in_job", refused)
    assert len(told(files).points) == 1


def test_no_end_that_a_job_has_written_makes_a_number_that_cannot_be_told(files: AttemptFiles) -> None:
    ended(files, replace(RECORD, started_at=0.0, ended_at=5e-324, cpu_s=2.0**37 - 1))
    (point,) = told(files).points
    assert math.isfinite(point.cores)


def test_without_a_limit_of_memory_there_is_none(files: AttemptFiles) -> None:
    assert told(files, replace(JOB, spec=JobSpec(cores=1))).memory_bytes is None

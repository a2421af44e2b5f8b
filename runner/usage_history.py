"""What an attempt used of the machine as time went by: the samples of the service, the record of the shim."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from runner.attempt_files import ExitRecord, InvalidRecord
from runner.job_files import open_in_job
from runner.jobs import JobStatus, Usage
from runner.usage_samples import UsageSample, read_samples

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runner.attempt_files import AttemptFiles
    from runner.jobs import Job

_RECORD_BYTES: Final = 65536
_AT_THE_END_S: Final = 0.5
"""A sample as near to the end as this is the end's own: over less time the clock's ticks count too much."""

_LEAST_S: Final = 0.001


@dataclass(frozen=True, slots=True)
class UsagePoint:
    """Until `elapsed_s` after the attempt's start. `cores`, bytes read and written: since the point before.

    `rss_bytes` and `processes` are the most that was seen at once since then; None where nobody has looked.
    """

    elapsed_s: float
    cores: float
    rss_bytes: int | None
    processes: int | None
    read_bytes: int
    written_bytes: int


@dataclass(frozen=True, slots=True)
class UsageHistory:
    """One attempt. `cores` and `memory_bytes` are what it may use; None is no limit.

    `usage` are the sums until now, None while nothing is known. `ended_at` is None while it runs, and of an
    attempt that was lost.
    """

    job_id: str
    attempt: int
    cores: int
    memory_bytes: int | None
    started_at: datetime | None
    ended_at: datetime | None
    usage: Usage | None
    points: tuple[UsagePoint, ...]


def history_of(job: Job, attempt: int, files: AttemptFiles) -> UsageHistory:
    """What there is by now: whatever a job has put in the place of the files, it is no error.

    Raises OSError when this process is short of something.
    """
    kept = read_samples(files)
    samples = kept.samples if kept is not None else ()
    record = _record(files)
    started_at = ended_at = None
    if record is not None:
        started_at = _moment(record.started_at)
        ended_at = _moment(record.ended_at)
    elif attempt == job.attempt and job.status is not JobStatus.PENDING:
        started_at = job.started_at
    elif kept is not None:
        started_at = _moment(kept.started_at)
    return UsageHistory(
        job_id=job.id,
        attempt=attempt,
        cores=job.spec.cores,
        memory_bytes=None if job.spec.memory_mb is None else job.spec.memory_mb * 2**20,
        started_at=started_at,
        ended_at=ended_at,
        usage=_sums(samples, record, job.usage if attempt == job.attempt else None),
        points=tuple(_points(samples, record)),
    )


def _record(files: AttemptFiles) -> ExitRecord | None:
    try:
        with open(open_in_job(files, files.exit), "rb", buffering=0) as file:
            return ExitRecord.load(file.read(_RECORD_BYTES))
    except (FileNotFoundError, PermissionError, InvalidRecord):
        return None


def _sums(samples: Sequence[UsageSample], record: ExitRecord | None, told: Usage | None) -> Usage | None:
    """As `Job.usage` has them; `told` is that, which knows of a peak that came too late for a sample."""
    peak_bytes = max((sample.rss_bytes for sample in samples), default=0)
    if told is not None:
        peak_bytes = max(peak_bytes, told.max_rss_bytes)
    if record is not None:
        peak_bytes = max(peak_bytes, record.max_rss_bytes)
        return Usage(record.cpu_s, peak_bytes, record.read_bytes, record.written_bytes)
    if not samples:
        return None
    return Usage(samples[-1].cpu_s, peak_bytes, samples[-1].read_bytes, samples[-1].written_bytes)


def _points(samples: Sequence[UsageSample], record: ExitRecord | None) -> Iterator[UsagePoint]:
    start = UsageSample(0.0, 0.0, 0, 0, 0, 0)
    if record is None:
        for before, now in pairwise((start, *samples)):
            yield _point(before, now, now)
        return
    ended_s = record.ended_at - record.started_at
    # What was seen later than that is not: a job may write what it likes where nothing keeps it from it.
    inside = [sample for sample in samples if sample.elapsed_s < ended_s - _AT_THE_END_S]
    for before, now in pairwise((start, *inside)):
        yield _point(before, now, now)
    end = UsageSample(ended_s, record.cpu_s, record.max_rss_bytes, 0, record.read_bytes, record.written_bytes)
    seen = samples[len(inside)] if len(inside) < len(samples) else None
    if ended_s > 0 and record.launch_error is None:
        yield _point(inside[-1] if inside else start, end, seen, peak_bytes=None if inside else end.rss_bytes)


def _point(
    before: UsageSample, now: UsageSample, seen: UsageSample | None, *, peak_bytes: int | None = None
) -> UsagePoint:
    """From one to the next, with what was `seen` in between; `peak_bytes` where nothing was."""
    return UsagePoint(
        elapsed_s=round(now.elapsed_s, 3),
        cores=round(max(0.0, now.cpu_s - before.cpu_s) / max(_LEAST_S, now.elapsed_s - before.elapsed_s), 3),
        rss_bytes=peak_bytes if seen is None else seen.rss_bytes,
        processes=None if seen is None else seen.processes,
        read_bytes=max(0, now.read_bytes - before.read_bytes),
        written_bytes=max(0, now.written_bytes - before.written_bytes),
    )


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)

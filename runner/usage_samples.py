"""What an attempt has used, look by look: one small file in its directory.

A header and at most `MOST` records of one size. When it is full it is written anew with half of them, each
standing for two, and from then on new ones come half as often: a run of any length fits, as coarse as it has
to be. Nothing is synced, each record has a checksum, and what is torn, foreign or damaged is passed over: a
sample more or less is never worth a job. Why it is done so is in docs/adr/0031.
"""

from __future__ import annotations

import os
import struct
import zlib
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runner.beneath import is_plain
from runner.job_files import open_in_job, open_job_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runner.attempt_files import AttemptFiles

MOST: Final = 1440
SIZE: Final = 48
"""Bytes of a record, and of the header."""
_MAGIC: Final = b"SLUSAGE1"
_HEADER: Final = struct.Struct("<8sQQ20x")  # when the attempt started, how far apart samples are
_RECORD: Final = struct.Struct("<QQQQQI")
_SUM: Final = struct.Struct("<I")
_LARGEST: Final = 2**53  # what JSON can tell exactly
_FRESH_SUFFIX: Final = ".new"


@dataclass(frozen=True, slots=True)
class UsageSample:
    """All until `elapsed_s` after the attempt's start, but `rss_bytes` and `processes`.

    Those are the most that was seen at once since the sample before.
    """

    elapsed_s: float
    cpu_s: float
    rss_bytes: int
    processes: int
    read_bytes: int
    written_bytes: int

    def dump(self) -> bytes:
        return _summed(
            _RECORD.pack(
                round(self.elapsed_s * 1000),
                round(self.cpu_s * 1000),
                self.rss_bytes,
                self.read_bytes,
                self.written_bytes,
                self.processes,
            )
        )


@dataclass(frozen=True, slots=True)
class UsageSamples:
    """What the file holds, in the order of time. `started_at` is in seconds since the epoch."""

    started_at: float
    step_s: float  # how far apart new ones are to be; 0 is as they come
    samples: tuple[UsageSample, ...] = ()

    def dump(self) -> bytes:
        header = _HEADER.pack(_MAGIC, round(self.started_at * 1000), round(self.step_s * 1000))
        return _summed(header) + b"".join(sample.dump() for sample in self.samples)

    def halved(self) -> UsageSamples:
        """Each two in one."""
        samples = tuple(_merged(self.samples[at : at + 2]) for at in range(0, len(self.samples), 2))
        step_s = samples[-1].elapsed_s / len(samples) if samples else 0.0
        return UsageSamples(self.started_at, max(step_s, self.step_s), samples)


def read_samples(files: AttemptFiles) -> UsageSamples | None:
    """None where there is no such file, or something else in its place. Raises OSError."""
    try:
        fd = open_in_job(files, files.usage)
    except (FileNotFoundError, PermissionError):  # a job has said that nobody may read it
        return None
    try:
        return _read(fd)
    finally:
        os.close(fd)


def add_sample(files: AttemptFiles, sample: UsageSample, *, started_at: float) -> float:
    """Write it behind the others; how many seconds later the next one is wanted.

    Raises OSError, also where a job has put something else in the file's place: that is left as it is.
    """
    jobs_dir = os.path.dirname(files.job_dir)
    folder_fd = open_job_folder(jobs_dir, files.directory[len(jobs_dir) + 1 :])
    name = os.path.basename(files.usage)
    try:
        fd = _open_own(folder_fd, name)
        try:
            known = _header(os.pread(fd, SIZE, 0))
            count = os.fstat(fd).st_size // SIZE - 1
            if known is not None and count < MOST:
                _write(fd, sample.dump(), (1 + count) * SIZE)  # over what is torn
                return known.step_s
            if known is None:  # new, or nothing of ours
                os.ftruncate(fd, 0)
                _write(fd, UsageSamples(started_at, 0.0, (sample,)).dump(), 0)
                return 0.0
            found = _read(fd) or known
        finally:
            os.close(fd)
        if len(found.samples) >= MOST:
            found = found.halved()
        found = UsageSamples(found.started_at, found.step_s, (*found.samples, sample))
        _replace(folder_fd, name, found.dump())
        return found.step_s
    finally:
        os.close(folder_fd)


def _open_own(folder_fd: int, name: str) -> int:
    """The file, made where it is missing; never one of somebody else's that a job has put there."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    fd = os.open(name, flags, 0o600, dir_fd=folder_fd)
    if not is_plain(os.fstat(fd)):
        os.close(fd)
        raise FileExistsError(f"{name} is no plain file")
    return fd


def _replace(folder_fd: int, name: str, content: bytes) -> None:
    """Whole or not at all, so long as the machine runs: who reads meanwhile has the old one."""
    fresh = name + _FRESH_SUFFIX
    with suppress(FileNotFoundError):
        os.unlink(fresh, dir_fd=folder_fd)  # of a service that was killed here
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder_fd)
    try:
        try:
            _write(fd, content, 0)
        finally:
            os.close(fd)
        os.rename(fresh, name, src_dir_fd=folder_fd, dst_dir_fd=folder_fd)
    except OSError:
        with suppress(OSError):
            os.unlink(fresh, dir_fd=folder_fd)
        raise


def _write(fd: int, data: bytes, at: int) -> None:
    while data:
        written = os.pwrite(fd, data, at)
        data, at = data[written:], at + written


def _read(fd: int) -> UsageSamples | None:
    content = os.pread(fd, (1 + MOST) * SIZE, 0)
    known = _header(content[:SIZE])
    if known is None:
        return None
    return UsageSamples(known.started_at, known.step_s, tuple(_samples(content[SIZE:])))


def _header(data: bytes) -> UsageSamples | None:
    content = _checked(data)
    if content is None or not content.startswith(_MAGIC):
        return None
    _, started_ms, step_ms = _HEADER.unpack(content)
    is_possible = max(started_ms, step_ms) < 2**47
    return UsageSamples(started_ms / 1000, step_ms / 1000) if is_possible else None


def _samples(records: bytes) -> Iterator[UsageSample]:
    before_ms = 0
    for at in range(0, len(records), SIZE):
        content = _checked(records[at : at + SIZE])
        if content is None:
            continue
        elapsed_ms, cpu_ms, rss, read, written, processes = _RECORD.unpack(content)
        if before_ms < elapsed_ms and max(elapsed_ms, cpu_ms, rss, read, written, processes) < _LARGEST:
            before_ms = elapsed_ms
            yield UsageSample(elapsed_ms / 1000, cpu_ms / 1000, rss, processes, read, written)


def _merged(samples: Sequence[UsageSample]) -> UsageSample:
    last = samples[-1]
    return UsageSample(
        last.elapsed_s,
        last.cpu_s,
        max(each.rss_bytes for each in samples),
        max(each.processes for each in samples),
        last.read_bytes,
        last.written_bytes,
    )


def _summed(content: bytes) -> bytes:
    return content + _SUM.pack(zlib.crc32(content))


def _checked(record: bytes) -> bytes | None:
    """Without its checksum; None when it is not all there or not what was written."""
    content = record[: SIZE - _SUM.size]
    return (
        content
        if len(record) == SIZE and record[SIZE - _SUM.size :] == _SUM.pack(zlib.crc32(content))
        else None
    )

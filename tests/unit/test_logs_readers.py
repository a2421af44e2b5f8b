"""Readers of a log, while its writer appends, rotates and drops what is old."""

from __future__ import annotations

import os
import random
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

from runner import logs
from runner.logs import SegmentLog, SegmentLogStore
from tests.support.log_model import LogModel
from tests.support.log_writer import SegmentWriter


class Stream:
    """A stream in which each 8 bytes tell their own place, so that any piece can be proved right."""

    @staticmethod
    def piece(start: int, end: int) -> bytes:
        first, last = start // 8, -(-end // 8)
        whole = b"".join(b"%07d\n" % n for n in range(first, last))
        return whole[start - first * 8 : end - first * 8]


class Checks:
    """Readers that run while the writer does, and what they found wrong."""

    def __init__(self, store: SegmentLogStore) -> None:
        self.store = store
        self.problems: list[str] = []
        self.finished = threading.Event()

    def expect(self, claim: bool, problem: str) -> None:  # noqa: FBT001
        if not claim:
            self.problems.append(problem)

    def write(self, writer: SegmentWriter, total: int) -> None:
        step = 0
        while writer.size < total:
            step += 1
            writer.write(Stream.piece(writer.size, min(total, writer.size + 1 + (step * 37) % 900)))
        self.finished.set()

    def follow(self, total: int) -> None:
        """Read on from where it is, as a follower does."""
        log, at, done = self.store.open("job", 1), 0, False
        while not done:
            done = self.finished.is_set()
            start, data = log.read(at, 1700)
            gap = log.gap()
            self.expect(data == Stream.piece(start, start + len(data)), f"wrong bytes at {start}")
            self.expect(start >= at, f"went back from {at} to {start}")
            in_gap = start == at or (gap is not None and gap.start <= at and start <= gap.end)
            self.expect(in_gap, f"skipped from {at} to {start}, but the gap is {gap}")
            at = start + len(data)
            done = done and not data
        self.expect(at == total, f"ended at {at}")

    def look(self) -> None:
        """Ask for the size and the tail, as many visitors do."""
        log, seen = self.store.open("job", 1), 0
        while not self.finished.is_set():
            size = log.size()
            self.expect(size >= seen, f"the size went from {seen} to {size}")
            seen = size
            offset = log.tail_offset(20)
            gap = log.gap()
            start, data = log.read(offset, 160)
            self.expect(data == Stream.piece(start, start + len(data)), f"wrong tail at {start}")
            at_a_line = start % 8 == 0 or (gap is not None and start <= gap.end)
            self.expect(at_a_line, f"the tail begins inside a line at {start}, gap {gap}")


@pytest.mark.parametrize("drop_early", [False, True])
def test_readers_are_exact_while_the_writer_appends_rotates_and_drops(
    tmp_path: Path, *, drop_early: bool
) -> None:
    writer = SegmentWriter(tmp_path, segment_bytes=1000, drop_early=drop_early)
    writer.begin()
    total = 400_000
    checks = Checks(SegmentLogStore(tmp_path))
    threads = [
        threading.Thread(target=checks.follow, args=(total,)),
        threading.Thread(target=checks.follow, args=(total,)),
        threading.Thread(target=checks.look),
        threading.Thread(target=checks.write, args=(writer, total)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert checks.problems == [], checks.problems[:3]
    assert checks.finished.is_set()


class WriterBetweenSteps:
    """Stands for `os` in the reader, and lets the writer work between any two of its steps.

    A listing is made as torn as the kernel may make it: what was there all the time is in it; what came
    or went meanwhile may be.
    """

    def __init__(self, writer: SegmentWriter, draw: random.Random) -> None:
        self.writer = writer
        self.draw = draw
        self.kept_at_last_listing = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def step(self) -> None:
        if self.draw.random() < 0.1:
            start = self.writer.size
            self.writer.write(Stream.piece(start, start + self.draw.randint(1, 400)))

    def listdir(self, directory: int) -> list[str]:
        before = set(os.listdir(directory))
        self.kept_at_last_listing = LogModel.of_size(self.writer.size, self.writer.segment_bytes).kept_from()
        self.step()
        after = set(os.listdir(directory))
        return sorted(before & after) + [n for n in sorted(before ^ after) if self.draw.random() < 0.5]

    def stat(self, *args: Any, **options: Any) -> os.stat_result:
        self.step()
        return os.stat(*args, **options)

    def pread(self, fd: int, limit: int, offset: int) -> bytes:
        self.step()
        return os.pread(fd, limit, offset)

    def open(self, *args: Any, **options: Any) -> int:
        self.step()
        return os.open(*args, **options)


@pytest.mark.parametrize("first_seed", range(0, 200, 50))
def test_a_reader_is_exact_whatever_the_writer_does_between_its_steps(first_seed: int) -> None:
    for seed in range(first_seed, first_seed + 50):
        with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
            draw = random.Random(seed)
            writer = SegmentWriter(Path(folder), segment_bytes=40, drop_early=draw.random() < 0.5)
            writer.begin()
            writer.write(Stream.piece(0, draw.randint(0, 500)))
            patch.setattr(logs, "_TAIL_BLOCK_BYTES", 64)
            steps = WriterBetweenSteps(writer, draw)
            patch.setattr(logs, "os", steps)
            check_reader(SegmentLogStore(folder).open("job", 1), writer, draw, steps)


def check_reader(
    log: SegmentLog, writer: SegmentWriter, draw: random.Random, steps: WriterBetweenSteps
) -> None:
    def model() -> LogModel:
        return LogModel.of_size(writer.size, writer.segment_bytes)

    written = writer.size
    size = log.size()
    assert written <= size <= writer.size
    at = 0
    for _ in range(8):
        written = writer.size
        start, data = log.read(at, draw.randint(1, 400))
        gap = model().gap()
        assert data == Stream.piece(start, start + len(data))
        assert data or start >= written
        assert start == at or (gap and gap.start <= at and start <= gap.end)
        at = start + len(data)
    for _ in range(4):
        kept_before = model().kept_from()
        offset = log.tail_offset(draw.randint(1, 40))
        gap = model().gap()
        assert kept_before <= steps.kept_at_last_listing <= offset <= writer.size
        assert offset % 8 == 0 or (gap and offset <= gap.end)
    before = model().gap()
    asked = log.gap()
    gap = model().gap()
    if asked is None:
        assert before is None
    else:
        assert gap is not None
        assert asked.start == gap.start
        assert (before.end if before else 0) <= asked.end <= gap.end

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner import logs
from runner.attempt_files import SEGMENTS_KEPT
from runner.logs import READ_LIMIT_BYTES, SegmentLog, SegmentLogStore
from runner.ports import Gap
from tests.support.log_writer import SegmentWriter


class Model:
    """What a log with all its history would answer."""

    def __init__(self, segment_bytes: int) -> None:
        self.segment_bytes = segment_bytes
        self.data = b""

    @classmethod
    def of_size(cls, size: int, segment_bytes: int) -> Model:
        model = cls(segment_bytes)
        model.data = bytes(size)
        return model

    def kept_from(self) -> int:
        gap = self.gap()
        return gap.end if gap else 0

    def gap(self) -> Gap | None:
        segments = -(-len(self.data) // self.segment_bytes)
        dropped = segments - SEGMENTS_KEPT
        if dropped <= 0:
            return None
        return Gap(self.segment_bytes, self.segment_bytes * (1 + dropped))

    def read(self, offset: int, limit: int) -> tuple[int, bytes]:
        gap = self.gap()
        end = len(self.data)
        if gap and gap.start <= offset < gap.end:
            offset = gap.end
        elif gap and offset < gap.start:
            end = gap.start
        if offset >= len(self.data):
            return len(self.data), b""
        return offset, self.data[offset : min(end, offset + limit)]

    def tail_offset(self, lines: int) -> int:
        floor = self.kept_from()
        kept = self.data[floor:]
        if lines < 1 or not kept:
            return len(self.data)
        body = kept[:-1] if kept.endswith(b"\n") else kept
        rows = body.split(b"\n")
        wanted = b"\n".join(rows[-lines:])
        return floor + len(body) - len(wanted)


def read_all(log: SegmentLog, offset: int = 0) -> tuple[int, bytes]:
    """From the first answer on to the end, without a gap between; where it began and what it was."""
    begin, data = log.read(offset, READ_LIMIT_BYTES)
    at = begin + len(data)
    while data:
        start, piece = log.read(at, READ_LIMIT_BYTES)
        if not piece or start != at:
            break
        data += piece
        at += len(piece)
    return begin, data


CHUNKS = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.text(alphabet="ab\n", max_size=40).map(str.encode),
        st.integers(1, 60).map(lambda n: b"x" * n),
        st.just(b"\n"),
        st.just(b"\x00\n\x00"),
    ),
    max_size=12,
)


@settings(max_examples=120, deadline=None)
@given(
    chunks=CHUNKS,
    segment_bytes=st.integers(1, 24),
    drop_early=st.booleans(),
    offset=st.integers(0, 400),
    limit=st.integers(1, 400),
    lines=st.integers(-1, 12),
)
def test_a_log_answers_as_its_whole_history_would(
    *, chunks: list[bytes], segment_bytes: int, drop_early: bool, offset: int, limit: int, lines: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        writer = SegmentWriter(Path(folder), segment_bytes=segment_bytes, drop_early=drop_early)
        writer.begin()
        log = SegmentLogStore(folder).open("job", 1)
        model = Model(segment_bytes)
        for chunk in (b"", *chunks):
            writer.write(chunk)
            model.data += chunk
            assert log.size() == len(model.data)
            assert log.gap() == model.gap()
            assert log.read(offset, limit) == model.read(offset, limit)
            assert log.tail_offset(lines) == model.tail_offset(lines)


def test_an_attempt_that_has_written_nothing_has_an_empty_log(tmp_path: Path) -> None:
    log = SegmentLogStore(tmp_path).open("job", 1)

    def answers() -> list[object]:
        return [log.size(), log.gap(), log.read(0, 10), log.read(7, 10), log.tail_offset(5)]

    assert answers() == [0, None, (0, b""), (0, b""), 0]
    writer = SegmentWriter(tmp_path, segment_bytes=100)
    writer.begin()
    assert answers() == [0, None, (0, b""), (0, b""), 0]
    writer.write(b"hello")
    assert log.read(0, 10) == (0, b"hello")


def test_one_read_crosses_segments_but_not_the_gap_and_stays_within_its_limit(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, segment_bytes=10)
    writer.begin()
    text = bytes(range(100, 195))  # ten segments: log.1 and log.2 are gone
    writer.write(text)
    log = SegmentLogStore(tmp_path).open("job", 1)
    assert log.gap() == Gap(10, 30)
    assert log.read(5, 100) == (5, text[5:10])
    assert log.read(10, 100) == (30, text[30:])
    assert log.read(35, 12) == (35, text[35:47])
    assert log.read(95, 1) == (95, b"")
    assert log.read(500, 1) == (95, b"")


def test_a_read_is_never_larger_than_a_mebibyte(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, segment_bytes=2**20 + 5)
    writer.begin()
    writer.write(bytes(2 * 2**20 + 100))
    start, data = SegmentLogStore(tmp_path).open("job", 1).read(1, 2**30)
    assert (start, len(data)) == (1, READ_LIMIT_BYTES)


@pytest.mark.parametrize(("offset", "limit"), [(-1, 1), (0, 0), (0, -5)])
def test_a_senseless_read_is_refused(tmp_path: Path, offset: int, limit: int) -> None:
    with pytest.raises(ValueError, match="offset"):
        SegmentLogStore(tmp_path).open("job", 1).read(offset, limit)


@pytest.mark.parametrize("ending", [b"", b"\n"])
def test_the_tail_is_found_across_blocks_and_huge_lines(tmp_path: Path, ending: bytes) -> None:
    writer = SegmentWriter(tmp_path, segment_bytes=2**20)
    writer.begin()
    rows = [b"first", b"\x00" * 700_000, b"second", b"y" * 1_500_000, b"", b"last"]
    writer.write(b"\n".join(rows) + ending)
    log = SegmentLogStore(tmp_path).open("job", 1)
    for lines in range(1, 8):
        offset = log.tail_offset(lines)
        assert read_all(log, offset)[1] == b"\n".join(rows[-lines:]) + ending


def test_the_tail_of_one_endless_line_begins_where_what_is_kept_begins(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, segment_bytes=100_000)
    writer.begin()
    writer.write(b"z" * 1_000_001)
    log = SegmentLogStore(tmp_path).open("job", 1)
    assert log.gap() == Gap(100_000, 400_000)
    assert log.tail_offset(3) == 400_000


def test_a_segment_that_is_gone_is_passed_over_though_its_neighbours_are_there(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, segment_bytes=10)
    writer.begin()
    writer.write(b"0123456789" * 4)
    os.unlink(writer.files.log_segment(2))
    log = SegmentLogStore(tmp_path).open("job", 1)
    assert log.read(15, 100) == (15, b"56789")
    assert log.read(20, 100) == (30, b"0123456789")
    os.unlink(writer.files.log_segment(0))
    assert log.read(3, 100) == (10, b"0123456789")
    assert log.gap() == Gap(0, 10)


def test_a_segment_cut_short_by_a_crash_does_not_stop_the_reader(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, segment_bytes=10)
    writer.begin()
    writer.write(b"0123456789" * 3)
    os.truncate(writer.files.log_segment(1), 4)
    log = SegmentLogStore(tmp_path).open("job", 1)
    assert log.read(10, 100) == (10, b"0123")
    assert log.read(14, 100) == (20, b"0123456789")
    assert log.tail_offset(5) == 20


@pytest.mark.parametrize("spec", [None, b"", b"{", b'{"format": 1}', b"\xff" * 100, "-4", "true", '"10"'])
def test_without_a_readable_spec_the_first_segment_tells_the_size(
    tmp_path: Path, spec: bytes | str | None
) -> None:
    writer = SegmentWriter(tmp_path, segment_bytes=10)
    writer.begin(with_spec=False)
    if isinstance(spec, str):  # a whole specification with an impossible size
        writer.write_spec()
        whole = json.loads(Path(writer.files.spec).read_bytes())
        spec = json.dumps(whole | {"log_segment_bytes": json.loads(spec)}).encode()
    if spec is not None:
        Path(writer.files.spec).write_bytes(spec)
    log = SegmentLogStore(tmp_path).open("job", 1)
    writer.write(b"0123456")
    assert (log.size(), log.read(2, 100)) == (7, (2, b"23456"))
    writer.write(b"789" + b"abcdefghij" * 9)
    assert (log.size(), log.gap()) == (100, Gap(10, 30))
    assert log.read(12, 5) == (30, b"abcde")


def test_the_spec_is_used_as_soon_as_it_is_there(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, segment_bytes=10)
    writer.begin(with_spec=False)
    log = SegmentLogStore(tmp_path).open("job", 1)
    assert log.size() == 0
    writer.write_spec()
    writer.write(b"0123456789ab")
    os.unlink(writer.files.log_segment(0))
    assert log.size() == 12
    assert log.read(0, 100) == (10, b"ab")


def test_only_regular_files_with_one_link_are_read(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    secret = tmp_path / "secret"
    secret.write_bytes(b"a secret of the service")
    writer = SegmentWriter(data_dir, segment_bytes=10)
    writer.begin()
    log = SegmentLogStore(data_dir).open("job", 1)
    path = writer.files.log_segment(0)

    def is_absent() -> bool:
        return (log.size(), log.gap(), log.read(0, 10), log.tail_offset(1)) == (0, None, (0, b""), 0)

    os.symlink(secret, path)
    assert is_absent()
    os.unlink(path)
    os.link(secret, path)
    assert is_absent()
    os.unlink(path)
    os.mkfifo(path)
    assert is_absent()
    os.unlink(path)
    os.mkdir(path)
    assert is_absent()
    os.rmdir(path)
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(writer.files.directory, os.O_RDONLY)
        listener.bind(f"/proc/self/fd/{here}/log.0")
        os.close(here)
        assert is_absent()
    os.unlink(path)
    writer.write(b"own words")
    assert log.read(0, 10) == (0, b"own words")


@pytest.mark.parametrize("level", ["directory", "parent"])
def test_a_linked_directory_leads_to_no_other_log(tmp_path: Path, level: str) -> None:
    other = SegmentWriter(tmp_path, segment_bytes=100, job_id="other")
    other.begin()
    other.write(b"of another job")
    mine = SegmentWriter(tmp_path, segment_bytes=100, job_id="mine")
    mine.begin()
    log = SegmentLogStore(tmp_path).open("mine", 1)
    target, link = other.files.directory, mine.files.directory
    if level == "parent":
        target, link = os.path.dirname(target), os.path.dirname(link)
    shutil.rmtree(link)
    os.symlink(target, link)
    assert log.read(0, 100) == (0, b"")
    assert log.size() == 0


def test_names_that_only_look_like_segments_are_ignored(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, segment_bytes=10)
    writer.begin()
    writer.write(b"abc")
    for name in ("log.01", "log.-1", "log.1x", "log.", "log", "log.1.gz", "log.99999999999", "log.\u0663"):
        Path(writer.files.directory, name).write_bytes(b"noise")
    log = SegmentLogStore(tmp_path).open("job", 1)
    assert (log.size(), log.read(0, 100), log.gap()) == (3, (0, b"abc"), None)


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, segment_bytes=10)
    writer.begin()
    writer.write(b"0123456789" * 12)
    os.symlink("/", writer.files.log_segment(99))
    log = SegmentLogStore(tmp_path).open("job", 1)
    missing = SegmentLogStore(tmp_path).open("missing", 1)
    before = len(os.listdir("/proc/self/fd"))
    for each in (log, missing):
        for offset in (0, 15, 80, 119, 500):
            each.read(offset, 100)
        each.size()
        each.gap()
        each.tail_offset(3)
    assert len(os.listdir("/proc/self/fd")) == before


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
        self.kept_at_last_listing = Model.of_size(self.writer.size, self.writer.segment_bytes).kept_from()
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
    def model() -> Model:
        return Model.of_size(writer.size, writer.segment_bytes)

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

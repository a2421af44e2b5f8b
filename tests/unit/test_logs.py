from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.log_store import Gap
from runner.logs import READ_LIMIT_BYTES, SegmentLog, SegmentLogStore
from tests.support.log_model import LogModel
from tests.support.log_writer import SegmentWriter


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
        model = LogModel(segment_bytes)
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

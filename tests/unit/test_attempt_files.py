"""The formats and locks of an attempt's files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.attempt_files import (
    AttemptFiles,
    ExitRecord,
    InvalidRecord,
    ShimSpec,
    lock_holder,
    segment_bytes,
    try_lock,
)

if TYPE_CHECKING:
    from pathlib import Path

RECORD = ExitRecord(
    exit_code=0,
    exit_signal=None,
    launch_error=None,
    stopped=None,
    started_at=1.5,
    ended_at=2.5,
    cpu_s=0.25,
    max_rss_bytes=1,
    read_bytes=2,
    written_bytes=3,
    log_bytes=4,
)

SPEC = ShimSpec(
    job_id="j",
    attempt=1,
    argv=["a", "ü"],
    environment={"A": "b"},
    work_dir="/w",
    prepare=[["x"]],
    source=None,
    warm_entry="m:f",
    timeout_s=None,
    stop_grace_s=1.5,
    log_segment_bytes=8192,
    title="t",
)


def test_a_record_and_a_spec_are_read_back_as_written() -> None:
    assert ExitRecord.load(RECORD.dump()) == RECORD
    assert ShimSpec.load(SPEC.dump()) == SPEC


def test_a_record_of_a_newer_minor_form_is_still_read() -> None:
    more = json.dumps({**json.loads(RECORD.dump()), "added_later": True}).encode()
    assert ExitRecord.load(more) == RECORD


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"exit_code": None},
        {"exit_code": 256},
        {"exit_code": -1},
        {"exit_code": True},
        {"exit_code": "0"},
        {"exit_signal": 9},
        {"exit_code": None, "exit_signal": 0},
        {"exit_code": None, "exit_signal": 65},
        {"exit_code": None, "launch_error": 7},
        {"stopped": "because"},
        {"stopped": ["cancel"]},
        {"ended_at": "now"},
        {"ended_at": None},
        {"started_at": float("nan")},
        {"started_at": -1},
        {"ended_at": 2**38},  # beyond the year 9999, which no datetime holds
        {"max_rss_bytes": 1.5},
        {"log_bytes": -1},
        {"written_bytes": 2**63},
        {"survivors": "none"},
    ],
)
def test_an_impossible_record_is_refused(change: dict[str, Any]) -> None:
    content = {"format": 1, **asdict(RECORD), **change}
    with pytest.raises(InvalidRecord):
        ExitRecord.load(json.dumps(content).encode())


@given(st.binary(max_size=200))
def test_foreign_bytes_are_refused_and_never_crash(content: bytes) -> None:
    for load in (ExitRecord.load, ShimSpec.load):
        with pytest.raises(InvalidRecord):
            load(content)


def test_a_record_nested_without_end_is_refused() -> None:
    for load in (ExitRecord.load, ShimSpec.load):
        with pytest.raises(InvalidRecord):
            load(b"[" * 100_000)


def test_a_lock_that_is_no_file_is_held_by_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "folder").mkdir()
    for name in ("fifo", "link", "folder", "missing"):
        assert lock_holder(str(tmp_path / name)) is None


@given(st.integers(0, len(RECORD.dump()) - 2))
def test_a_truncated_record_is_refused(length: int) -> None:
    with pytest.raises(InvalidRecord):
        ExitRecord.load(RECORD.dump()[:length])


def test_the_kernel_names_the_holder_of_a_lock_and_frees_it_at_death(tmp_path: Path) -> None:
    files = AttemptFiles(str(tmp_path), 1)
    os.makedirs(files.directory)
    assert lock_holder(files.lock) is None
    holding = (
        "import sys; from runner.attempt_files import try_lock; "
        f"assert try_lock({files.lock!r}) is not None; print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holding], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert lock_holder(files.lock) == holder.pid
        assert try_lock(files.lock) is None
        holder.kill()
        holder.wait()
    assert lock_holder(files.lock) is None
    mine = try_lock(files.lock)
    assert mine is not None
    os.close(mine)


@given(st.integers(64 * 2**10, 2**40))
def test_eight_segments_stay_within_the_limit(limit_bytes: int) -> None:
    assert 0 < 8 * segment_bytes(limit_bytes) <= limit_bytes

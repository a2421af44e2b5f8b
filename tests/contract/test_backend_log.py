"""What every backend promises of the log of an attempt, with the engine warm and cold."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import pytest

from tests.support.attempts import Attempts, recorded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=["warm", "cold"])
def attempts(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Attempts]:
    with contextlib.closing(Attempts(tmp_path, warm=request.param == "warm")) as attempts:
        yield attempts


def test_stdout_and_stderr_are_in_the_log_in_the_order_written(attempts: Attempts) -> None:
    handle = attempts.launch(*(f"{stream}={i} " for i in range(20) for stream in ("out", "err")))
    record = recorded(attempts.end(handle))
    assert attempts.log(handle) == b"".join(b"%d %d " % (i, i) for i in range(20))
    assert record.log_bytes == len(attempts.log(handle))


def test_the_log_is_exact_for_bytes_that_are_not_text(attempts: Attempts) -> None:
    data = bytes(range(256)) * 3 + b"\xff\xfe\x00no newline at the end"
    handle = attempts.launch(f"raw={data.hex()}")
    attempts.end(handle)
    assert attempts.log(handle) == data


def test_past_its_limit_the_log_keeps_the_first_and_the_newest_segments(
    attempts: Attempts, tmp_path: Path
) -> None:
    size = 1_000_000
    with contextlib.closing(Attempts(tmp_path, warm=attempts.warm, log_limit_bytes=128 * 1024)) as small:
        handle = small.launch(f"bytes={size}", job_id="flood")
        assert recorded(small.end(handle)).log_bytes == size
        segment = 16 * 1024
        stream = bytes(i % 251 for i in range(size))
        files = small.files(handle)
        kept = sorted(int(n.split(".")[1]) for n in os.listdir(files.directory) if n.startswith("log."))
        last = (size - 1) // segment
        assert kept == [0, *range(last - 6, last + 1)]
        for index in kept:
            with open(files.log_segment(index), "rb") as file:
                assert file.read() == stream[index * segment : (index + 1) * segment]

"""What keeps the last bytes of a log, and tells of those that could not be kept."""

from __future__ import annotations

import contextlib
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from runner.attempt_files import AttemptFiles
from runner.backends.log_segments import LogSegments
from runner.logs import SegmentLogStore
from runner.ports import Ended
from tests.support import tracing
from tests.support.attempts import Attempts
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


def is_zombie(process: psutil.Process) -> bool:
    return bool(process.status() == psutil.STATUS_ZOMBIE)


@pytest.fixture
def traced(tmp_path: Path) -> Iterator[Attempts]:
    if obstacle := tracing.obstacle():
        pytest.skip(obstacle)
    marker = tmp_path / "traced"
    marker.touch()
    with contextlib.closing(Attempts(tmp_path, warm=True, preload=f"support.tracing:{marker}")) as attempts:
        yield attempts


def test_what_is_written_between_the_engines_end_and_the_last_process_is_in_the_log(
    traced: Attempts, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    script = f"echo first; (read line < {go}; echo last) & exit 3"
    handle = traced.launch_argv(("/bin/sh", "-c", script))
    shim = psutil.Process(traced.until_running(handle))
    released = False
    for call in tracing.Tracee(shim.pid).calls():
        if call.name == "waitid" and not released:  # the engine is dead, and its output was read
            released = True
            (child,) = [c for c in shim.children() if c.status() != psutil.STATUS_ZOMBIE]
            go.write_text("on\n")
            wait_until(partial(is_zombie, child), what="the child's end")
    ended = traced.end(handle)
    assert isinstance(ended, Ended)
    assert ended.record.exit_code == 3
    assert traced.log(handle) == b"first\nlast\n"


def test_a_listing_from_before_the_writer_went_on_does_not_tell_which_segments_are_kept(
    tmp_path: Path,
) -> None:
    files = AttemptFiles.of(tmp_path, "job", 1)
    os.makedirs(files.directory)
    for index in (0, *range(5, 12)):
        Path(files.log_segment(index)).write_bytes(b"x" * 32)
    listed = {0: 32, 9: 32}  # taken while 1 to 8 were made and two of them dropped
    directory = os.open(files.directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert SegmentLogStore(tmp_path).open("job", 1)._lowest_behind(directory, 0, listed) == 5
    finally:
        os.close(directory)


def test_a_log_that_could_not_be_written_says_how_much_is_missing(tmp_path: Path) -> None:
    files = AttemptFiles(str(tmp_path), 1)
    os.makedirs(files.directory)
    log = LogSegments(files, 32)
    log.write(b"1" * 32)
    obstacle = Path(files.log_segment(1))
    obstacle.mkdir()
    log.write(b"lost")
    log.write(b" too")
    obstacle.rmdir()
    log.write(b"kept")
    index, text = 0, b""
    while os.path.exists(files.log_segment(index)):
        text += Path(files.log_segment(index)).read_bytes()
        index += 1
    assert b"8 bytes lost" in text.replace(b"\n", b" ")
    assert text.endswith(b"kept")

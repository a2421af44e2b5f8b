"""A workflow's folder becomes a job's working directory, whole or not at all."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from runner import folder_copy
from runner.backends import working_directory

if TYPE_CHECKING:
    from pathlib import Path


class Stopped(Exception):
    pass


def test_a_copy_cut_short_is_not_taken_for_whole_and_is_made_again(tmp_path: Path) -> None:
    source, work = tmp_path / "source", tmp_path / "work"
    source.mkdir()
    for number in range(5):
        (source / f"file-{number}").write_text("x")
    looks = iter(range(3))

    def stop_at_the_third_file() -> None:
        if next(looks, None) is None:
            raise Stopped

    with pytest.raises(Stopped):
        working_directory.make(str(work), str(source), stop_at_the_third_file)
    assert not work.exists()
    working_directory.make(str(work), str(source), lambda: None)
    assert sorted(path.name for path in work.iterdir()) == [f"file-{n}" for n in range(5)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "work"]


def test_a_copy_whose_maker_was_killed_is_not_taken_for_whole_and_is_made_again(tmp_path: Path) -> None:
    source, work = tmp_path / "source", tmp_path / "work"
    source.mkdir()
    for number in range(5):
        (source / f"file-{number}").write_text("x")
    looks = iter(range(3))

    def die_at_the_third_file() -> None:
        if next(looks, None) is None:
            signal.raise_signal(signal.SIGKILL)

    maker = os.fork()
    if maker == 0:
        working_directory.make(str(work), str(source), die_at_the_third_file)
    _, status = os.waitpid(maker, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert not work.exists()
    working_directory.make(str(work), str(source), lambda: None)
    assert sorted(path.name for path in work.iterdir()) == [f"file-{n}" for n in range(5)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "work"]


def test_no_file_is_copied_over_another(tmp_path: Path) -> None:
    """As two names do that a file system without upper and lower case takes for one."""
    (tmp_path / "first").write_text("first")
    (tmp_path / "second").write_text("second")
    with pytest.raises(FileExistsError):
        folder_copy.copy_file(str(tmp_path / "first"), str(tmp_path / "second"), lambda: None)
    assert (tmp_path / "second").read_text() == "second"


def test_a_directory_that_is_there_already_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    working_directory.make(str(tmp_path / "work"), str(tmp_path / "nowhere"), lambda: None)
    assert list((tmp_path / "work").iterdir()) == []


def test_what_a_power_cut_left_short_is_copied_again_and_what_the_job_wrote_stays(tmp_path: Path) -> None:
    source, work = tmp_path / "source", tmp_path / "work"
    (source / "below").mkdir(parents=True)
    for name in ("below/emptied", "shortened", "written", "removed"):
        (source / name).write_text("whole")
        os.utime(source / name, (1_000, 1_000))
    working_directory.make(str(work), str(source), lambda: None)
    for name, size in (("below/emptied", 0), ("shortened", 3)):
        os.truncate(work / name, size)
        os.utime(work / name, (1_000, 1_000))
    (work / "written").write_text("own")
    (work / "removed").unlink()
    working_directory.make(str(work), str(source), lambda: None)
    assert (work / "below" / "emptied").read_text() == "whole"
    assert (work / "shortened").read_text() == "whole"
    assert (work / "written").read_text() == "own"
    assert not (work / "removed").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "work"]

"""A workflow's folder becomes a job's working directory, whole or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

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


def test_a_directory_that_is_there_already_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    working_directory.make(str(tmp_path / "work"), str(tmp_path / "nowhere"), lambda: None)
    assert list((tmp_path / "work").iterdir()) == []

"""Trees of files given from one user to another, with everything in them that is there to deceive root."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from runner.isolation.ownership import give

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: gives files to other users")

SERVICE, JOB, OTHER = 1_960_000_000, 1_960_000_001, 1_960_000_002


@contextmanager
def opened(folder: Path) -> Iterator[int]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def hand(folder: Path, *, to: int, of: int, links: bool = False) -> None:
    with opened(folder.parent) as fd:
        give(fd, folder.name, owners={of}, uid=to, gid=to, links=links)


def owner(path: Path) -> int:
    return path.lstat().st_uid


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "work"
    (top / "deep" / "deeper").mkdir(parents=True)
    (top / "deep" / "file").write_text("x")
    (top / "link").symlink_to("/etc/passwd")
    for path in (top, *top.rglob("*")):
        os.chown(path, SERVICE, SERVICE, follow_symlinks=False)
    return top


def test_the_whole_tree_changes_hands_and_back(tree: Path) -> None:
    everything = [tree, *tree.rglob("*")]
    hand(tree, to=JOB, of=SERVICE)
    assert {owner(path) for path in everything} == {JOB}
    hand(tree, to=SERVICE, of=JOB, links=True)
    assert {(path.lstat().st_uid, path.lstat().st_gid) for path in everything} == {(SERVICE, SERVICE)}


def test_no_link_is_followed(tree: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").touch()
    for path in (outside, outside / "file"):
        os.chown(path, SERVICE, SERVICE)
    (tree / "folder-link").symlink_to(outside)
    (tree / "file-link").symlink_to(outside / "file")
    hand(tree, to=JOB, of=SERVICE)
    assert owner(outside) == owner(outside / "file") == SERVICE


def test_a_link_in_place_of_the_tree_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").touch()
    os.chown(outside / "file", SERVICE, SERVICE)
    (tmp_path / "work").symlink_to(outside)
    hand(tmp_path / "work", to=JOB, of=SERVICE)
    assert owner(outside / "file") == SERVICE


def test_a_file_with_a_name_outside_is_not_given_away(tree: Path, tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    store.touch()
    os.chown(store, SERVICE, SERVICE)
    os.link(store, tree / "mine")
    hand(tree, to=JOB, of=SERVICE)
    assert owner(store) == SERVICE
    assert owner(tree / "deep" / "file") == JOB


def test_a_file_with_all_its_names_inside_is_given(tree: Path) -> None:
    os.link(tree / "deep" / "file", tree / "deep" / "deeper" / "again")
    hand(tree, to=JOB, of=SERVICE)
    assert owner(tree / "deep" / "file") == JOB


def test_what_belongs_to_others_stays_theirs(tree: Path) -> None:
    os.chown(tree / "deep" / "file", OTHER, OTHER)
    hand(tree, to=JOB, of=SERVICE)
    assert owner(tree / "deep" / "file") == OTHER
    (tree / "roots").touch()
    hand(tree, to=SERVICE, of=JOB, links=True)
    assert owner(tree / "roots") == 0


@pytest.mark.parametrize("links", [False, True])
def test_a_program_that_runs_as_its_owner_does_not_change_hands_as_one(tree: Path, *, links: bool) -> None:
    program = tree / "deep" / "file"
    program.chmod(0o6755)
    hand(tree, to=JOB, of=SERVICE, links=links)
    assert owner(program) == JOB
    assert stat.S_IMODE(program.stat().st_mode) == 0o755


def test_folders_that_are_closed_even_to_their_owner_are_given(tree: Path) -> None:
    (tree / "deep").chmod(0)
    hand(tree, to=JOB, of=SERVICE)
    assert owner(tree / "deep" / "deeper") == JOB


def test_a_tree_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    hand(tmp_path / "nothing", to=JOB, of=SERVICE)

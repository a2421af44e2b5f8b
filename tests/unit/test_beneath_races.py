"""Opening beneath a folder while names in it change: a race that other ways lose."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING

import pytest

from runner.beneath import by_openat2, name_by_name, open_file
from tests.support.beneath_tree import INSIDE, SECRET, WAYS, Tree
from tests.support.swapping import swapping

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runner.beneath import Resolve


def by_realpath(tree: Tree, path: bytes) -> int:
    """What is often done: look where it leads, then open it."""
    top = os.path.realpath(tree.top)
    place = os.path.realpath(os.path.join(top, os.fsdecode(path)))
    if os.path.commonpath([top, place]) != top:
        raise FileNotFoundError
    return os.open(place, os.O_RDONLY | os.O_NONBLOCK)


def race(
    tree: Tree, opened: Callable[[bytes], int], times: int, *, until_leak: bool = False
) -> tuple[int, int]:
    """How often a file was opened and how often it was the secret, in `times` tries against a swapper."""
    top, outside = tree.top, tree.outside
    (top / "f1").write_bytes(INSIDE)
    (top / "f1.link").symlink_to(outside / "file")
    (top / "f2").write_bytes(INSIDE)
    os.link(outside / "file", top / "f2.hard")
    for name in ("d", "e", "e.other"):
        (top / name / "x").mkdir(parents=True)
        (top / name / "x" / "file").write_bytes(INSIDE)
    (top / "d.link").symlink_to(outside)
    (outside / "x").mkdir()
    (outside / "x" / "file").write_bytes(SECRET)
    (top / "e.other" / "x").rename(top / "e.other" / "y")
    (top / "e.other" / "x").symlink_to(outside)  # a folder that becomes another, with a link in it
    pairs = [("f1", "f1.link"), ("f2", "f2.hard"), ("d", "d.link"), ("e", "e.other")]
    good = leaked = 0
    with swapping(*((top / one, top / other) for one, other in pairs)):
        for path in itertools.islice(itertools.cycle([b"f1", b"f2", b"d/x/file", b"e/x/file"]), times):
            try:
                fd = opened(path)
            except OSError:
                continue
            content = os.read(fd, 100)
            os.close(fd)
            good += content == INSIDE
            leaked += content == SECRET
            if leaked and until_leak:
                break
    return good, leaked


@pytest.mark.parametrize("resolve", WAYS)
def test_no_race_of_links_is_lost(tmp_path: Path, resolve: Resolve) -> None:
    tree = Tree(tmp_path, resolve)
    times = 120_000 if resolve is by_openat2 else 12_000
    good, leaked = race(tree, lambda path: open_file(tree.fd, path, resolve=resolve), times)
    os.close(tree.fd)
    assert (good > times / 100, leaked) == (True, 0)


def test_a_check_before_the_opening_loses_that_race(tmp_path: Path) -> None:
    """Without this the test above would prove nothing."""
    tree = Tree(tmp_path, name_by_name)
    _, leaked = race(tree, lambda path: by_realpath(tree, path), 200_000, until_leak=True)
    os.close(tree.fd)
    assert leaked

"""Pages of files: complete, sorted and bounded, whatever the tree."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner import file_listing
from runner.beneath import open_folder
from runner.file_listing import (
    FilePage,
    FileQuery,
    FolderEntry,
    TooManyFiles,
    entries_of,
    every_file,
    list_files,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

# Names around the slash: "a" and what is in it must sort as their whole paths do.
NAMES = st.sampled_from([b"a", b"a-", b"a0", b"a.txt", b"b", b"\xff", b".h", b"\n", b"z"])
TREES = st.recursive(
    st.sampled_from(["file", "link", "hard", "fifo"]),
    lambda below: st.dictionaries(NAMES, below, max_size=5),
    max_leaves=25,
)


def build(folder: bytes, tree: dict[bytes, object]) -> None:
    for name, kind in tree.items():
        path = folder + b"/" + name
        match kind:
            case "file":
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
            case "link":
                os.symlink(b"/", path)
            case "hard":
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
                os.link(path, folder + b"/.second of " + name)
            case "fifo":
                os.mkfifo(path)
            case dict():
                os.mkdir(path)
                build(path, kind)
            case _:
                raise AssertionError(kind)


def model(tree: dict[bytes, object], above: bytes = b"") -> list[tuple[bytes, bool]]:
    """Every path that is no folder, and whether it is a plain file."""
    found = []
    for name, kind in tree.items():
        if isinstance(kind, dict):
            found += model(kind, above + name + b"/")
        else:
            found.append((above + name, kind == "file"))
            if kind == "hard":
                found.append((above + b".second of " + name, False))
    return found


@contextmanager
def lister(top: Path | bytes) -> Iterator[file_listing.ListFolder]:
    top_fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)

    def list_folder(path: bytes) -> Iterator[FolderEntry]:
        fd = open_folder(top_fd, path) if path else os.dup(top_fd)
        try:
            yield from entries_of(fd)
        finally:
            os.close(fd)

    try:
        yield list_folder
    finally:
        os.close(top_fd)


def pages(list_folder: file_listing.ListFolder, query: FileQuery, *, most: int = 1000) -> list[FilePage]:
    found = [list_files(list_folder, query)]
    while (start := found[-1].next_start) is not None:
        assert len(found) < most, "it does not come to an end"
        found.append(list_files(list_folder, replace(query, start=start)))
    return found


@settings(max_examples=80, deadline=None)
@given(
    tree=st.dictionaries(NAMES, TREES, max_size=5),
    limit=st.integers(1, 6),
    prefix=st.sampled_from([b"", b"a", b"a/", b"a/a", b"b/z/", b".h", b"nothing/", b"a//", b"../", b"/"]),
    hidden=st.booleans(),
    only=st.sampled_from([None, b"a", b"b"]),
    at_once=st.integers(1, 4),
    most_read=st.sampled_from([1, 3, 10, 100_000]),
)
def test_the_pages_hold_every_plain_file_once_in_order(
    tree: dict[bytes, object],
    limit: int,
    prefix: bytes,
    *,
    hidden: bool,
    only: bytes | None,
    at_once: int,
    most_read: int,
) -> None:
    wanted = [
        (path, is_plain)
        for path, is_plain in model(tree)
        if path.startswith(prefix) and (hidden or b"/." not in b"/" + path) and (only or b"") in path
    ]
    files = sorted(path for path, is_plain in wanted if is_plain)
    with (
        tempfile.TemporaryDirectory() as top,
        patch.multiple(file_listing, _AT_ONCE=at_once, _MOST_READ=most_read),
    ):
        build(top.encode(), tree)
        with lister(top.encode()) as list_folder:
            wants = None if only is None else (lambda path: only in path)
            query = FileQuery(prefix, limit=limit, hidden=hidden, only=wants)
            found = pages(list_folder, query)
            every = list(every_file(list_folder, query))
    assert [file.path for page in found for file in page.items] == files
    assert sorted(every) == [file for page in found for file in page.items]
    assert all(len(page.items) <= limit for page in found)
    for page in found:
        if page.total_is_exact:
            assert (page.total, page.left_out) == (len(files), len(wanted) - len(files))
        else:
            assert page.total <= len(files)
    assert most_read < 100_000 or all(page.total_is_exact for page in found)


def test_an_item_has_the_files_size_and_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    os.utime(tmp_path / "file", ns=(0, 1_234_567_890_123_456_789))
    with lister(tmp_path) as list_folder:
        (item,) = list_files(list_folder, FileQuery()).items
    assert item == (b"file", 5, 1_234_567_890_123_456_789)


def test_what_comes_and_goes_between_two_pages_disturbs_no_other(tmp_path: Path) -> None:
    for name in "abcdef":
        (tmp_path / name).touch()
    with lister(tmp_path) as list_folder:
        first = list_files(list_folder, FileQuery(limit=2))
        (tmp_path / "a").unlink()
        (tmp_path / "c").unlink()  # where the next page was to begin
        (tmp_path / "b0").touch()
        second = list_files(list_folder, FileQuery(limit=50, start=first.next_start or b""))
    assert [item.path for item in second.items] == [b"d", b"e", b"f"]


def test_a_start_that_nobody_was_given_shows_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file").touch()
    (tmp_path / "other").touch()
    with lister(tmp_path / "in") as list_folder, patch.object(file_listing, "_MOST_READ", 1):
        for start in (b"../other", b"/", b"..", b"a/../../", b"\0", b"x" * 9000, b"//", b"z/" * 3000):
            shown = [item.path for page in pages(list_folder, FileQuery(start=start)) for item in page.items]
            assert shown in ([], [b"file"])


def test_folders_without_end_are_looked_through_only_so_far(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(70):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(os.open("file", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=below))
        os.close(fd)
        fd = below
    os.close(fd)
    with lister(tmp_path) as list_folder:
        page = list_files(list_folder, FileQuery(limit=500))
        with patch.object(file_listing, "_MOST_READ", 1):
            slow = [item for each in pages(list_folder, FileQuery(limit=500)) for item in each.items]
    assert (len(page.items), page.left_out) == (64, 1)
    assert slow == list(page.items)


def test_of_a_folder_without_end_only_so_much_is_looked_at(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / str(number)).touch()
    with lister(tmp_path) as list_folder, patch.object(file_listing, "_LARGEST", 20):
        found = pages(list_folder, FileQuery(limit=7))
        every = every_file(list_folder, FileQuery())
        assert len([next(every) for _ in range(20)]) == 20
        with pytest.raises(TooManyFiles):
            next(every)
    assert [len(page.items) for page in found] == [7, 7, 6]
    assert {(page.total, page.total_is_exact) for page in found} == {(20, False)}


def test_all_files_are_taken_only_where_they_can_be_looked_through(tmp_path: Path) -> None:
    for folder in "abc":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "file").touch()
    with lister(tmp_path) as list_folder, patch.object(file_listing, "_MOST_WALKED", 5):
        with pytest.raises(TooManyFiles):
            list(every_file(list_folder, FileQuery()))
        assert len(list(every_file(list_folder, FileQuery(prefix=b"a/")))) == 1


@pytest.mark.parametrize("name", ["gone", "link", "file"])
def test_what_cannot_be_looked_through_is_left_out(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("/")

    def list_folder(path: bytes) -> Iterator[FolderEntry]:
        """A folder that became something else after it was listed."""
        if not path:
            yield FolderEntry(name.encode(), "folder")
        with lister(tmp_path) as really:
            yield from really(path) if path else ()

    page = list_files(list_folder, FileQuery())
    assert (page.items, page.left_out) == ((), 1)
    with patch.object(file_listing, "_MOST_READ", 1):
        assert pages(list_folder, FileQuery())[-1].items == ()


def test_other_trouble_is_not_taken_for_an_empty_folder() -> None:
    def list_folder(_path: bytes) -> Iterator[FolderEntry]:
        raise OSError(24, "too many open files")
        yield

    with pytest.raises(OSError, match="too many"):
        list_files(list_folder, FileQuery())

"""The tree of a job's files: measured and removed, whatever a job left there, and nothing beside it."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from runner import job_tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount and become another user")


def on_and_on() -> None:
    pass


@pytest.fixture
def place(tmp_path: Path) -> Iterator[int]:
    """The directory that trees are in."""
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def size(place: int) -> int:
    return job_tree.disk_bytes(place, "job", on_and_on)


def remove(place: int) -> None:
    job_tree.remove(place, "job", on_and_on)


def a_tree(tmp_path: Path) -> Path:
    job = tmp_path / "job"
    for folder in ("work/a/b", "work/c", "attempts/1"):
        (job / folder).mkdir(parents=True)
    for name in ("work/a/b/deep", "work/a/x", "work/c/y", "attempts/1/log.0"):
        (job / name).write_bytes(b"z" * 10_000)
    return job


def an_outside(tmp_path: Path) -> Path:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"p" * 1_000_000)
    return outside


@contextmanager
def bind_mount(source: Path, target: Path) -> Iterator[None]:
    done = subprocess.run(["mount", "--bind", source, target], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", target], check=True)


@contextmanager
def as_nobody() -> Iterator[None]:
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


# ---------------------------------------------------------------- measuring


def test_a_tree_takes_what_du_says(tmp_path: Path, place: int) -> None:
    job = a_tree(tmp_path)
    said = subprocess.run(["du", "-s", "-B1", job], capture_output=True, check=True, text=True).stdout
    assert size(place) == int(said.split()[0]) > 40_000


def test_what_is_not_there_takes_nothing(place: int) -> None:
    assert size(place) == 0


def test_holes_take_nothing_and_a_linked_file_counts_once(tmp_path: Path, place: int) -> None:
    job = a_tree(tmp_path)
    before = size(place)
    with (job / "work" / "sparse").open("wb") as file:
        file.truncate(2**40)
    (job / "work" / "big").write_bytes(b"b" * 2**20)
    for i in range(5):
        os.link(job / "work" / "big", job / "work" / "c" / f"again-{i}")
    assert before + 2**20 <= size(place) < before + 2**20 + 2**16


def test_what_links_lead_to_is_not_counted(tmp_path: Path, place: int) -> None:
    outside = an_outside(tmp_path)
    job = a_tree(tmp_path)
    before = size(place)
    (job / "work" / "link").symlink_to(outside)
    (job / "work" / "file").symlink_to(outside / "precious")
    assert size(place) < before + 100_000
    os.rename(job, tmp_path / "other")
    job.symlink_to(outside)
    assert size(place) < 100_000


@needs_root
def test_a_folder_that_cannot_be_read_does_not_stop_the_count(tmp_path: Path, place: int) -> None:
    job = a_tree(tmp_path)
    within = (
        job_tree.disk_bytes(place, os.path.join("job", "work", "a"), on_and_on)
        - (job / "work" / "a").stat().st_blocks * 512
    )
    without = size(place) - within
    for path in (tmp_path, job, *job.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    for mode in (0o000, 0o444, 0o111):
        (job / "work" / "a").chmod(mode)
        with as_nobody():
            assert size(place) == without


# ---------------------------------------------------------------- removing


def test_a_tree_is_removed_and_nothing_beside_it(tmp_path: Path, place: int) -> None:
    a_tree(tmp_path)
    outside = an_outside(tmp_path)
    remove(place)
    remove(place)  # nothing there is no error
    assert list(tmp_path.iterdir()) == [outside]


def test_links_are_removed_and_what_they_lead_to_stays(tmp_path: Path, place: int) -> None:
    outside = an_outside(tmp_path)
    outside.chmod(0o500)
    job = a_tree(tmp_path)
    (job / "work" / "link").symlink_to(outside)
    (job / "work" / "up").symlink_to("../../outside")
    (job / "attempts" / "2").symlink_to(outside)
    os.link(outside / "precious", job / "work" / "hard")
    remove(place)
    job.symlink_to(outside)
    remove(place)
    assert list(tmp_path.iterdir()) == [outside]
    assert [p.name for p in outside.iterdir()] == ["precious"]
    assert outside.stat().st_mode & 0o777 == 0o500


def test_files_that_are_no_files_are_removed(tmp_path: Path, place: int) -> None:
    job = a_tree(tmp_path)
    os.mkfifo(job / "work" / "fifo")
    remove(place)
    os.mkfifo(job)
    remove(place)
    assert list(tmp_path.iterdir()) == []


@needs_root
def test_what_a_job_closed_to_itself_is_removed_too(tmp_path: Path, place: int) -> None:
    job = a_tree(tmp_path)
    for path in (job, *job.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    for mode, folder in (
        (0o000, "work/a/b"),
        (0o111, "work/a"),
        (0o444, "work/c"),
        (0o500, "work"),
        (0, "."),
    ):
        (job / folder).chmod(mode)
    os.chown(tmp_path, NOBODY, NOBODY)
    with as_nobody():
        remove(place)
    assert list(tmp_path.iterdir()) == []


def test_a_tree_deeper_than_there_are_descriptors_is_measured_and_removed(tmp_path: Path, place: int) -> None:
    fd = os.dup(place)
    for name in ["job", *["d"] * 300]:
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    bottom = os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=fd)
    os.close(fd)
    os.write(bottom, b"x" * 2**20)
    os.close(bottom)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_now = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_now + 20, hard))
    try:
        assert size(place) > 2**20
        remove(place)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_more_entries_than_are_held_at_once_is_removed(
    tmp_path: Path, place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_tree, "_AT_ONCE", 10)
    job = a_tree(tmp_path)
    for i in range(35):
        (job / "work" / f"file-{i}").touch()
        (job / "work" / f"folder-{i}").mkdir()
        (job / "work" / f"folder-{i}" / "file").touch()
    remove(place)
    assert list(tmp_path.iterdir()) == []


@needs_root
def test_what_cannot_be_removed_is_told_and_the_rest_is_removed(
    tmp_path: Path, place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_tree, "_AT_ONCE", 3)
    job = a_tree(tmp_path)
    for name in "lmnop":
        (job / "work" / "a" / name).touch()
    os.chown(tmp_path, NOBODY, NOBODY)
    for path in (job, job / "work", job / "work" / "c"):  # the rest is root's
        os.chown(path, NOBODY, NOBODY)
    with as_nobody(), pytest.raises(PermissionError):
        remove(place)
    assert not (job / "work" / "c").exists()
    assert (job / "work" / "a" / "x").exists()
    remove(place)
    assert list(tmp_path.iterdir()) == []


@needs_root
@pytest.mark.parametrize("where", ["work/a/b", "."])
def test_what_is_mounted_in_a_tree_is_neither_counted_nor_removed(
    tmp_path: Path, place: int, where: str
) -> None:
    outside = an_outside(tmp_path)  # on the same file system: the device number tells nothing
    outside.chmod(0o500)
    job = a_tree(tmp_path)
    before = size(place)
    with bind_mount(outside, job / where):
        assert size(place) <= before
        with pytest.raises(OSError) as caught:
            remove(place)
        assert caught.value.errno == errno.EXDEV
        assert [p.name for p in outside.iterdir()] == ["precious"]
        assert outside.stat().st_mode & 0o777 == 0o500
    remove(place)
    assert list(tmp_path.iterdir()) == [outside]


def test_a_folder_moved_away_while_it_is_walked_does_not_lead_the_walk_astray(
    tmp_path: Path, place: int
) -> None:
    job = a_tree(tmp_path)
    outside = an_outside(tmp_path)
    (outside / "c").mkdir()
    (outside / "c" / "precious").touch()

    def move() -> None:
        # Called on entering each folder: move the one that it is in to where it has a sibling `c`, too.
        for folder in ("work/a", "work/c"):
            if (job / folder).exists() and here(job / folder):
                os.rename(job / folder, outside / "moved")

    def here(folder: Path) -> bool:
        about = folder.stat()
        fds = [int(name) for name in os.listdir("/proc/self/fd")]
        return any(_same(fd, about) for fd in fds)

    with pytest.raises(OSError) as caught:
        job_tree.remove(place, "job", move)
    assert caught.value.errno == errno.ESTALE
    assert (outside / "precious").exists()
    assert (outside / "c" / "precious").exists()


def _same(fd: int, about: os.stat_result) -> bool:
    try:
        found = os.fstat(fd)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (about.st_dev, about.st_ino)


class Enough(Exception):
    pass


def test_a_walk_may_be_ended_at_any_moment_and_taken_up_again(tmp_path: Path, place: int) -> None:
    open_before = len(os.listdir("/proc/self/fd"))
    for after in range(1, 20):
        a_tree(tmp_path)
        calls = iter(range(1, 1000))

        def rest(calls: Iterator[int] = calls, after: int = after) -> None:
            if next(calls) == after:
                raise Enough

        try:
            job_tree.disk_bytes(place, "job", rest)
            job_tree.remove(place, "job", rest)
        except Enough:
            remove(place)
            assert list(tmp_path.iterdir()) == []
        else:
            break
    assert after > 8
    assert len(os.listdir("/proc/self/fd")) == open_before

"""Small file systems to fill up, to make read-only and to cut the power of. For root alone."""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def run_or_skip(*argv: str) -> str:
    """What the command says; the test is skipped where it is missing or refused."""
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts a file system")
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip(f"{argv[0]} is not installed")
    if done.returncode:
        pytest.skip(f"refused here: {' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout.strip()


@contextlib.contextmanager
def small_disk(folder: Path, *, options: str = "size=4m") -> Iterator[Path]:
    """A tmpfs at `folder`, which is made if it is not there."""
    folder.mkdir(exist_ok=True)
    run_or_skip("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder))
    try:
        yield folder
    finally:
        unmount(folder)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Whoever names a file below `folder` finds a read-only file system; open files stay as they are.

    Another mount in front of it: a file system with a file open for writing cannot be remounted read-only.
    """
    run_or_skip("mount", "--bind", str(folder), str(folder))
    try:
        run_or_skip("mount", "-o", "remount,ro,bind", str(folder))
        yield
    finally:
        unmount(folder)


def unmount(folder: Path) -> None:
    subprocess.run(["umount", "-l", str(folder)], check=True)
    unmount_elsewhere(folder)


def unmount_elsewhere(folder: Path) -> None:
    """Unmount it in mount namespaces that were made meanwhile, by whomever: each has a mount of its own.

    As long as one is left, the next mount of the disk gets the same file system again, in the state it is in.
    """
    wait_until(lambda: _is_gone_everywhere(folder), what=f"no mount namespace has {folder} any more")


def _is_gone_everywhere(folder: Path) -> bool:
    here, place = os.readlink("/proc/self/ns/mnt"), f" {folder} ".encode()
    gone, seen = True, {here}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            namespace = os.readlink(f"/proc/{name}/ns/mnt")
            if namespace in seen:
                continue
            seen.add(namespace)
            with open(f"/proc/{name}/mountinfo", "rb") as mounts:
                if place not in mounts.read():
                    continue
            gone = False
            command = ["nsenter", "--mount", "--target", name, "umount", "--lazy", str(folder)]
            subprocess.run(command, capture_output=True, check=False)
    return gone


def fill(disk: Path) -> Path:
    """Take the last byte; remove the answer to make room again."""
    filler = disk / "filler"
    with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while os.statvfs(disk).f_bavail:
            file.write(bytes(4096))
    return filler


def take_inodes(disk: Path) -> Path:
    """Take the last inode; remove the answer, a folder, to have some again."""
    folder = disk / "inodes"
    folder.mkdir()
    with contextlib.suppress(OSError):
        for number in range(10_000):
            (folder / str(number)).touch()
    return folder

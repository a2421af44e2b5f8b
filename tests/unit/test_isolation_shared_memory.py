"""What a user left in memory is removed, and nobody else's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runner.isolation import shared_memory

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes things as other users"),
]

_FIRST = 1_960_000_000 + os.getpid() * 16

_MAKE = """
import ctypes, os, sys
from runner.isolation.uids import become
become(int(sys.argv[2]), int(sys.argv[2]))
libc = ctypes.CDLL(None, use_errno=True)
made = [libc.shmget(0, ctypes.c_size_t(4096), 0o1600), libc.semget(0, 1, 0o1600), libc.msgget(0, 0o1600)]
assert min(made) >= 0, os.strerror(ctypes.get_errno())
os.mkdir(sys.argv[1])
open(sys.argv[1] + "/content", "w").close()
"""


def leave_something(uid: int) -> Path:
    """In each place, as that user; the folder in /dev/shm is the answer."""
    folder = Path(shared_memory.FOLDER, f"snakeline-test-{uid}")
    subprocess.run([sys.executable, "-c", _MAKE, folder, str(uid)], check=True)
    return folder


def left_by(uid: int) -> list[str]:
    return [
        kind
        for kind in ("msg", "sem", "shm")
        for line in Path("/proc/sysvipc", kind).read_text().splitlines()[1:]
        if str(uid) in line.split()
    ]


def test_nothing_of_the_user_is_left_and_all_of_others() -> None:
    gone, stays = _FIRST, _FIRST + 1
    try:
        folders = [leave_something(uid) for uid in (gone, stays)]
        assert left_by(gone) == left_by(stays) == ["msg", "sem", "shm"]
        shared_memory.clear(gone)
        assert (left_by(gone), left_by(stays)) == ([], ["msg", "sem", "shm"])
        assert [folder.exists() for folder in folders] == [False, True]
        assert os.getresuid() == (0, 0, 0)
    finally:
        for uid in (gone, stays):
            shared_memory.clear(uid)


def test_a_user_who_left_nothing_is_no_trouble() -> None:
    shared_memory.clear(_FIRST + 2)

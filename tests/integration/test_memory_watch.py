"""The memory of a process tree, looked at from its top."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from runner.isolation.memory_watch import machine_oom_kills

ROOT = Path(__file__).parents[2]

# In a process of its own, so that the tests' other children are not in the tree.
PROGRAM = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from runner.isolation.memory_watch import MemoryWatch

MIB = 2**20
limit_mb, shared_mb, children, own_mb, stays = map(int, sys.argv[2:])
ready, tell = os.pipe()
held, hold = os.pipe()
top = os.fork()
if top == 0:
    os.close(hold)
    shared = bytearray(b"1" * (shared_mb * MIB))
    any(os.fork() == 0 for _ in range(children))  # a child goes on at once
    own = bytearray(b"1" * (own_mb * MIB))
    os.write(tell, b".")
    os.read(held, 1)
    os._exit(0)
for _ in range(children + 1):
    os.read(ready, 1)
watch = MemoryWatch(limit_mb * MIB, counts_kills=False)
answers = []
for _ in range(3):
    watch.next_at = 0.0
    answers.append(watch.is_exceeded())
    if not stays and hold is not None:
        os.close(hold)
        hold = None
        os.waitpid(top, 0)
print(json.dumps({"answers": answers, "peak_mb": watch.peak_bytes / MIB}))
"""


def looked_at(
    *, limit_mb: int, shared_mb: int = 0, children: int = 0, own_mb: int = 0, stays: bool = True
) -> tuple[list[bool], float]:
    numbers = [limit_mb, shared_mb, children, own_mb, int(stays)]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", PROGRAM, str(ROOT), *map(str, numbers)],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    found = json.loads(done.stdout)
    return found["answers"], found["peak_mb"]


def test_what_all_processes_take_counts_together() -> None:
    answers, peak_mb = looked_at(limit_mb=120, children=2, own_mb=50)
    assert answers == [False, True, True]
    assert 150 <= peak_mb < 200


def test_pages_that_forks_share_count_once() -> None:
    assert looked_at(limit_mb=150, children=4, shared_mb=60)[0] == [False, False, False]


def test_a_moment_beyond_the_limit_is_not_enough() -> None:
    assert looked_at(limit_mb=40, own_mb=60, stays=False)[0] == [False, False, False]


def test_the_kernels_count_of_kills_for_lack_of_memory_is_read_where_there_is_one() -> None:
    count = machine_oom_kills()
    if count is None:
        pytest.skip("this kernel does not count them (before 4.13)")
    assert count >= 0

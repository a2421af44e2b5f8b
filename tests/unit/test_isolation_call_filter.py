"""Calls that reach around Landlock and control groups are refused, and nothing else is."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Final

import pytest

from runner.isolation import call_filter

pytestmark = pytest.mark.skipif(
    not call_filter.is_known_here(), reason="the numbers of this machine's calls are not known"
)

_TRY: Final = """
import ctypes, json, os, platform, resource, subprocess, sys, threading
from runner.isolation import call_filter, restraints
restraints.gain_nothing()
call_filter.stay_inside()
libc = ctypes.CDLL(None, use_errno=True)
parent, cores = os.getppid(), resource.RLIMIT_CORE

def call(*numbers):
    if libc.syscall(*numbers) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

def run_thread():
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()

first_of_keys = 248 if platform.machine() == "x86_64" else 217
told = {}
for name, do in {
    "limit another": lambda: resource.prlimit(parent, cores, (0, 0)),
    "limit itself by its number": lambda: resource.prlimit(os.getpid(), cores, (0, 0)),
    "ask about another": lambda: resource.prlimit(parent, cores),
    "limit itself": lambda: resource.setrlimit(cores, (0, 0)),
    "clone3": lambda: call(435, None, 0),
    "add_key": lambda: call(first_of_keys, None, None, None, 0, 0),
    "request_key": lambda: call(first_of_keys + 1, None, None, None, 0),
    "keyctl": lambda: call(first_of_keys + 2, 0, -3, 0),
    "run a thread": run_thread,
    "run a program": lambda: subprocess.run(["true"], check=True),
    "run a program's program": lambda: subprocess.run(["sh", "-c", "ulimit -c 0; true | true"], check=True),
}.items():
    try:
        do()
    except OSError as error:
        told[name] = error.strerror
print(json.dumps(told))
"""


def test_only_what_reaches_around_the_walls_is_refused() -> None:
    done = subprocess.run([sys.executable, "-c", _TRY], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {
        "limit another": "Operation not permitted",
        "limit itself by its number": "Operation not permitted",  # who is meant, a filter cannot tell
        **dict.fromkeys(("clone3", "add_key", "request_key", "keyctl"), "Function not implemented"),
    }

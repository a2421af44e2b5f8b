"""The same small job run by others: as many at once, the output of each captured; jobs per second."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.rows import Options, Row, absent
from benchmarks.service import pause

if TYPE_CHECKING:
    from collections.abc import Callable

# The interpreter itself, not the link in a virtual environment: the start of Python is part of the job.
JOB: Final = (os.path.realpath(sys.executable), "-I", "-S", "-c", "pass")
_TIME_LIMIT_S: Final = 120.0
_APT: Final = "apt-get install parallel task-spooler"
_MAKE: Final = "make bench"


def limit_loop(directory: Path, at_once: int, jobs: int) -> float:
    """A bare posix_spawn and pidfd loop in Python: what any of us could reach at most."""
    epoll = select.epoll()
    running: dict[int, int] = {}
    started = 0
    begun = time.perf_counter()
    while started < jobs or running:
        while started < jobs and len(running) < at_once:
            out = os.open(directory / f"out.{started}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            actions = [(os.POSIX_SPAWN_DUP2, out, 1), (os.POSIX_SPAWN_DUP2, out, 2)]
            pid = os.posix_spawn(JOB[0], JOB, {}, file_actions=actions, setsid=True)
            os.close(out)
            pidfd = os.pidfd_open(pid)
            epoll.register(pidfd, select.EPOLLIN)
            running[pidfd] = pid
            started += 1
        for pidfd, _ in epoll.poll(_TIME_LIMIT_S):
            os.waitpid(running.pop(pidfd), 0)
            epoll.unregister(pidfd)
            os.close(pidfd)
    epoll.close()
    return jobs / (time.perf_counter() - begun)


def gnu_parallel(directory: Path, at_once: int, jobs: int) -> float:
    numbers = "\n".join(map(str, range(jobs))).encode()
    begun = time.perf_counter()
    subprocess.run(
        ["parallel", "--will-cite", f"-j{at_once}", "-N1", "--results", str(directory / "results"), *JOB],
        input=numbers,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=_environment(HOME=str(directory)),
        timeout=_TIME_LIMIT_S,
        check=True,
    )
    return jobs / (time.perf_counter() - begun)


def task_spooler(directory: Path, at_once: int, jobs: int) -> float:
    environment = _environment(
        TS_SOCKET=str(directory / "socket"),
        TMPDIR=str(directory),
        TS_MAXFINISHED="10",
        TS_SLOTS=str(at_once),
        TS_MAXCONN="2000",
    )

    def tsp(*arguments: str) -> str:
        done = subprocess.run(
            ["tsp", *arguments], env=environment, capture_output=True, timeout=_TIME_LIMIT_S, check=True
        )
        return done.stdout.decode()

    try:
        begun = time.perf_counter()
        for _ in range(jobs):
            last = tsp(*JOB)
        tsp("-w", last.strip())
        while any(word in tsp() for word in (" running ", " queued ")):
            if time.perf_counter() - begun > _TIME_LIMIT_S:
                raise TimeoutError("task-spooler did not finish")
            pause(0.01)
        return jobs / (time.perf_counter() - begun)
    finally:
        tsp("-K")


def in_peers_environment(options: Options, script: str) -> Callable[[Path, int, int], float]:
    def run(directory: Path, at_once: int, jobs: int) -> float:
        path = Path(__file__).with_name(script)
        done = subprocess.run(
            [options.peers_python, path, str(directory), str(at_once), str(jobs), *JOB],
            env=_environment(HOME=str(directory)),
            capture_output=True,
            timeout=_TIME_LIMIT_S,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{script} ended with {done.returncode}: {done.stderr.decode()[-2000:]}")
        return float(done.stdout.split()[-1])

    return run


def peers(options: Options) -> dict[str, Callable[[Path, int, int], float] | Row]:
    """Each peer's runner; a row that says how to install it where it is missing."""
    found: dict[str, Callable[[Path, int, int], float] | Row] = {}
    for name, command, function in (
        ("GNU parallel --results", "parallel", gnu_parallel),
        ("task-spooler", "tsp", task_spooler),
    ):
        found[name] = function if shutil.which(command) else absent(name, _APT)
    for name, module, script in (
        ("Huey, SQLite, threads", "huey", "peer_huey.py"),
        ("HyperQueue, local", "hyperqueue", "peer_hyperqueue.py"),
    ):
        has = options.peers_python.exists() and not subprocess.call(
            [options.peers_python, "-c", f"import {module}"], stderr=subprocess.DEVNULL
        )
        found[name] = in_peers_environment(options, script) if has else absent(name, _MAKE)
    return found


def _environment(**own: str) -> dict[str, str]:
    return {"PATH": os.defpath + ":/usr/local/bin", "LANG": "C.UTF-8", **own}

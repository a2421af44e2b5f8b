"""Jobs that take all they can get, in Snakemake's place. Standard library only.

A job's `parameters.hog` says of what: `memory`, `processes`, `processor`, `descriptors`, `log`, `disk`; or
nothing much: `none`. The file `begun` in the working directory says that it is at it. All but the first two
go on until the file `parameters.until` is there.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time

_BLOCK = b"0123456789abcde\n" * 2**16


def _take_memory() -> None:
    """And ask the kernel to kill everybody else before it."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as adjustment:
        adjustment.write("-1000")
    taken = bytearray()
    while True:
        taken += b"\1" * 2**20


def _take_processes() -> None:
    """A fork bomb: whoever is there has children, and they do the same."""
    while True:
        with contextlib.suppress(OSError):
            os.fork()


def _take_processor(until: str) -> int:
    """All of it, before everybody else; the answer is 1 if that was granted."""
    granted = 0
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        granted = 1
    with contextlib.suppress(OSError):
        os.nice(-20)
        granted = 1
    for _ in range(3):
        if os.fork() == 0:
            break
    while not os.path.exists(until):
        sum(range(10_000))
    return granted


def _take_descriptors(until: str) -> None:
    taken: list[int] = []
    while not os.path.exists(until):
        try:
            taken.extend(os.pipe())
        except OSError:
            time.sleep(0.01)  # noqa: TID251 - it has them all, and holds them


def _flood_log(until: str) -> None:
    while not os.path.exists(until):
        os.write(1, _BLOCK)


def _fill_disk(until: str) -> None:
    """Every byte there is, and again what others give back; it is free again at the end."""
    size = len(_BLOCK)
    with open("filler", "wb", buffering=0) as filler:
        while not os.path.exists(until):
            try:
                filler.write(_BLOCK[:size])
            except OSError:
                size = 4096
                time.sleep(0.001)  # noqa: TID251 - until somebody makes room
    os.unlink("filler")


def main(argv: list[str]) -> None:
    if argv == ["--version"]:
        print("9.0.0")  # noqa: T201 - as Snakemake answers
        return
    with open(argv[argv.index("--configfile") + 1], encoding="utf-8") as file:
        parameters = json.load(file)
    until = parameters.get("until", "")
    with contextlib.suppress(OSError):
        open("begun", "w").close()
    match parameters["hog"]:
        case "memory":
            _take_memory()
        case "processes":
            _take_processes()
        case "processor":
            sys.exit(_take_processor(until))
        case "descriptors":
            _take_descriptors(until)
        case "log":
            _flood_log(until)
        case "disk":
            _fill_disk(until)
        case "none":
            print(sum(range(100_000)))  # noqa: T201
        case other:
            raise SystemExit(f"there is no hog {other}")


if __name__ == "__main__":
    main(sys.argv[1:])

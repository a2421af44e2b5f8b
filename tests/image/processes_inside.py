"""Run inside a container: its processes as JSON; with an argument, SIGKILL for the one with that title."""

from __future__ import annotations

import json
import os
import signal
import sys


def processes() -> list[tuple[int, int, int, str]]:
    """Pid, user, effective capabilities and command line of each but this one."""
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline") as told:
                title = told.read().replace("\0", " ").strip()
            with open(f"/proc/{pid}/status") as told:
                status = dict(line.split(":", 1) for line in told)
        except OSError:  # it has ended meanwhile
            continue
        if int(pid) != os.getpid():
            found.append((int(pid), int(status["Uid"].split()[0]), int(status["CapEff"], 16), title))
    return found


def kill(title: str) -> int:
    [pid] = [pid for pid, _, _, told in processes() if title in told and "restarter.py" not in told]
    os.kill(pid, signal.SIGKILL)  # noqa: TID251 - nobody else reuses pids in this container
    return pid


if __name__ == "__main__":
    print(json.dumps(kill(sys.argv[1]) if len(sys.argv) > 1 else processes()))  # noqa: T201 - this is the answer

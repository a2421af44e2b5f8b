"""A job that says who it is and tries what it should not be able to. Standard library only.

It runs in Snakemake's place. Of its `parameters`, `read` are paths to read, `write` paths to write, `list`
folders to list, `signal` pids to signal, `become` users to become. `facts.json` in the working directory
tells what came of each: `done`, or the error's name. A `careless` one opens its working directory to
everybody. It takes `memory_mb` and has `sharers`, children that share it. Then it waits, unless told not to
(`wait` false), until there is a file `go` in the folder `ends`.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any


def main(argv: list[str]) -> None:
    if argv == ["--version"]:
        print("9.0.0")  # noqa: T201 - as Snakemake answers
        return
    with open(argv[argv.index("--configfile") + 1], encoding="utf-8") as file:
        asked = json.load(file)
    os.makedirs("deep/er", exist_ok=True)
    with open("deep/er/private", "w", encoding="utf-8") as file:
        file.write("mine alone")
    os.chmod("deep/er/private", 0o600)
    os.chmod("deep", 0o700)
    if asked.get("careless"):
        os.chmod(".", 0o777)
        os.chmod("Snakefile", 0o666)
    with open(f"/dev/shm/{os.environ['SNAKELINE_JOB_ID']}", "w", encoding="utf-8"):  # noqa: TID251
        pass
    with open("facts.new", "w", encoding="utf-8") as file:
        json.dump(_facts(asked), file)
    os.rename("facts.new", "facts.json")
    print("told", flush=True)  # noqa: T201 - the job's log
    held = b"x" * (2**20 * asked.get("memory_mb", 0))
    for _ in range(asked.get("sharers", 0)):
        if os.fork() == 0:
            break
    while asked.get("wait", True) and not os.path.exists(asked["ends"] + "/go"):
        time.sleep(0.02)  # noqa: TID251 - the job's own
    sys.exit(asked.get("exit", 0) if held is not None else 1)


def _facts(asked: dict[str, Any]) -> dict[str, Any]:
    with open("/proc/self/status", encoding="ascii") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    tries: dict[str, Callable[[Any], object]] = {
        "read": lambda path: open(path, "rb").read(1),  # noqa: SIM115
        "list": os.listdir,
        "signal": lambda pid: os.kill(pid, 0),  # noqa: TID251 - what it is about
        "write": lambda path: os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)),
        "become": os.seteuid,
    }
    return {
        "uids": os.getresuid(),
        "gids": os.getresgid(),
        "groups": os.getgroups(),
        "capabilities": status["CapPrm"],
        "no_new_privs": status["NoNewPrivs"],
        "parent": os.getppid(),
        **{act: {str(what): _outcome(do, what) for what in asked.get(act, ())} for act, do in tries.items()},
    }


def _outcome(do: Callable[[Any], object], what: Any) -> str:
    try:
        do(what)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


if __name__ == "__main__":
    main(sys.argv[1:])

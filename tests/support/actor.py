"""A job that does what its arguments say, run by exec and in a warm fork alike. Standard library only.

`python -I -S actor.py WORD...`, where each word is one act, done in order.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time


def main(argv: list[str]) -> int:
    """Do the acts behind this file's own name; the answer is the exit code."""
    start = next((i + 1 for i, word in enumerate(argv) if word.endswith("actor.py")), 0)
    for word in argv[start:]:
        act, _, argument = word.partition("=")
        code = _do(act, argument)
        if code is not None:
            return code
    return 0


def _do(act: str, argument: str) -> int | None:  # noqa: C901
    match act:
        case "exit":
            return int(argument)
        case "raise":
            raise RuntimeError(argument)
        case "signal":
            signal.signal(int(argument), signal.SIG_DFL) if int(argument) not in (9, 19) else None
            os.kill(os.getpid(), int(argument))  # noqa: TID251 - itself
        case "out":
            os.write(1, argument.encode())
        case "err":
            os.write(2, argument.encode())
        case "bytes":
            _write_all(bytes(i % 251 for i in range(int(argument))))
        case "raw":
            _write_all(bytes.fromhex(argument))
        case "wait":  # until the FIFO has a writer that closed
            with open(argument, "rb") as fifo:
                fifo.read()
        case "count":  # one line per start
            with open(argument, "a") as file:
                file.write(f"{os.getpid()}\n")
        case "remove":
            shutil.rmtree(argument)
        case "ignore-term":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        case "exit-on-term":
            signal.signal(signal.SIGTERM, lambda *_: os._exit(int(argument)))
        case "sleep":
            time.sleep(float(argument))  # noqa: TID251 - the job's own
        case "spawn":
            _spawn(argument)
        case "tell":
            os.write(1, json.dumps(_facts()).encode())
        case _:
            raise SystemExit(f"unknown act {act}")
    return None


def _spawn(kind: str) -> None:
    """A child that would outlive its parent: in its session, in one of its own, or a daemon's double fork."""
    sleep = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(300)"]
    if kind == "plain":
        subprocess.Popen(sleep)
    elif kind == "setsid":
        subprocess.Popen(sleep, start_new_session=True)
    elif kind == "stubborn":  # there is no telling it
        deaf = "import signal,time; signal.signal(15, 1); print(flush=True); time.sleep(300)"
        child = subprocess.Popen([sys.executable, "-I", "-S", "-c", deaf], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
    elif kind == "daemon":
        daemonise = (
            "import os,subprocess; os.fork() and os._exit(0); os.setsid(); "
            f"subprocess.Popen({sleep!r}, env={{}})"
        )
        subprocess.run([sys.executable, "-I", "-S", "-c", daemonise], check=True)


def _write_all(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def _facts() -> dict[str, object]:
    mask = os.umask(0o077)
    return {
        "cwd": os.getcwd(),
        "environ": dict(os.environ),  # noqa: TID251
        "fds": sorted(int(n) for n in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{n}")),
        "stdin": os.readlink("/proc/self/fd/0"),
        "leader": os.getsid(0) == os.getpid() == os.getpgid(0),
        "umask": mask,
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "session": _read("/proc/self/autogroup"),
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "sigint_default": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

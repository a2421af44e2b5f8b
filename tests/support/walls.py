"""A job that tries what it should not be able to do and prints what came of it. Standard library only."""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import resource
import signal
import socket
import stat
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def main(argv: list[str]) -> int:
    """Its one argument is JSON: where things are, by name."""
    asked: dict[str, Any] = json.loads(argv[-1])
    told = {"facts": _facts(), "tried": {}}
    for name, attempt in _attempts(asked).items():
        try:
            told["tried"][name] = f"done: {attempt()!r}"[:200]
        except OSError as error:
            told["tried"][name] = error.strerror
    os.write(1, json.dumps(told).encode())
    return 0


def _attempts(asked: dict[str, Any]) -> dict[str, Callable[[], object]]:
    data_dir, attempt, pid = asked["data_dir"], asked["attempt"], asked["service"]
    home, tmp = os.environ["HOME"], os.environ["TMPDIR"]  # noqa: TID251 - the job's own
    return {
        "list the data": lambda: os.listdir(data_dir),
        "read a file of the data": lambda: _read(asked["secret"]),
        "read it by another mount": lambda: _read(asked["alias"]),
        "list the attempt": lambda: os.listdir(attempt),
        "read the specification": lambda: _read(f"{attempt}/spec.json"),
        "write the record": lambda: _append(f"{attempt}/exit.json"),
        "write the log": lambda: _append(f"{attempt}/log.0"),
        "write to /tmp": lambda: _append(f"/tmp/{os.path.basename(data_dir)}.txt"),
        "write beside the data": lambda: _append(f"{os.path.dirname(data_dir)}/other.txt"),
        "remove beside the data": lambda: os.rename(asked["beside"], asked["beside"] + ".gone"),
        "truncate beside the data": lambda: os.truncate(asked["beside"], 0),
        "signal the service": lambda: os.kill(pid, signal.SIGCONT),  # noqa: TID251 - it tries
        "signal the shim": lambda: os.kill(os.getppid(), signal.SIGCONT),  # noqa: TID251
        "look into the shim": lambda: os.readlink(f"/proc/{os.getppid()}/fd/0"),
        "look into the service": lambda: _read(f"/proc/{pid}/environ"),
        "go through the service's root": lambda: _read(f"/proc/{pid}/root{asked['secret']}"),
        "make a device": lambda: os.mknod(f"{home}/disk", stat.S_IFBLK | 0o600, os.makedev(254, 0)),
        "read a disk": lambda: _read(asked["disk"]),
        "open a terminal": lambda: os.close(os.open(asked["terminal"], os.O_RDWR | os.O_NOCTTY)),
        "limit the service": lambda: resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0)),
        "mount": lambda: _mount(home),
        "open by handle": lambda: _open_by_handle(home),
        "leave the control group": lambda: _append(asked["groups"][0], str(os.getpid())),
        "reach an abstract socket": lambda: socket.socket(socket.AF_UNIX).connect("\0" + asked["socket"]),
        "read the system": lambda: bool(os.listdir("/usr")) and _read("/etc/passwd")[:4],
        "read beside the data": lambda: _read(asked["beside"]),
        "write at home": lambda: _append(f"{home}/file.txt"),
        "write to the temporary folder": lambda: _append(f"{tmp}/file.txt"),
        "move between its folders": lambda: os.rename(f"{home}/file.txt", "moved.txt"),
        "write an event": lambda: _append(f"{attempt}/events.jsonl"),
        "use /dev/null": lambda: _append("/dev/null"),
        "signal its child": _signal_child,
        "make a semaphore": lambda: bool(multiprocessing.get_context("fork").Lock()),
    }


def _facts() -> dict[str, object]:
    with open("/proc/self/status") as file:
        status = dict(line.split(":\t", 1) for line in file.read().splitlines())
    with open("/proc/self/oom_score_adj") as file:
        adjustment = int(file.read())
    return {
        "no_new_privs": status["NoNewPrivs"],
        "capabilities": status["CapPrm"],
        "oom_score_adj": adjustment,
        "core": resource.getrlimit(resource.RLIMIT_CORE),
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE),
        "dumpable": ctypes.CDLL(None).prctl(3, 0, 0, 0, 0),
        "groups": _read("/proc/self/cgroup"),
    }


def _read(path: str) -> str:
    with open(path, "rb") as file:
        return file.read(4096).decode(errors="replace")


def _append(path: str, text: str = "\n") -> None:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _signal_child() -> int:
    pid = os.fork()
    if pid == 0:
        signal.pause()
    os.kill(pid, signal.SIGKILL)  # noqa: TID251 - our child
    return os.waitpid(pid, 0)[1]


def _mount(folder: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", folder.encode(), b"tmpfs", 0, None) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _open_by_handle(folder: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    handle = ctypes.create_string_buffer(136)
    ctypes.c_uint.from_buffer(handle).value = 128
    mount_id = ctypes.c_int()
    if libc.name_to_handle_at(-100, folder.encode(), handle, ctypes.byref(mount_id), 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    fd = os.open(folder, os.O_RDONLY)
    if libc.open_by_handle_at(fd, handle, os.O_RDONLY) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    sys.exit(main(sys.argv))

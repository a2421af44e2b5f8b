"""Named points in a shim's life where a test makes it die, fail or wait; production code knows none of them.

A launcher arms one by `WarmSpec.preload`, before it forks: standard library only, and only what is
importable there. See `preload_of`.
"""

from __future__ import annotations

import errno
import importlib
import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Point:
    """Before or after a shim calls a function; `only` tells by its arguments which calls count."""

    module: str
    function: str  # dotted for a method
    after: bool = False
    only: Callable[..., bool] = lambda *_: True


def _is_for_exit(_source: str, target: str) -> bool:
    return target.endswith("/exit.json")


def _is_record(fd: int) -> bool:
    return os.readlink(f"/proc/self/fd/{fd}").endswith("/exit.json.tmp")


_SHIM = "runner.backends.shim"
_RUN = "runner.backends.engine_run"
_MARKS = "runner.backends.attempt_marks"
_ENGINE = "runner.backends.engine_process"

POINTS = {
    "launch.born": Point(_SHIM, "try_lock"),
    "launch.locked": Point(_SHIM, "try_lock", after=True),
    "launch.reserved": Point(_SHIM, "reserve_record", after=True),
    "launch.fork": Point("os", "fork"),
    "launch.forked": Point(_RUN, "EngineProcess.__init__", after=True),
    "launch.copying": Point("runner.folder_copy", "copy_file", after=True),
    "launch.before_mark": Point(_SHIM, "mark_started"),
    "launch.marked": Point(_SHIM, "mark_started", after=True),
    "launch.mark_sync": Point(_SHIM, "sync_directory"),
    "launch.mark_synced": Point(_SHIM, "sync_directory", after=True),
    "launch.told": Point(_ENGINE, "EngineProcess.become", after=True),
    "exit.ended": Point(_RUN, "EngineRun._collect"),
    "exit.collected": Point(_RUN, "EngineRun._collect", after=True),
    "exit.before_record": Point(_SHIM, "write_record"),
    "exit.written": Point(_MARKS, "_write", after=True),
    "exit.record_sync": Point("os", "fsync", only=_is_record),
    "exit.before_rename": Point("os", "rename", only=_is_for_exit),
    "exit.renamed": Point("os", "rename", after=True, only=_is_for_exit),
    "exit.directory_sync": Point(_MARKS, "sync_directory"),
    "exit.recorded": Point(_SHIM, "write_record", after=True),
}


def preload_of(point: str, action: str, switch: Path) -> str:
    """For `WarmSpec.preload`: do `action` at `point` as long as the path `switch` exists.

    `die` removes the switch and ends the shim at once; `hold` waits until somebody has written to the
    switch, a FIFO; the name of an errno makes the call fail with it,
    `RecursionError` as a call does that nobody expects to fail.
    """
    assert point in POINTS
    return f"support.failpoints:{point} {action} {switch}"


def __getattr__(name: str) -> Callable[[], None]:
    try:
        point, action, switch = name.split(" ", 2)
    except ValueError:
        raise AttributeError(name) from None
    return lambda: _arm(POINTS[point], action, switch)


def _arm(point: Point, action: str, switch: str) -> None:
    launcher = os.getpid()
    owner: Any = importlib.import_module(point.module)
    *path, function = point.function.split(".")
    for step in path:
        owner = getattr(owner, step)
    original = getattr(owner, function)

    def replacement(*args: Any, **kwargs: Any) -> Any:
        counts = os.getpid() != launcher and os.path.exists(switch) and point.only(*args)
        if counts and not point.after:
            _act(action, switch)
        answer = original(*args, **kwargs)
        if counts and point.after:
            _act(action, switch)
        return answer

    setattr(owner, function, replacement)


def _act(action: str, switch: str) -> None:
    match action:
        case "die":
            os.unlink(switch)
            signal.raise_signal(signal.SIGKILL)
        case "hold":
            with open(switch, "rb") as fifo:
                fifo.read()
        case "RecursionError":
            raise RecursionError("too deep")
        case _:
            number = getattr(errno, action)
            raise OSError(number, os.strerror(number))

"""Forks engine runs from a warm interpreter, as the launcher does: JSON requests and answers, one a line."""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import sys
import tempfile
import types
from typing import Any


def main() -> None:
    setup = json.loads(sys.argv[1])
    for name, folder in setup["packages"].items():
        package = types.ModuleType(name)
        package.__path__ = [folder]
        sys.modules[name] = package
    if setup["preload"] is not None:
        module, _, function = setup["preload"].partition(":")
        getattr(importlib.import_module(module), function)()
    tempfile.gettempdir()  # what anything imported may do: the answer must not stay for the runs
    attempt_files: Any = importlib.import_module("runner.attempt_files")
    engine_process: Any = importlib.import_module("runner.backends.engine_process")
    confinements: Any = importlib.import_module("runner.isolation.confinement")
    processes: Any = importlib.import_module("runner.isolation.processes")
    gc.collect()
    gc.freeze()
    gc.disable()
    _say({"threads": len(os.listdir("/proc/self/task"))})
    for line in sys.stdin:
        request = json.loads(line)
        spec = attempt_files.ShimSpec.load(request["spec"].encode())
        confinement = confinements.Confinement.none()
        engine = engine_process.EngineProcess(
            spec, confinement, uid=None, warm=True, title=processes.ProcessTitle()
        )
        engine.become(len(spec.prepare))
        _say({"pid": engine.pid})
        with open(request["output"], "ab", buffering=0) as log:
            _pump(engine, log)
        _say({"exit_code": os.waitstatus_to_exitcode(os.waitpid(engine.pid, 0)[1])})
        engine.close()


def _pump(engine: Any, log: Any) -> None:
    """Write what the engine says to the log until it has ended."""
    over = False
    while not over:
        over = engine.pidfd in select.select([engine.output, engine.pidfd], [], [])[0]
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(engine.output, 65536):
                log.write(chunk)


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()

"""Forks engine runs from a warm interpreter, as the launcher does: JSON requests and answers, one a line."""

from __future__ import annotations

import importlib
import json
import os
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
    processes: Any = importlib.import_module("runner.isolation.processes")
    _say({"threads": len(os.listdir("/proc/self/task"))})
    for line in sys.stdin:
        request = json.loads(line)
        spec = attempt_files.ShimSpec.load(request["spec"].encode())
        output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
        pid = engine_process.start(spec, spec.argv, output, warm=True, title=processes.ProcessTitle())
        os.close(output)
        _say({"pid": pid})
        _say({"exit_code": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])})


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()

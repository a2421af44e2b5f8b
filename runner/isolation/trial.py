"""Tries the measures in a process of its own: `python -I -S trial.py MEASURES NUMBER`. Standard library only.

Prints what held, as one line of JSON, and then waits to be killed.
"""

from __future__ import annotations

import json
import os
import sys


def main(arguments: list[str]) -> int:
    # The folder that holds the package `runner`: this file runs as a program.
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    from runner.isolation.confinement import (  # noqa: PLC0415
        Confinement,
        Limits,
        Measures,
        Places,
    )

    measures = Measures.load(json.loads(arguments[0]))
    troubles: dict[str, str] = {}
    group = measures.group("trial", int(arguments[1]))
    only_groups = Confinement(Measures(groups=measures.groups), Limits(), Places(), group)
    try:
        only_groups.prepare()
        only_groups.enter()
    except OSError as error:
        troubles["groups"] = error.strerror or str(error)
    others = Measures(files=measures.files, limits=measures.limits)
    rest = Confinement(others, Limits(), Places(), None)
    try:
        rest.prepare()
        rest.enter()
        if measures.files is not None:
            _require_hidden(measures.files.hidden)
    except OSError as error:
        troubles["files"] = error.strerror or str(error)
    sys.stdout.write(json.dumps(troubles) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    return 0


def _require_hidden(hidden: tuple[str, ...]) -> None:
    """Raises OSError when a folder that should be hidden can be read, or one that should not cannot."""
    for path in hidden:
        try:
            os.listdir(path)
        except (PermissionError, FileNotFoundError, NotADirectoryError):
            continue
        raise OSError(0, f"{path} could still be read")
    os.listdir("/proc/self")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

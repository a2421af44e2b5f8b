"""Runs Snakemake in its own interpreter, where nothing of ours is installed. Standard library only.

Executed as a script, it is Snakemake's command line with our logger plugin. In a warm process `preload`
is called once before the first fork and `main` in each fork.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import threading
import types
from typing import Any

_PLUGINS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "logger_plugin")
_LAUNCH_FLAGS = ("-I",)

# What every run imports after `snakemake.cli` and before it reads the Snakefile, found by comparing
# sys.modules in real runs. A name that another version of Snakemake does not have is passed over: the run
# then imports its own.
_LAZY_MODULES = (
    "argparse_dataclass",
    "certifi",
    "charset_normalizer",
    "docutils.core",
    "docutils.parsers.rst.directives.images",
    "docutils.readers.doctree",
    "docutils.transforms.universal",
    "docutils.writers",
    "dpath",
    "encodings.idna",
    "ftplib",
    "getpass",
    "http.cookiejar",
    "importlib.readers",
    "importlib.resources.readers",
    "jinja2",
    "mimetypes",
    "optparse",
    "pprint",
    "requests",
    "smart_open",
    "snakemake.assets",
    "snakemake.executors.local",
    "snakemake.profiles",
    "snakemake.report.html_reporter",
    "snakemake.scheduling.greedy",
    "snakemake.script",
    "snakemake.storage",
    "stringprep",
    "unicodedata",
    "yaml",
    "yte",
)

# What some runs import later: a module of the workflow may hide it then.
_LATE_MODULES = (
    "fastjsonschema",
    "graphlib",
    "jsonschema",
    "nbformat",
    "platformdirs.unix",
    "referencing.jsonschema",
    "traitlets",
)

# What the launcher imports for itself and some versions of Snakemake do not.
_OUR_MODULES = ("mmap", "resource")

_forked: Any = None


def preload() -> None:
    """Import what a run needs. Raises ImportError when this interpreter has no Snakemake."""
    from runner.engines import early_modules, forked_run  # noqa: PLC0415 - not there where it is a script

    global _forked  # noqa: PLW0603 - told to every fork
    _add_plugins()
    if os.path.expanduser("~") == "~":
        # A user whom nobody knows, as in containers: imports that look for a home would fail.
        os.environ["HOME"] = "/nonexistent"  # noqa: TID251 - no run sees it
    cli: Any = importlib.import_module("snakemake.cli")
    cli.get_argument_parser()  # finds and imports the plugins, ours among them
    for name in _LAZY_MODULES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    early = early_modules.EarlyModules()
    early.load(_LATE_MODULES)
    early.keep([name for name in _OUR_MODULES if not _is_used(name)])
    early.install()
    _forked = forked_run.Fork()


def _is_used(name: str) -> bool:
    """Whether a module that is not ours has imported it."""
    wanted = sys.modules.get(name)
    ours = ("__main__", "__mp_main__", "runner")
    others = [module for n, module in sys.modules.items() if n.partition(".")[0] not in ours]
    return any(getattr(module, "__dict__", {}).get(name) is wanted for module in others)


def main(argv: list[str]) -> None:
    """Run Snakemake with these arguments in this process; ends by SystemExit as its command does.

    How an interpreter was told to start this file (`-I …/snakemake_run.py`) may still be in front.
    """
    arguments = _own(argv)
    _add_plugins()
    for stream in (sys.stdout, sys.stderr):
        # -I makes the interpreter pass over PYTHONUNBUFFERED, and a warm one has started long before.
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    _look_like_the_command(arguments)
    _hide_ourselves()
    cli: Any = importlib.import_module("snakemake.cli")
    if _forked is not None:
        _forked.begin()
    try:
        cli.main(arguments)
    finally:
        _cancel_timers()


def let_go() -> None:
    """What an interpreter does last: drop what the workflow holds."""
    if _forked is not None:
        _forked.let_go()


def _own(argv: list[str]) -> list[str]:
    start = 0
    while argv[start : start + 1] and argv[start] in _LAUNCH_FLAGS:
        start += 1
    return argv[start + 1 :] if start else argv


def _add_plugins() -> None:
    # Not by PYTHONPATH, which every process of every rule would inherit.
    if _PLUGINS not in sys.path:
        sys.path.append(_PLUGINS)


def _look_like_the_command(arguments: list[str]) -> None:
    """Where a process that the workflow spawns looks for the program, there is Snakemake's own command."""
    program = os.path.join(os.path.dirname(sys.executable), "snakemake")
    main_module = types.ModuleType("__main__")
    if os.path.exists(program):
        main_module.__file__ = program
    sys.modules["__main__"] = sys.modules["__mp_main__"] = main_module
    sys.argv = [program, *arguments]
    sys.orig_argv = [sys.executable, *sys.argv]


def _hide_ourselves() -> None:
    """Take our package away: a workflow may have a module of the same name."""
    for name in [name for name in sys.modules if name == "runner" or name.startswith("runner.")]:
        del sys.modules[name]


def _cancel_timers() -> None:
    # Snakemake's rate limiter leaves a timer of one second that the interpreter would wait for. One that
    # the workflow itself has set goes on, as it would under Snakemake's own command.
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            module = getattr(thread.function, "__module__", None) or ""
            if module.partition(".")[0] == "snakemake":
                thread.cancel()


if __name__ == "__main__":
    main(sys.argv[1:])

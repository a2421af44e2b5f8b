"""Runs Snakemake in its own interpreter, where nothing of ours is installed. Standard library only.

Executed as a script, it is Snakemake's command line with our logger plugin. In a warm process `preload`
is called once before the first fork and `main` in each fork.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import random
import sys
import tempfile
import threading
import time
from typing import Any

_PLUGINS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "logger_plugin")
_LAUNCH_FLAGS = ("-I",)

# What a run imports after `snakemake.cli`, found by comparing sys.modules before and after real runs.
# A name that another version of Snakemake does not have is passed over: the run then imports its own.
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
    "fastjsonschema",
    "ftplib",
    "getpass",
    "graphlib",
    "http.cookiejar",
    "importlib.readers",
    "importlib.resources.readers",
    "jinja2",
    "jsonschema",
    "mimetypes",
    "nbformat",
    "optparse",
    "platformdirs",
    "platformdirs.unix",
    "pprint",
    "referencing.jsonschema",
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
    "traitlets",
    "unicodedata",
    "yaml",
    "yte",
)


def preload() -> None:
    """Import what a run needs. Raises ImportError when this interpreter has no Snakemake."""
    _add_plugins()
    cli: Any = importlib.import_module("snakemake.cli")
    cli.get_argument_parser()  # finds and imports the plugins, ours among them
    for name in _LAZY_MODULES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def main(argv: list[str]) -> None:
    """Run Snakemake with these arguments in this process; ends by SystemExit as its command does.

    How an interpreter was told to start this file (`-I …/snakemake_run.py`) may still be in front.
    """
    arguments = _own(argv)
    _add_plugins()
    # The process may be a fork: nothing that was fixed before it may be shared with its siblings.
    random.seed()
    tempfile.tempdir = None
    time.tzset()
    for stream in (sys.stdout, sys.stderr):
        # -I makes the interpreter pass over PYTHONUNBUFFERED, and a warm one has started long before.
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.argv = ["snakemake", *arguments]
    _hide_ourselves()
    cli: Any = importlib.import_module("snakemake.cli")
    workflow: Any = importlib.import_module("snakemake.workflow")
    workflow.Workflow._rundir = os.getcwd()  # noqa: SLF001 - captured when the module was imported
    try:
        cli.main(arguments)
    finally:
        _cancel_timers()


def _own(argv: list[str]) -> list[str]:
    start = 0
    while argv[start : start + 1] and argv[start] in _LAUNCH_FLAGS:
        start += 1
    return argv[start + 1 :] if start else argv


def _add_plugins() -> None:
    # Not by PYTHONPATH, which every process of every rule would inherit.
    if _PLUGINS not in sys.path:
        sys.path.append(_PLUGINS)


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

"""What a run in a fork of a warm process would otherwise share with it, or miss. Standard library only."""

from __future__ import annotations

import gc
import os
import shutil
import site
import sys
import tempfile
import time
from types import ModuleType
from typing import Any


class Fork:
    """One run in a fork of the warm process that has made this. Its methods are for the fork."""

    def __init__(self) -> None:
        self._namespace: dict[str, Any] = vars(sys.modules["snakemake.workflow"])  # a Snakefile runs in it
        self._names: set[str] = set()
        self._modules: set[str] = set()

    def begin(self) -> None:
        """Call before anything of the workflow runs."""
        _renew()
        self._names, self._modules = set(self._namespace), set(sys.modules)

    def let_go(self) -> None:
        """Drop the workflow's: files that it has left open are written out, and its `__del__` are called.

        An interpreter does that by taking all of its modules apart, which costs more than a short run.
        """
        sys.setswitchinterval(1000)  # a thread that is still there must not see names go
        for name in self._namespace.keys() - self._names:
            del self._namespace[name]
        for name in sys.modules.keys() - self._modules:
            if _is_the_workflows(sys.modules[name]):
                vars(sys.modules[name]).clear()
        gc.collect()


def _is_the_workflows(module: object) -> bool:
    """A library may not bear to be taken apart while the interpreter goes on."""
    file = getattr(module, "__file__", None)
    libraries = (sys.prefix + os.sep, sys.base_prefix + os.sep)
    return type(module) is ModuleType and isinstance(file, str) and not file.startswith(libraries)


def _renew() -> None:
    """Make anew what modules have taken from the process that imported them, and what no two runs may share.

    Found by looking through everything a warm process holds for values of its environment.
    """
    tempfile.tempdir = None
    time.tzset()
    site.USER_BASE = site.USER_SITE = None
    site.getusersitepackages()
    modules: dict[str, Any] = dict(sys.modules)
    if "numpy.random" in modules:
        modules["numpy.random"].seed()
    if process := modules.get("multiprocessing.process"):
        process.current_process().authkey = os.urandom(32)
    if shell := modules.get("snakemake.shell"):
        shell.shell.executable(_shell())
        shell.STDOUT = sys.stdout
    if workflow := modules.get("snakemake.workflow"):
        workflow.Workflow._rundir = os.getcwd()  # noqa: SLF001 - there is no other way
    if ssh := modules.get("smart_open.ssh"):
        ssh._SSH_CONFIG_FILES = [os.path.expanduser("~/.ssh/config")]  # noqa: SLF001
    if (pulp := modules.get("pulp")) and pulp.LpSolverDefault is not None:
        pulp.LpSolverDefault.setTmpDir()


def _shell() -> str | None:
    """As Snakemake chooses it when it is imported."""
    return next((name for name in ("bash", "sh") if shutil.which(name)), None)

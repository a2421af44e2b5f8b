"""Real Snakemake as an engine: found by its command, run by the interpreter of its environment."""

from __future__ import annotations

import functools
import glob
import json
import os
import re
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Final

from runner.engines import command
from runner.engines.offer import Offer
from runner.engines.snakemake_advice import what_to_do
from runner.engines.snakemake_dialect import SnakemakeDialect
from runner.errors import EngineUnavailable
from runner.ports import Command, EngineInfo, WarmSpec

if TYPE_CHECKING:
    from runner.attempt_files import AttemptFiles
    from runner.errors import FieldError
    from runner.jobs import Job, JobSpec
    from runner.ports import Workflow
    from runner.settings import RunnerSettings

_ENGINES = os.path.dirname(os.path.abspath(__file__))
_RUN = os.path.join(_ENGINES, "snakemake_run.py")
_ANSWER_WITHIN_S: Final = 30.0
_ASK_AGAIN_AFTER_S: Final = 10.0
_HEAD_BYTES: Final = 2048
# Where the interpreter's path is too long for a first line, installers write sh that is also Python.
_EXEC: Final = re.compile(r"'''exec' (?P<quote>[\"']?)(?P<python>/[^\"'$]+?)(?P=quote) \"\$0\" \"\$@\"")
_EXEC_BESIDE: Final = re.compile(r"'''exec' \"\$\(dirname .*\)\"/'?(?P<python>[\w.]+)'? \"\$0\" \"\$@\"")
_VERSION: Final = re.compile(r"\d+(\.\w+)+")
_ASK: Final = (
    "import importlib.metadata, importlib.util, json, pkgutil;"
    "spec = importlib.util.find_spec('snakemake');"
    "prefix = 'snakemake_executor_plugin_';"
    "found = [module.name for module in pkgutil.iter_modules() if module.name.startswith(prefix)];"
    "executors = [name.removeprefix(prefix).replace('_', '-') for name in found];"
    "print(json.dumps([importlib.metadata.version('snakemake'), spec.origin, executors]))"
)


@dataclass(frozen=True, slots=True)
class _Installation:
    """The command, and the interpreter that runs it; None where it is no Python script."""

    program: str
    python: str | None


@dataclass(frozen=True, slots=True)
class _Answer:
    signature: tuple[object, ...]
    asked_monotonic: float
    info: EngineInfo | None
    trouble: str
    origin: str | None
    executors: frozenset[str] | None = None  # plugins; None where they cannot be asked for


class SnakemakeEngine(SnakemakeDialect):
    """Snakemake started through `snakemake_run.py`; a command that is no Python script is run as it is.

    That loses the events and the warm start, nothing else. Thread-safe.
    """

    name = "snakemake"

    def __init__(self, settings: RunnerSettings, *, answer_within_s: float = _ANSWER_WITHIN_S) -> None:
        self._setting = settings.snakemake
        self._allowed = Offer.of(settings)
        self._answer_within_s = answer_within_s
        self._lock = threading.Lock()
        self._answer: _Answer | None = None

    def check(self) -> EngineInfo:
        """Ask Snakemake for its version; remembered until a file of it changes.

        Takes up to half a minute when it does not answer. A failure is looked into again after ten seconds.
        """
        found = self._find()
        with self._lock:
            answer = self._answer
            if answer is None or self._is_stale(answer, found):
                answer = self._answer = _ask(found, self._answer_within_s)
        if answer.info is None:
            raise EngineUnavailable(answer.trouble)
        return answer.info

    def _is_stale(self, answer: _Answer, found: _Installation) -> bool:
        if answer.signature != _signature(found, answer.origin):
            return True
        return answer.info is None and time.monotonic() > answer.asked_monotonic + _ASK_AGAIN_AFTER_S

    def _find(self) -> _Installation:
        """Raises EngineUnavailable."""
        program = shutil.which(self._setting, path=os.pathsep.join(os.get_exec_path()))
        if program is None:
            is_there = os.path.dirname(self._setting) and os.path.exists(self._setting)
            problem = "cannot be executed" if is_there else "was not found"
            raise EngineUnavailable(f"Snakemake ({self._setting}) {problem}: {what_to_do(self._setting)}.")
        program = os.path.abspath(program)
        return _Installation(program, _interpreter_of(program))

    def warm_spec(self) -> WarmSpec | None:
        try:
            found = self._find()
        except EngineUnavailable:
            return None
        if found.python is None:
            return None
        return WarmSpec(
            python=found.python,
            signature=repr(_signature(found, None)),
            isolated=False,
            packages={"runner": os.path.dirname(_ENGINES)},
            preload="runner.engines.snakemake_run:preload",
        )

    def validate(self, spec: JobSpec) -> list[FieldError]:
        return command.validate(spec, self._offer())

    def _offer(self) -> Offer:
        """What is allowed, and of that what is installed as far as it is known."""
        with self._lock:
            answer = self._answer
        try:
            bin_dir = os.path.dirname(self._find().program)
        except EngineUnavailable:
            return self._allowed
        known = None if answer is None or answer.info is None else answer.executors
        path = command.search_path(bin_dir)
        return replace(self._allowed, search_path=path, installed_executors=known)

    def _command(
        self, job: Job, workflow: Workflow, files: AttemptFiles, *, report_to: str | None = None
    ) -> Command:
        found = self._find()
        ours = found.python is not None
        program = (found.python, "-I", _RUN) if found.python is not None else (found.program,)
        prepare = (*program, *command.unlock_arguments(workflow, files))
        return Command(
            argv=(
                *program,
                *command.arguments(job, workflow, files, self._allowed, events=ours, report_to=report_to),
            ),
            environment=command.environment(job, files, bin_dir=os.path.dirname(found.program)),
            title=command.title(workflow, self.name),
            prepare=(prepare,) if command.is_locked(files) else (),
            files={files.config: command.config(job.spec)},
            warm_entry="runner.engines.snakemake_run:main" if ours else None,
        )

    def _is_foreign(self) -> bool:
        try:
            return self._find().python is None
        except EngineUnavailable:
            return True


def _interpreter_of(program: str) -> str | None:
    """The Python that a console script names in its first lines; None for any other program."""
    try:
        with open(program, "rb") as file:
            head = file.read(_HEAD_BYTES).decode("utf-8", "replace")
    except OSError:
        return None
    first, _, rest = head.partition("\n")
    path = _named_in(program, first, rest.partition("\n")[0])
    if path is None or not os.path.isabs(path) or not os.access(path, os.X_OK):
        return None
    return path if os.path.basename(path).startswith(("python", "pypy")) else None


def _named_in(program: str, first: str, second: str) -> str | None:
    if not first.startswith("#!"):
        return None
    parts = first[2:].split()
    if parts[:1] == ["/bin/sh"]:
        if found := _EXEC.match(second):
            return found["python"].strip()
        found = _EXEC_BESIDE.match(second)
        return found and os.path.join(os.path.dirname(os.path.realpath(program)), found["python"])
    if len(parts) == 2 and os.path.basename(parts[0]) == "env":
        return shutil.which(parts[1], path=os.pathsep.join(os.get_exec_path()))
    return first[2:].strip()


def _signature(found: _Installation, origin: str | None) -> tuple[object, ...]:
    """What changes with any installation: the command, the interpreter, the folders of its packages.

    An installer gives a package's folder of metadata another name with each version.
    """
    python = _stamp(found.python)
    packages = _package_folders(found.python, python) if found.python is not None else ()
    return (found, python, *(_stamp(path) for path in (found.program, origin, *packages)))


@functools.lru_cache(maxsize=8)
def _package_folders(python: str, _stamp: object) -> tuple[str, ...]:
    """Where installers put packages for the interpreter that has this stamp: beside it."""
    root = glob.escape(os.path.dirname(os.path.dirname(python)))
    found = (glob.glob(f"{root}/lib*/python3*/{name}-packages") for name in ("site", "dist"))
    return tuple(sorted(chain.from_iterable(found)))


def _stamp(path: str | None) -> tuple[int, int, int] | None:
    if path is None:
        return None
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_size, status.st_ino)


def _ask(found: _Installation, within_s: float) -> _Answer:
    argv = [found.program, "--version"] if found.python is None else [found.python, "-I", "-c", _ASK]
    trouble, version, origin, executors = "", None, None, None
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=within_s,
            check=False,
            env={"PATH": os.pathsep.join(os.get_exec_path()), "LC_ALL": "C.UTF-8"},
            cwd="/",
        )
        output = done.stdout.decode("utf-8", "replace").strip()
        if found.python is None:
            version = output if _VERSION.fullmatch(output) else None
        elif done.returncode == 0:
            version, origin, told = json.loads(output)
            executors = frozenset(told)
        if version is None:
            said = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2][:200]
            trouble = f"has no Snakemake to run ({said or f'exit code {done.returncode}'})"
    except subprocess.TimeoutExpired:
        trouble = f"did not answer within {within_s:g} s"
    except (OSError, ValueError) as error:
        trouble = f"cannot be asked for its version ({error})"
    info = None if version is None else EngineInfo("snakemake", version, is_mock=False)
    trouble = trouble and f"Snakemake ({found.program}) {trouble}: {what_to_do(found.program)}."
    return _Answer(_signature(found, origin), time.monotonic(), info, trouble, origin, executors)

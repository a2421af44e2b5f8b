"""Checks registered workflows for their author: what they say of themselves, Snakemake's lints, a dry run.

It runs the workflows' code, with the rights of whoever asks: for the operator, on workflows that are trusted.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from runner.attempt_files import AttemptFiles
from runner.backends import job_folders, working_directory
from runner.errors import EngineUnavailable
from runner.folder_version import version_of
from runner.jobs import Job, JobSpec, JobStatus
from runner.workflow_folder import README, SCHEMA, UnusableWorkflow

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runner.ports import Command, Engine, Workflow
    from runner.settings import RunnerSettings
    from runner.workflows import FolderRegistry

_WITHIN_S: Final = 300.0
_OUTPUT_BYTES: Final = 256 * 2**10
_MAX_CHARS: Final = 2000
_LINTS_OF: Final = re.compile(r"^Lints for (?P<where>.+?)(?: \(line (?P<line>\d+), .*\))?:$")
_LINT: Final = re.compile(r"^    \* (?P<title>.+?):$")


@dataclass(frozen=True, slots=True)
class Finding:
    """An error keeps jobs from running; a warning is worth a look; a note says what was not checked."""

    level: Literal["error", "warning", "note"]
    about: str
    text: str


@dataclass(slots=True)
class CheckedWorkflow:
    name: str
    version: str | None = None
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not any(finding.level == "error" for finding in self.findings)

    def add(self, level: Literal["error", "warning", "note"], about: str, text: str) -> None:
        self.findings.append(Finding(level, about, text[:_MAX_CHARS]))


def check_workflow(
    name: str,
    registry: FolderRegistry,
    engine: Engine,
    settings: RunnerSettings,
    *,
    must_be_one: bool = True,
) -> CheckedWorkflow:
    """What there is to say about the workflow that is called so, whether it is registered or not.

    Unless it `must_be_one`, a folder without a Snakefile may be there for something else.
    """
    checked = CheckedWorkflow(name)
    try:
        workflow = registry.examine(name)
    except UnusableWorkflow as error:
        checked.add("error", error.file, str(error))
        return checked
    if workflow is None:
        level: Literal["error", "warning"] = "error" if must_be_one else "warning"
        checked.add(level, "Snakefile", "there is none: put it into the folder, or into `workflow/`")
        return checked
    try:
        checked.version = version_of(os.fspath(workflow.folder), set())
    except OSError as error:
        checked.add("error", "folder", f"it cannot be read: {error.strerror} ({error.filename})")
        return checked
    if workflow.readme is None:
        checked.add("warning", README, "there is none: its first paragraph would be the description")
    if workflow.rules is None:
        checked.add("warning", SCHEMA, "there is none: any parameters pass, whatever they do in the shell")
    parameters = _parameters(workflow, checked)
    if parameters is not None:
        with tempfile.TemporaryDirectory(prefix="snakeline-check-") as place:
            _Trial(place, workflow, parameters, checked).run(engine, settings)
    return checked


def _parameters(workflow: Workflow, checked: CheckedWorkflow) -> Mapping[str, Any] | None:
    """What it can be tried with: its defaults, completed from the schema's first example."""
    if workflow.rules is None or workflow.parameters_schema is None:
        return {}
    examples = workflow.parameters_schema.get("examples")
    example = examples[0] if isinstance(examples, list) and examples else {}
    if not isinstance(example, dict):
        checked.add("error", SCHEMA, "the first of its `examples` is no object")
        return None
    parameters = workflow.rules.completed(example)
    errors = workflow.rules.errors(parameters)
    if not errors:
        return parameters
    told = "; ".join(f"{error.pointer} {error.detail}" for error in errors[:3])
    if any(error.pointer != "/parameters" for error in errors) or example:
        checked.add("error", SCHEMA, f"its own defaults or example are refused by it: {told}")
    else:
        checked.add("note", SCHEMA, f"not tried: {told}; give each a `default`, or the schema `examples`")
    return None


class _Trial:
    """A copy of the workflow in a folder that is thrown away, laid out as that of a job."""

    def __init__(
        self, place: str, workflow: Workflow, parameters: Mapping[str, Any], checked: CheckedWorkflow
    ) -> None:
        self._files = AttemptFiles.of(os.path.realpath(place), "check", 1)
        self._workflow = workflow
        self._parameters = parameters
        self._checked = checked

    def run(self, engine: Engine, settings: RunnerSettings) -> None:
        now = datetime.now(UTC)
        spec = JobSpec(workflow=self._workflow.name, parameters=self._parameters)
        job = Job("check", spec, JobStatus.PENDING, engine.name, created_at=now, updated_at=now)
        errors = engine.validate(spec)
        if errors:
            told = "; ".join(f"{error.pointer} {error.detail}" for error in errors[:3])
            self._checked.add("error", SCHEMA, f"the engine refuses its defaults: {told}")
            return
        try:
            os.makedirs(self._files.directory)
            job_folders.make(self._files)
            working_directory.make(self._files.work, os.fspath(self._workflow.folder), _go_on)
            command = engine.plan(job, self._workflow, self._files)
            for path, content in command.files.items():
                Path(path).write_bytes(content)
        except OSError as error:
            self._checked.add("error", "folder", f"it cannot be copied: {error.strerror} ({error.filename})")
            return
        except EngineUnavailable as error:
            self._checked.add("note", "dry run", f"not tried: {error}")
            return
        if engine.name == "snakemake":
            self._lint(command, settings)
        else:
            self._checked.add("note", "lint", "not tried: SNAKELINE_ENGINE is not snakemake")
        self._dry_run(command, engine)

    def _lint(self, command: Command, settings: RunnerSettings) -> None:
        program = shutil.which(settings.snakemake)
        assert program is not None  # else there was no command
        snakefile = os.path.join(self._files.work, self._workflow.snakefile)
        place = ("--snakefile", snakefile, "--directory", self._files.work)
        # Its form for programs is broken in Snakemake 9.27: the text on stderr is not.
        ended, output = self._output_of(
            (program, "--lint", *place, "--configfile", self._files.config), command.environment
        )
        lints = _lints(output)
        for where, title in lints:
            self._checked.add("warning", "lint", f"{where}: {title}")
        if ended is None:
            self._checked.add("warning", "lint", f"it was not done after {_WITHIN_S:g} s")

    def _dry_run(self, command: Command, engine: Engine) -> None:
        ended, output = self._output_of(command.argv, command.environment)
        if ended == 0:
            return
        if ended is None:
            self._checked.add("error", "dry run", f"it was not done after {_WITHIN_S:g} s")
            return
        reader = engine.reader(self._files)
        reader.advance()
        told = engine.explain(reader.ended(), output.encode()) or output
        if self._workflow.attachments is not None and re.search(r"(?m)^\W*input/", told):
            self._checked.add("note", "dry run", "not done: it wants files in input/, which come with jobs")
        else:
            self._checked.add("error", "dry run", told.replace(self._files.work + "/", ""))

    def _output_of(self, argv: Sequence[str], environment: Mapping[str, str]) -> tuple[int | None, str]:
        """How it ended, None for not in time, and the end of what it wrote."""
        with tempfile.TemporaryFile(dir=self._files.tmp) as output:
            try:
                ended: int | None = subprocess.run(
                    argv,
                    env=dict(environment),
                    cwd=self._files.work,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    timeout=_WITHIN_S,
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired:
                ended = None
            output.seek(max(0, output.seek(0, os.SEEK_END) - _OUTPUT_BYTES))
            return ended, output.read().decode("utf-8", "replace")


def _lints(output: str) -> list[tuple[str, str]]:
    found, where = [], "Snakefile"
    for line in output.splitlines():
        if heading := _LINTS_OF.match(line):
            where = heading["where"] + (f" (line {heading['line']})" if heading["line"] else "")
        elif lint := _LINT.match(line):
            found.append((os.path.basename(where) if "/" in where else where, lint["title"].rstrip(".")))
    return found


def _go_on() -> None:
    """Nobody stops it."""

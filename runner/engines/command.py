"""The command line, configuration and environment of a run: the same for the stand-in and for Snakemake."""

from __future__ import annotations

import json
import math
import os
import pwd
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from runner.engines import options
from runner.engines.json_pointer import MAX_KEY, escape, is_text
from runner.engines.offer import module_init
from runner.errors import FieldError
from runner.trace_context import environment_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.attempt_files import AttemptFiles
    from runner.engines.offer import Offer
    from runner.jobs import Job, JobSpec
    from runner.ports import Workflow

# A target becomes part of shell commands where a rule uses it unquoted, and one that begins with `-`
# is an option: nothing but these characters gets through.
_TARGET: Final = re.compile(r"\w[\w./~=+@:-]*", re.ASCII)
_KEY: Final = re.compile(r"\w[\w.\- ]*")
_SEARCH_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MAX_ERRORS: Final = 20
_MAX_DEPTH: Final = 32
_MAX_TARGET: Final = 1024


def arguments(
    job: Job,
    workflow: Workflow,
    files: AttemptFiles,
    offer: Offer,
    *,
    events: bool = True,
    report_to: str | None = None,
) -> list[str]:
    """The engine's arguments for the job's current attempt, or for a report of what it has made.

    The greedy scheduler spends 85 ms where the solver spends a second on 100 jobs. `--configfile`
    takes several values, so an option has to follow it; so do options' own lists.
    """
    result = [*_place(workflow, files), "--cores", str(job.spec.cores), "--configfile", files.config]
    result += ["--rerun-incomplete", *options.arguments(job.spec, offer), "--scheduler", "greedy"]
    if report_to is not None:
        result += ["--report", report_to]
    if events:
        result += ["--logger", "snakeline", "--logger-snakeline-path", files.events]
    return [*result, "--", *job.spec.targets]


_SELECT: Final = frozenset({"until", "omit_from"})


def for_report(job: Job) -> Job:
    """The job without the options that make a run do something else than look at what there is."""
    kept = {name: value for name, value in job.spec.options.items() if name in _SELECT}
    return replace(job, spec=replace(job.spec, options=kept), trace=None)


def for_plan(job: Job) -> Job:
    """The job as a dry run."""
    return replace(job, spec=replace(job.spec, options={**job.spec.options, "dry_run": True}))


def unlock_arguments(workflow: Workflow, files: AttemptFiles) -> list[str]:
    """The arguments that take away the lock of a run that was killed. Only for a run proven dead."""
    return [
        *_place(workflow, files),
        "--cores",
        "1",
        "--configfile",
        files.config,
        "--unlock",
        "--scheduler",
        "greedy",
        *_NO_PROFILES,
        "--",
    ]


_NO_PROFILES: Final = ("--profile", "none", "--workflow-profile", "none")


def _place(workflow: Workflow, files: AttemptFiles) -> list[str]:
    return ["--snakefile", os.path.join(files.work, workflow.snakefile), "--directory", files.work]


def is_locked(files: AttemptFiles) -> bool:
    """Whether a run has left its lock in the working directory."""
    try:
        with os.scandir(os.path.join(files.work, ".snakemake", "locks")) as entries:
            return next(entries, None) is not None
    except OSError:
        return False


def config(spec: JobSpec) -> bytes:
    """The configuration file. JSON keeps every type, where `--config` would make 7 of 007."""
    return json.dumps(dict(spec.parameters), ensure_ascii=False, allow_nan=False).encode()


def search_path(bin_dir: str) -> str:
    """Where a run finds its programs: beside the engine, then where systems keep theirs."""
    return f"{bin_dir}:{_SEARCH_PATH}"


def environment(job: Job, files: AttemptFiles, *, bin_dir: str) -> dict[str, str]:
    """The run's whole environment, built from nothing: no variable of the service is in it."""
    user = _user()
    return {
        "PATH": search_path(bin_dir),
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "HOME": files.home,
        "TMPDIR": files.tmp,
        "USER": user,
        "LOGNAME": user,
        "XDG_CACHE_HOME": os.path.join(files.home, ".cache"),
        "PYTHONUNBUFFERED": "1",
        "PYTHONNOUSERSITE": "1",
        "SNAKELINE_JOB_ID": job.id,
        "SNAKELINE_ATTEMPT": str(job.attempt),
        **environment_of(job.trace, job.id, job.attempt),
        **_modules(job.spec),
    }


def _modules(spec: JobSpec) -> dict[str, str]:
    """What makes the command `module` known to the shells of a run that gets its software by it."""
    init = module_init() if "env-modules" in spec.options.get("software_deployment", ()) else None
    return {} if init is None else {"BASH_ENV": init}


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return "snakeline"  # Snakemake needs some name


def title(workflow: Workflow, engine: str) -> str:
    """How the run is called in a list of processes."""
    return f"{engine} {workflow.name}"


def validate(spec: JobSpec, offer: Offer) -> list[FieldError]:
    """What no engine can be given here: the first errors, with pointers into the request."""
    found: list[FieldError] = []
    for error in _errors(spec, offer):
        found.append(error)
        if len(found) == MAX_ERRORS:
            break
    return found


def _errors(spec: JobSpec, offer: Offer) -> Iterator[FieldError]:
    for index, target in enumerate(spec.targets):
        if detail := _wrong_target(target):
            yield FieldError(f"/targets/{index}", detail)
    yield from options.errors(spec.options, offer)
    for key, value in spec.parameters.items():
        pointer = f"/parameters/{escape(key)}"
        if not _KEY.fullmatch(key) or len(key) > MAX_KEY:
            yield FieldError(
                pointer, "is no name: letters, digits, _ . - and spaces, beginning with a letter or digit"
            )
        else:
            yield from _wrong_value(pointer, value, _MAX_DEPTH)


def _wrong_target(target: str) -> str | None:
    if not _TARGET.fullmatch(target):
        return "must be made of letters, digits and _ . / ~ = + @ : - and begin with a letter, digit or _"
    if ".." in target.split("/"):
        return "must not contain a .. segment"
    return None if len(target) <= _MAX_TARGET else f"must have at most {_MAX_TARGET} characters"


def _wrong_value(pointer: str, value: Any, depth: int) -> Iterator[FieldError]:
    if depth == 0:
        yield FieldError(pointer, f"is nested more than {_MAX_DEPTH} levels deep")
        return
    match value:
        case str():
            if not is_text(value):
                yield FieldError(pointer, "contains a NUL or a character that is no Unicode text")
        case float():
            if not math.isfinite(value):
                yield FieldError(pointer, "must be a finite number")
        case dict():
            for key, inner in value.items():
                if not is_text(key) or key.startswith("-"):
                    yield FieldError(f"{pointer}/{escape(key)}", "is no name: it may not begin with -")
                yield from _wrong_value(f"{pointer}/{escape(key)}", inner, depth - 1)
        case list() | tuple():
            for index, inner in enumerate(value):
                yield from _wrong_value(f"{pointer}/{index}", inner, depth - 1)
        case _:
            return

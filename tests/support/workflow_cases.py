"""The workflows of tests/workflows: what each is run with and what it makes, and the bare command beside it.

`python -m tests.support.workflow_cases [NAME ...]` runs them bare and records what they make (expected.json).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.support.engines import ROOT, snakemake_command

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FOLDER: Final = ROOT / "tests" / "workflows"
TIME_LIMIT_S: Final = 900.0
_MOST_RECORDED: Final = 200
_ABOUT_THE_CASE: Final = {"case.json", "expected.json"}

# Files whose content is another each time, and what of it is: everything else is compared.
_UNSTEADY: Final = (
    (re.compile(r"benchmarks/.*\.tsv"), re.compile(rb"[\d:.]+|NA")),
    (re.compile(r"modules\.txt|random\.txt"), re.compile(rb"(?s).+")),  # compared by a test of their own
)

# Lines of a log that say when, where or in which order. None: how the engine was called, what it chose next.
_LINES: Final[tuple[tuple[re.Pattern[str], str | None], ...]] = (
    (re.compile(r"\[\w{3} \w{3} +\d+ [\d:]{8} \d{4}\]"), "[TIME]"),
    (re.compile(r"^  (Date|Workflow ID|Command|Config file\(s\)|Config MD5|User): .*"), r"  \1"),
    (re.compile(r"^Elapsed time: .*"), "Elapsed time"),
    (re.compile(r"^$"), None),  # before each choice of tasks
    (re.compile(r"^(Select jobs to execute|Execute \d+ jobs)\.\.\.$"), None),
    (re.compile(r"^\d+ of (\d+) steps \(\d+(\.\d+)?%\) done$"), r"N of \1 steps done"),
    (re.compile(r"^Job rate limit reached, waiting for free slots\.$"), None),
    (re.compile(r"^Config file .* is extended by additional config specified via the command line\.$"), None),
    (re.compile(r"\d{4}-\d\d-\d\dT[\d.]+\.snakemake\.log"), "LOG"),
    (re.compile(r"(jobid: |Finished jobid: |jobids?=|external_jobid: )\d+"), r"\1N"),
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "UUID"),
    (re.compile(r"tmp[\w.-]{8}\.(?=\w+\.py)"), "TEMPORARY."),
    (re.compile(r"0x[0-9a-f]{8,}"), "ADDRESS"),
)
_REASON: Final = "    reason: "


@dataclass(frozen=True, slots=True)
class Case:
    """One workflow, with the job that runs it.

    `error` of one that fails: how the message `begins` (a pattern), what else it `says`, which `rules` are to
    blame.
    """

    name: str
    job: Mapping[str, Any]
    error: Mapping[str, Any] | None
    is_long: bool

    @property
    def folder(self) -> Path:
        return FOLDER / self.name

    @property
    def expected(self) -> dict[str, Any]:
        recorded: dict[str, Any] = json.loads((self.folder / "expected.json").read_text())
        return recorded

    @property
    def body(self) -> dict[str, Any]:
        """The job as it is posted."""
        return {"workflow": self.name, "cores": 1, **self.job}


@dataclass(frozen=True, slots=True)
class Result:
    """What a run of a case came to; `finished` counts the tasks of each rule that ended well."""

    exit_code: int
    outputs: Mapping[str, str]
    finished: Mapping[str, int]
    log: Counter[str]

    def recorded(self) -> dict[str, Any]:
        """All but the log, as it is kept; very many outputs as one digest of them all."""
        outputs = dict(sorted(self.outputs.items()))
        if len(outputs) > _MOST_RECORDED:
            outputs = {f"{len(outputs)} files": _sha256(json.dumps(outputs).encode())}
        return {
            "exit_code": self.exit_code,
            "finished": dict(sorted(self.finished.items())),
            "outputs": outputs,
        }


def cases() -> list[Case]:
    return [_case(folder) for folder in sorted(FOLDER.iterdir()) if (folder / "Snakefile").exists()]


def _case(folder: Path) -> Case:
    about = folder / "case.json"
    told = json.loads(about.read_text()) if about.exists() else {}
    return Case(folder.name, told.get("job", {}), told.get("error"), told.get("long", False))


def bare_command(case: Case, directory: Path) -> tuple[list[str], Path, dict[str, str]]:
    """As a person would type it: the command, the copy of the workflow to run it in, and its environment."""
    work = directory / case.name
    shutil.copytree(case.folder, work, ignore=shutil.ignore_patterns(*_ABOUT_THE_CASE))
    snakemake = snakemake_command() or "snakemake"
    command = [snakemake, "--cores", str(case.job.get("cores", 1))]
    if case.is_long:
        command += ["--scheduler", "greedy"]  # the solver takes a second for every few of very many tasks
    for name, value in case.job.get("options", {}).items():
        command += _flags(name, value)
    if parameters := case.job.get("parameters"):
        config = directory / f"{case.name}.json"
        config.write_text(json.dumps(parameters))
        command += ["--configfile", str(config)]
    if targets := case.job.get("targets"):
        command += ["--", *targets]
    return command, work, _environment(snakemake, directory)


def _flags(option: str, value: Any) -> list[str]:
    match option:
        case "keep_going":
            return ["--keep-going"]
        case "resources":
            return ["--resources", *(f"{name}={amount}" for name, amount in value.items())]
        case "batch":
            return ["--batch", f"{value['rule']}={value['part']}/{value['of']}"]
        case _:
            raise ValueError(f"no flags are known for the option {option}")


def bare(case: Case, directory: Path) -> Result:
    """Run it without the service."""
    command, work, environment = bare_command(case, directory)
    done = subprocess.run(
        command,
        cwd=work,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=TIME_LIMIT_S,
        check=False,
    )
    log = done.stdout.decode(errors="surrogateescape")
    finished = Counter(re.findall(r"^Finished jobid: \d+ \(Rule: (\w+)\)$", log, re.MULTILINE))
    return Result(done.returncode, outputs(case, work), finished, log_lines(log, work))


def _environment(snakemake: str, home: Path) -> dict[str, str]:
    (home / "tmp").mkdir(exist_ok=True)
    return {
        "PATH": f"{os.path.dirname(snakemake)}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C.UTF-8",
        "HOME": str(home),
        "USER": "somebody",
        "LOGNAME": "somebody",
        "TMPDIR": str(home / "tmp"),
        "PYTHONUNBUFFERED": "1",
    }


def outputs(case: Case, work: Path) -> dict[str, str]:
    """Every file of a working directory that is not as the workflow brought it, with a digest of it."""
    found = {}
    for path in sorted(work.rglob("*")):
        inside = path.relative_to(work)
        if {".snakemake", "__pycache__"} & set(inside.parts) or _is_as_brought(path, case.folder / inside):
            continue
        if path.is_dir() and not any(path.iterdir()):
            found[f"{inside}/"] = "an empty folder"
        elif path.is_file():
            found[str(inside)] = _digest(str(inside), path.read_bytes())
        elif not path.is_dir():
            found[str(inside)] = f"mode {path.lstat().st_mode:o}"
    return found


def _is_as_brought(path: Path, original: Path) -> bool:
    if path.is_file() and original.is_file():
        return path.read_bytes() == original.read_bytes()
    return path.is_dir() and original.is_dir()


def _digest(name: str, content: bytes) -> str:
    for pattern, unsteady in _UNSTEADY:
        if pattern.fullmatch(name):
            content = unsteady.sub(b"N", content)
    return _sha256(content)


def _sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def log_lines(log: str, work: Path) -> Counter[str]:
    """How often each line is in a log, without what is another in each run."""
    text = log.replace(str(work), "WORK").replace(str(work.parent / "tmp"), "TMP")
    return Counter(line for line in map(steady_line, text.splitlines()) if line is not None)


def steady_reason(reason: str) -> str:
    """A task's reason, with the files it names in order: they come from sets. Of a long one, its kind."""
    if reason.endswith("…"):
        return reason.partition(": ")[0]
    parts = [part.partition(": ") for part in reason.split("; ")]
    return "; ".join(f"{head}: {', '.join(sorted(rest.split(', ')))}" for head, _, rest in parts)


def steady_line(line: str) -> str | None:
    """A line of a log or of events without what is another in each run; None if that is all of it."""
    if line.startswith(_REASON):
        return _REASON + steady_reason(line.removeprefix(_REASON))
    for pattern, instead in _LINES:
        if instead is not None:
            line = pattern.sub(instead, line)
        elif pattern.search(line):
            return None
    return line


def main(names: Iterable[str]) -> None:
    wanted = set(names)
    for case in cases():
        if wanted and case.name not in wanted:
            continue
        with tempfile.TemporaryDirectory() as directory:
            recorded = bare(case, Path(directory)).recorded()
        (case.folder / "expected.json").write_text(json.dumps(recorded, indent=2, ensure_ascii=False) + "\n")
        sys.stdout.write(f"{case.name}: {recorded['exit_code']}\n")


if __name__ == "__main__":
    main(sys.argv[1:])

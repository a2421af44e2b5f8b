"""An ended job's run as an RO-Crate: what ran, on what, with what result (docs/adr/0020).

RO-Crate 1.1 with the profiles of Workflow Run RO-Crate 0.5. The document is made entity by entity: of many
tasks only their numbers and the paths they name are held.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from pydantic_core import to_json

from api.crate_entity import entity, ref, refs
from api.crate_files import (
    CONFIG,
    LOG,
    METADATA,
    NO_CRATE,
    README,
    WORK,
    encoding_format,
    file_id,
    stand_in,
    told,
)
from api.problems import Problem
from runner.jobs import JobStatus
from runner.tasks import TaskQuery, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from api.crate_entity import Entity
    from api.crate_files import CrateFiles
    from runner.callers_jobs import CallersJobs
    from runner.file_listing import ListedFile
    from runner.jobs import Job
    from runner.tasks import Task

NO_LICENSE: Final = "No license was stated for what is in this crate: ask its author before you use it."

_CRATE: Final = "https://w3id.org/ro/crate/1.1"
_WORKFLOW_CRATE: Final = "https://w3id.org/workflowhub/workflow-ro-crate/1.0"
_PROFILES: Final = {
    "https://w3id.org/ro/wfrun/process/0.5": ("Process Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/workflow/0.5": ("Workflow Run Crate", "0.5"),
    _WORKFLOW_CRATE: ("Workflow RO-Crate", "1.0"),
}
_PROVENANCE: Final = {"https://w3id.org/ro/wfrun/provenance/0.5": ("Provenance Run Crate", "0.5")}
_SNAKEMAKE: Final = "https://w3id.org/workflowhub/workflow-ro-crate#snakemake"
_RUN: Final = "#run"
_DONE: Final = "http://schema.org/CompletedActionStatus"
_FAILED: Final = "http://schema.org/FailedActionStatus"
_TEXT_CHARS: Final = 10_000
_MOST_TASKS: Final = 200_000
_MOST_PATH_CHARS: Final = 2**25  # of all the places that tasks name: a job says of itself what they are
_TYPES: Final = ((bool, "Boolean"), (int, "Integer"), (float, "Float"), (str, "Text"))


@dataclass(slots=True)
class _Run:
    """What all tasks of a job have in common; sets in the order in which they were met."""

    actions: list[tuple[int, int]] = field(default_factory=list)  # attempt and number
    rules: dict[str, None] = field(default_factory=dict)
    read: dict[str, None] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)  # read to make something else of it
    made: dict[str, None] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    path_chars: int = 0


class RunCrate:
    """The crate of an ended job; `license_` is what its reader states.

    All of it raises JobNotFound when the job is deleted meanwhile, and OSError; making it also Problem (409)
    for a run of which more is told than a document could hold.
    """

    def __init__(
        self, jobs: CallersJobs, job: Job, files: CrateFiles, *, license_: str | None, log_bytes: int
    ) -> None:
        self._jobs = jobs
        self._job = job
        self._license = license_
        self._log_bytes = log_bytes
        self._files = files
        self._run = _Run()
        for attempt, task in self._tasks():
            self._note(attempt, task)
        self._parameters = sorted(job.spec.parameters.items())

    def document(self) -> Iterator[bytes]:
        """What `ro-crate-metadata.json` holds, in pieces."""
        yield b'{"@context":%s,"@graph":[' % to_json(f"{_CRATE}/context")
        before = b"\n"
        for each in self._entities():
            yield before + to_json(each)
            before = b",\n"
        yield b"\n]}\n"

    def folders(self) -> list[str]:
        """The ids of the folders that tasks have read or made as a whole."""
        places = {*self._run.read, *self._run.made}
        return sorted(each for each in places if each.endswith("/") and not each.startswith("#"))

    def _tasks(self) -> Iterator[tuple[int, Task]]:
        """Those that ran: in the last attempt all, in those before it the ones whose results stayed."""
        for attempt in range(1, self._job.attempt + 1):
            last = attempt == self._job.attempt
            statuses = (TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED)
            query = TaskQuery(attempt, statuses if last else statuses[:1], limit=500)
            while query is not None:
                page = self._jobs.tasks(self._job.id, query)
                yield from ((attempt, task) for task in page.items if task.started_at is not None)
                if not page.has_more:
                    break
                query = TaskQuery(attempt, query.statuses, after=page.items[-1].number, limit=500)

    def _note(self, attempt: int, task: Task) -> None:
        run = self._run
        run.actions.append((attempt, task.number))
        run.rules[task.rule] = None
        for paths, places in ((task.input, run.read), (self._results(task), run.made)):
            for path in paths:
                place = self._files.place(path)
                run.path_chars += 0 if place in places else len(place)
                places[place] = None
                if place.startswith("#"):
                    run.absent[place] = path
                if places is run.read and task.output:
                    run.used.add(place)
        if len(run.actions) > _MOST_TASKS or run.path_chars > _MOST_PATH_CHARS:
            raise Problem(NO_CRATE, "Its tasks, or the files they name, are too many for one document.")

    def _results(self, task: Task) -> tuple[str, ...]:
        """What a failed task was to make is not told: Snakemake removes it."""
        return task.output if task.status is TaskStatus.COMPLETED else ()

    # ------------------------------------------------------------ the entities

    def _entities(self) -> Iterator[Entity]:
        job, run = self._job, self._run
        profiles = _PROFILES | (_PROVENANCE if run.rules else {})
        yield entity(METADATA, "CreativeWork", about=ref("./"), conformsTo=refs((_CRATE, _WORKFLOW_CRATE)))
        yield self._root(list(profiles))
        for id_, (name, version) in profiles.items():
            yield entity(id_, "CreativeWork", name=name, version=version)
        yield entity(self._license_id, "CreativeWork", name=self._license or NO_LICENSE)
        yield from self._workflow()
        yield self._run_action()
        yield entity(self._agent, "Person", name=job.owner)
        yield from self._parameter_entities()
        yield from self._file_entities()
        for attempt, task in self._tasks():
            yield self._task_action(attempt, task)

    def _root(self, profiles: list[str]) -> Entity:
        job = self._job
        name = job.spec.name or f"{job.spec.workflow} {job.id}"
        actions = (_task_id(attempt, number) for attempt, number in self._run.actions)
        return entity(
            "./",
            "Dataset",
            name=f"Run of {name}",
            description=f"One run of the Snakemake workflow {job.spec.workflow}: {told(job)}.{stand_in(job)}",
            datePublished=_time(job.completed_at),
            license=ref(self._license_id),
            conformsTo=refs(profiles),
            mainEntity=ref(self._main),
            author=ref(self._agent),
            hasPart=refs((README, WORK, CONFIG, LOG)),
            mentions=refs((_RUN, *actions)),
            identifier=job.id,
            keywords=", ".join(f"{key}:{value}" for key, value in job.spec.labels.items()) or None,
        )

    @property
    def _license_id(self) -> str:
        """An address tells of itself; any other text is told of here."""
        license_ = self._license or ""
        return license_ if license_.startswith(("https://", "http://")) else "#license"

    @property
    def _agent(self) -> str:
        return f"#owner/{quote(self._job.owner)}"

    @property
    def _main(self) -> str:
        return file_id(self._files.snakefile)

    def _workflow(self) -> Iterator[Entity]:
        job, run = self._job, self._run
        license_ = self._files.license
        # As a reader would go through them: makers first.
        nodes = [node.rule for node in self._jobs.graph(job.id).nodes if node.rule in run.rules]
        rules = list(dict.fromkeys((*nodes, *run.rules)))
        yield entity(
            self._main,
            ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"],
            name=job.spec.workflow,
            version=job.workflow_version,
            identifier=job.workflow_commit,
            encodingFormat=encoding_format(b"Snakefile"),
            conformsTo=ref("https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"),
            programmingLanguage=ref(_SNAKEMAKE),
            license=None if license_ is None else ref(file_id(license_)),
            hasPart=refs(_tool_id(rule) for rule in rules),
            step=refs(_step_id(rule) for rule in rules),
            input=refs(_formal_id(name) for name, _ in self._parameters),
        )
        yield entity(
            _SNAKEMAKE,
            "ComputerLanguage",
            name="Snakemake",
            version=self._jobs.engine_version(job.id),
            identifier=ref("https://doi.org/10.12688/f1000research.29032.2"),
            url=ref("https://snakemake.github.io"),
        )
        for position, rule in enumerate(rules, 1):
            yield entity(
                _step_id(rule), "HowToStep", name=rule, position=position, workExample=ref(_tool_id(rule))
            )
            yield entity(
                _tool_id(rule),
                "SoftwareApplication",
                name=rule,
                description=f"The rule {rule} of the workflow.",
                softwareVersion=job.workflow_version,
            )

    def _run_action(self) -> Entity:
        job, run = self._job, self._run
        done = job.status is JobStatus.COMPLETED
        used = run.used | {
            folder for place in run.used for folder in _folders_of(place) if folder in run.made
        }
        return entity(
            _RUN,
            "CreateAction",
            name=f"Run of {job.spec.workflow}",
            description=f"Job {job.id}, attempt {job.attempt}, by the engine {job.engine}: {told(job)}.",
            instrument=ref(self._main),
            agent=ref(self._agent),
            startTime=_time(job.started_at),
            endTime=_time(job.completed_at),
            object=refs(
                (
                    *(each for each in run.read if run.made.keys().isdisjoint((each, *_folders_of(each)))),
                    *(_value_id(name) for name, _ in self._parameters),
                    CONFIG,
                )
            ),
            result=refs(each for each in run.made if each not in used),
            subjectOf=ref(LOG),
            actionStatus=_DONE if done else _FAILED,
            error=None if done else _cut(job.error_message or told(job)),
        )

    def _task_action(self, attempt: int, task: Task) -> Entity:
        done = task.status is TaskStatus.COMPLETED
        wildcards = ", ".join(f"{name}={value}" for name, value in task.wildcards.items())
        return entity(
            _task_id(attempt, task.number),
            "CreateAction",
            name=f"{task.rule} ({wildcards})" if wildcards else task.rule,
            description=_cut(task.shell_command or task.script or task.message or f"The rule {task.rule}."),
            instrument=ref(_tool_id(task.rule)),
            agent=ref(self._agent),
            startTime=_time(task.started_at),
            endTime=_time(task.ended_at),
            object=refs(self._files.place(path) for path in task.input),
            result=refs(self._files.place(path) for path in self._results(task)),
            subjectOf=refs(self._files.place(path) for path in task.log),
            actionStatus=_DONE if done else _FAILED,
            error=None if done else _cut(task.error.message if task.error else f"It was {task.status}."),
        )

    def _parameter_entities(self) -> Iterator[Entity]:
        for name, value in self._parameters:
            kind = next((kind for type_, kind in _TYPES if isinstance(value, type_)), "PropertyValue")
            plain = value if kind != "PropertyValue" else to_json(value).decode()
            yield entity(
                _formal_id(name),
                "FormalParameter",
                name=name,
                additionalType=kind,
                workExample=ref(_value_id(name)),
                conformsTo=ref("https://bioschemas.org/profiles/FormalParameter/1.0-RELEASE"),
            )
            yield entity(
                _value_id(name), "PropertyValue", name=name, value=plain, exampleOfWork=ref(_formal_id(name))
            )

    def _file_entities(self) -> Iterator[Entity]:
        files, run = self._files, self._run
        main = self._main
        folders = self.folders()
        yield entity(
            WORK,
            "Dataset",
            name="The working directory",
            description="Where the workflow ran: its own files, its input and its results."
            + ("" if files.is_whole else " There are more files in it than are described here."),
            hasPart=refs((*(file_id(file.path) for file in files.files), *folders)),
        )
        for folder in folders:
            yield entity(folder, "Dataset", name=folder.removeprefix(WORK), description="Made as a whole.")
        for file in files.files:
            if file_id(file.path) != main:
                yield _file_entity(file)
        yield entity(
            README,
            "File",
            name="About this crate",
            encodingFormat="text/markdown",
            about=ref("./"),
        )
        yield entity(
            CONFIG,
            "File",
            name="Parameters",
            description="The workflow's config, as it was given.",
            encodingFormat="application/json",
        )
        yield entity(
            LOG,
            "File",
            name="Log",
            description="What the run wrote.",
            encodingFormat="text/plain",
            contentSize=str(self._log_bytes),
        )
        for place, path in run.absent.items():
            yield entity(
                place,
                "CreativeWork",
                name=path,
                description="Not in this crate: it is elsewhere, or was not kept.",
            )


def _file_entity(file: ListedFile) -> Entity:
    return entity(
        file_id(file.path),
        "File",
        name=file.path.decode("utf-8", "replace"),
        contentSize=str(file.size_bytes),
        encodingFormat=encoding_format(file.path),
    )


def _time(when: datetime | None) -> str | None:
    return None if when is None else when.isoformat(timespec="milliseconds")


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT_CHARS else text[:_TEXT_CHARS] + " …"


def _task_id(attempt: int, number: int) -> str:
    return f"#attempt/{attempt}/task/{number}"


def _tool_id(rule: str) -> str:
    return f"#rule/{quote(rule, errors='replace')}"


def _step_id(rule: str) -> str:
    return f"#step/{quote(rule, errors='replace')}"


def _formal_id(name: str) -> str:
    return f"#parameter/{quote(name, errors='replace')}"


def _value_id(name: str) -> str:
    return f"#value/{quote(name, errors='replace')}"


def _folders_of(place: str) -> list[str]:
    """The folders that a file or a folder of the crate is in: a few, as it is really there."""
    if place.startswith("#"):
        return []
    names = place.removesuffix("/").split("/")
    return ["/".join(names[:depth]) + "/" for depth in range(1, len(names))]

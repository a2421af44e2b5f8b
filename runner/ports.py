"""The interfaces between the runner's parts; each has one contract test suite for all who implement it.

Those to stored jobs and to logs are in `job_store.py` and `log_store.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from runner.attempt_files import AttemptFiles, ExitRecord
    from runner.errors import FieldError
    from runner.jobs import Job, JobEvent, JobSpec, Progress
    from runner.tasks import (
        MissingInput,
        RuleGraph,
        RunEnd,
        Task,
        TaskFailure,
        TaskPage,
        TaskQuery,
    )


class EventBus(Protocol):
    """Tells subscribers that something happened. A hint: the store has the truth."""

    def publish(self, events: Sequence[JobEvent]) -> None:
        """Call every subscriber, in order; one that raises is dropped and logged."""

    def subscribe(
        self, callback: Callable[[JobEvent], None], *, job_id: str | None = None
    ) -> Callable[[], None]:
        """Returns the function that ends the subscription. Callbacks run on the publisher's thread."""


# ---------------------------------------------------------------- workflows and engines


class ParameterRules(Protocol):
    """What a workflow's schema says of its parameters."""

    def errors(self, parameters: Mapping[str, Any]) -> list[FieldError]:
        """The first mistakes; pointers begin at /parameters."""

    def completed(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """A copy in which every property that is not there has its `default`, if there is one."""


@dataclass(frozen=True, slots=True)
class AttachmentRules:
    """Which input files a workflow takes with a job.

    `names` is a regular expression for the whole path below `input/`. `max_bytes` counts what is unpacked as
    well. With `unpack`, archives are taken for the files in them.
    """

    max_bytes: int
    max_files: int
    names: str | None = None
    unpack: bool = False


@dataclass(frozen=True, slots=True)
class Workflow:
    """A workflow: a folder with a Snakefile and, maybe, a schema for its parameters."""

    name: str
    folder: Path
    snakefile: str  # relative to the folder
    description: str
    parameters_schema: Mapping[str, Any] | None
    rules: ParameterRules | None = None  # the schema's; None without one
    readme: str | None = None
    attachments: AttachmentRules | None = None  # None: it takes no files
    commit: str | None = None  # where the folder comes from git


class WorkflowRegistry(Protocol):
    def names(self) -> tuple[str, ...]: ...

    def get(self, name: str) -> Workflow:
        """Raises WorkflowNotFound."""


@dataclass(frozen=True, slots=True)
class PinnedWorkflow:
    """One version of a workflow; nothing changes in its folder any more."""

    workflow: Workflow
    version: str


class WorkflowPins(Protocol):
    """Registered workflows by the versions that jobs run: see runner/workflow_pins.py."""

    def pinned(self, name: str) -> PinnedWorkflow | None:
        """As `pin`, if that takes no time worth mentioning; else None. Raises WorkflowNotFound."""

    def pin(self, name: str) -> PinnedWorkflow:
        """The workflow as its folder is now, copied for jobs to run. It may read all of the folder.

        Raises WorkflowNotFound, WorkflowUnavailable, StorageFull.
        """

    def version(self, workflow: Workflow) -> str | None:
        """Of what `WorkflowRegistry.get` has answered; None when the folder cannot be read now."""

    def of(self, job: Job) -> Workflow:
        """What the job runs. Raises WorkflowNotFound, JobFilesGone."""


@dataclass(frozen=True, slots=True)
class Command:
    """How to start the engine for one attempt.

    `argv` is complete and never passes a shell; `prepare` are commands to run before it, in the same
    place. `files` are written first (absolute path to content). `launcher` names the interpreter whose
    warm process may run `warm_entry` with `argv[1:]`; None means that the engine is always executed.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    title: str
    prepare: tuple[tuple[str, ...], ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    warm_entry: str | None = None


@dataclass(frozen=True, slots=True)
class WarmSpec:
    """A launcher process for one interpreter: what it imports before it forks.

    `packages` maps the names of our own packages to their folders, so that the engine's environment
    needs nothing of ours installed and sees nothing of ours on its path.
    """

    python: str
    isolated: bool  # -S as well as -I: no site-packages
    packages: Mapping[str, str]
    preload: str | None  # "module:function" called once before the first fork
    signature: str = ""  # changes when the engine on disk does: the launcher is then started anew


@dataclass(frozen=True, slots=True)
class EngineInfo:
    name: str
    version: str
    is_mock: bool


@dataclass(frozen=True, slots=True)
class RunState:
    """What the engine's events say of a run so far; nothing when it has told nothing yet.

    `errors` are of the workflow and of no task, in the engine's own words. `log_lines` are the last ones of
    the failed task's own log, which is `log_path`; told once the run has ended. `places` are the folders that
    people need not read of: the working directory first.
    """

    progress: Progress | None = None
    failure: TaskFailure | None = None
    failures: int = 0  # tasks that have failed, this one among them
    failed_at: tuple[float, ...] = ()  # when each of them has, in seconds since the epoch
    errors: tuple[str, ...] = ()
    missing_input: tuple[MissingInput, ...] = ()
    log_path: str | None = None
    log_lines: str = ""
    places: tuple[str, ...] = ()

    @property
    def error_message(self) -> str | None:
        """The first real error in one line or a few, without what logs say of it."""
        if self.failure is not None:
            return f"Rule {self.failure.rule} failed: {self.failure.what}"
        return self.errors[0] if self.errors else None


class RunReader(Protocol):
    """Follows the events of one attempt; each call reads only what is new."""

    def advance(self, limit_bytes: int = ...) -> bool:
        """Read what was written since, so much of it at most; whether there is more."""

    @property
    def progress(self) -> Progress | None: ...

    def ended(self) -> RunState:
        """What the run has told until now, which is all: it has ended."""


class TaskReader(Protocol):
    """The tasks of one attempt, as its events tell. Not thread-safe.

    Answers are about what has been read; `end` says how the run has ended, None while it runs.
    """

    @property
    def weight(self) -> int:
        """How much memory it takes, in tasks."""

    def advance(self, limit_bytes: int = ...) -> bool:
        """Read what was written since, so much of it at most; whether there is more."""

    def is_long(self) -> bool:
        """Whether reading it all takes a while, so that `keep` is worth it."""

    def restore(self) -> bool:
        """Take what `keep` has left, in place of reading; whether there was anything."""

    def keep(self) -> None:
        """Leave what was read for the next reader; for when the run has ended."""

    def page(self, query: TaskQuery, end: RunEnd | None, *, attempt: int) -> TaskPage: ...

    def task(self, number: int, end: RunEnd | None) -> Task | None: ...

    def graph(self, end: RunEnd | None, *, attempt: int) -> RuleGraph: ...


class Engine(Protocol):
    """Turns a job into a command and reads back what the run tells of itself."""

    @property
    def name(self) -> str: ...

    def check(self) -> EngineInfo:
        """Prove that the engine can be started. Raises EngineUnavailable with what to do."""

    def warm_spec(self) -> WarmSpec | None:
        """The interpreter that can run this engine warm; None where it must be executed."""

    def validate(self, spec: JobSpec) -> list[FieldError]:
        """What this engine cannot run in `spec`: targets, options, its own parameters."""

    def command(self, job: Job, workflow: Workflow, files: AttemptFiles) -> Command:
        """The command for the job's current attempt. Raises EngineUnavailable."""

    def plan(self, job: Job, workflow: Workflow, files: AttemptFiles) -> Command:
        """The command that tells what the job would do, and does nothing. Raises EngineUnavailable."""

    def report(self, job: Job, workflow: Workflow, files: AttemptFiles) -> Command:
        """The command that writes a report of what the job has made to `files.report_draft`.

        It runs no rule. Raises EngineUnavailable.
        """

    def reader(self, files: AttemptFiles) -> RunReader: ...

    def tasks(self, files: AttemptFiles) -> TaskReader: ...

    def explain(self, state: RunState, log_tail: bytes) -> str | None:
        """The first real error a person needs, from the events or else from the end of the log."""

    def written_by(self, task: Task, log_tail: bytes) -> str:
        """The last lines that a failed task wrote to the run's log, as far as others' can be left out."""

    def remark(self, spec: JobSpec, state: RunState, log_tail: bytes) -> str | None:
        """What is odd about a run that ended well: that it did less than there was to do."""


# ---------------------------------------------------------------- the backend


@dataclass(frozen=True, slots=True)
class Handle:
    """One attempt of one job, as the backend knows it."""

    job_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    handle: Handle
    command: Command
    source: Path | None  # None: the working directory is taken as it is
    timeout_s: float | None
    cores: int = 1
    memory_bytes: int | None = None  # for all of its processes together

    @classmethod
    def of(cls, handle: Handle, command: Command, source: Path | None, spec: JobSpec) -> LaunchRequest:
        """The request for an attempt of a job with this spec."""
        memory_bytes = None if spec.memory_mb is None else spec.memory_mb * 2**20
        return cls(handle, command, source, spec.timeout_s, cores=spec.cores, memory_bytes=memory_bytes)


@dataclass(frozen=True, slots=True)
class NotStarted:
    """Nothing of the attempt has run: it is safe to launch."""


@dataclass(frozen=True, slots=True)
class Running:
    """The attempt runs, and the backend will report its end from `wait`."""


@dataclass(frozen=True, slots=True)
class Ended:
    record: ExitRecord


@dataclass(frozen=True, slots=True)
class Lost:
    """It was started, runs no more and left no readable result; `detail` says what is known."""

    detail: str


@dataclass(frozen=True, slots=True)
class Vacated:
    """Nothing is left of an attempt that was told as `Ended` with survivors."""


Observation = NotStarted | Running | Ended | Lost | Vacated
StopReason = Literal["cancel", "interrupt"]


class Backend(Protocol):
    """Runs attempts somewhere. All methods but `wake` belong to the supervisor's thread."""

    def start(self) -> None:
        """Make ready to launch. Raises BackendUnavailable."""

    def launch(self, request: LaunchRequest) -> None:
        """Ask for the attempt to be started; what became of it comes from `wait`.

        An attempt that was started already is not started again. Raises BackendUnavailable: nothing
        was started and the call may be repeated.
        """

    def observe(self, handle: Handle) -> Observation:
        """What the attempt is doing now; from `Running` on, its end is reported by `wait`.

        An end with survivors is followed by `Vacated`, from `wait` as well, when none is left.
        """

    def survivors(self) -> Sequence[Handle]:
        """Attempts that ended in an earlier run of the service and are not vacated; `wait` tells when."""

    def stop(self, handle: Handle, *, why: StopReason, force: bool = False) -> None:
        """Ask every process of the attempt to end: SIGTERM, then SIGKILL after the grace; at once if `force`.

        `why` ends up in the attempt's record; the first one counts. Returns once asked, not once dead:
        `wait` reports the end. Safe to repeat; an attempt that is already gone is no error.
        """

    def wait(self, timeout_s: float | None) -> list[tuple[Handle, Observation]]:
        """Block until an attempt ends, `wake` is called, or time is up; then what was observed."""

    def wake(self) -> None:
        """End the current or next `wait` at once. Safe from any thread and from signal handlers."""

    def top_pid(self, handle: Handle) -> int | None:
        """The pid of the attempt's top process, for sampling only; None when it is not known."""

    def close(self) -> None:
        """Let go of every attempt without disturbing it."""

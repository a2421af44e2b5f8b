"""The interfaces between the runner's parts; each has one contract test suite for all who implement it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from runner.jobs import JobStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Future
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime
    from pathlib import Path

    from runner.attempt_files import AttemptFiles, ExitRecord
    from runner.errors import FieldError
    from runner.jobs import Change, Job, JobEvent, JobSpec, Progress

Order = Literal["desc", "asc"]


# ---------------------------------------------------------------- the store


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """The caller's key and a digest of the body it came with."""

    key: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Submitted:
    job: Job
    replayed: bool


@dataclass(frozen=True, slots=True)
class Update:
    """One compare-and-set: store `after` if the stored version is still `before.version`."""

    before: Job
    after: Job
    kind: Change
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JobQuery:
    """A page of jobs. Statuses are alternatives; everything else must hold together.

    `q` matches a part of the name in any case; one or two characters match the beginning of a name
    only. From eight characters on it also matches the beginning of the id (ids begin with the time, so
    fewer would match nearly every job). No character in it has a special meaning. Jobs created exactly
    at `created_after` or `created_before` are left out. `after_seq` is the last `seq` of the page before:
    the page continues behind it in `order` of submission.
    """

    statuses: tuple[JobStatus, ...] = ()
    workflow: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    q: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    order: Order = "desc"
    limit: int = 50
    after_seq: int | None = None


@dataclass(frozen=True, slots=True)
class JobPage:
    """`total` is exact when filtered by status and workflow alone; any other filter counts only so far.

    `total_is_exact` tells which. Not exact, it is a lower bound: 10,000 for labels or times, 5,000 for
    `q`, and fewer for several of these together, where the store stops looking before it has seen all.
    """

    items: tuple[Job, ...]
    total: int
    total_is_exact: bool
    has_more: bool


@dataclass(frozen=True, slots=True)
class EndedJob:
    """An ended job in short, for walking very many of them in the order of their ends.

    `created_ceiling` is the latest `created_at` of this job and all submitted before it. It is later
    than `completed_at` only where the clock was wrong at one of the two.
    """

    seq: int
    id: str
    completed_at: datetime
    created_ceiling: datetime


class JobStore(Protocol):
    """Thread-safe and durable: a write's future resolves after its commit, and never before.

    Every write appends its event rows in the same transaction; `on_commit` (a constructor argument)
    is called with them afterwards, in order, on the writer's thread. Every method may raise
    StoreUnavailable; writes may raise StorageFull. A future that raises changed nothing.
    """

    def add(
        self, job: Job, *, key: IdempotencyKey | None = None, max_pending: int | None = None
    ) -> Future[Submitted]:
        """Store a new job; the answer carries its `seq`.

        A known key with the same fingerprint answers the job it made, as replayed. The future raises
        IdempotencyMismatch for another fingerprint, QueueFull when `max_pending` jobs are pending.
        """

    def update(self, updates: Sequence[Update]) -> Future[list[Job | None]]:
        """Apply each update in one transaction; None in the answer for each that lost its race."""

    def delete(self, job: Job) -> Future[bool]:
        """Remove the job, its events and its idempotency key; False when its version has changed.

        The same commit puts its id among the `leftovers`.
        """

    def forget_leftovers(self, job_ids: Sequence[str]) -> Future[None]:
        """Nothing of these deleted jobs is left on the disk; ids that are no leftovers are no error."""

    def get(self, job_id: str) -> Job:
        """Raises JobNotFound."""

    def list(self, query: JobQuery) -> JobPage: ...

    def pending(self, *, max_cores: int, limit: int) -> Sequence[Job]:
        """Pending jobs that need at most `max_cores`, highest priority first, then oldest."""

    def running(self) -> Sequence[Job]: ...

    def counts(self) -> Mapping[JobStatus, int]:
        """Jobs per status; every status is there. Takes no scan."""

    def ended(self, *, after: EndedJob | None = None, limit: int = 500) -> Sequence[EndedJob]:
        """Ended jobs, the earliest end first, then by seq; those behind `after`. Takes no scan."""

    def leftovers(self, *, after: str = "", limit: int = 500) -> Sequence[str]:
        """Ids of deleted jobs whose files may still be there, in order; those behind `after`."""

    def events(
        self, *, job_id: str | None = None, after_seq: int = 0, limit: int = 500
    ) -> Sequence[JobEvent]:
        """Events with a greater `seq`, in order."""

    def check(self) -> None:
        """Prove that the store can be read and written. Raises StoreUnavailable or StorageFull."""

    def close(self) -> None:
        """Finish the writes already asked for, then release everything. Safe to repeat."""


class EventBus(Protocol):
    """Tells subscribers that something happened. A hint: the store has the truth."""

    def publish(self, events: Sequence[JobEvent]) -> None:
        """Call every subscriber, in order; one that raises is dropped and logged."""

    def subscribe(
        self, callback: Callable[[JobEvent], None], *, job_id: str | None = None
    ) -> Callable[[], None]:
        """Returns the function that ends the subscription. Callbacks run on the publisher's thread."""


# ---------------------------------------------------------------- workflows and engines


@dataclass(frozen=True, slots=True)
class Workflow:
    """A registered workflow: a folder with a Snakefile and, maybe, a schema for its parameters."""

    name: str
    folder: Path
    snakefile: str  # relative to the folder
    description: str
    parameters_schema: Mapping[str, Any] | None


class WorkflowRegistry(Protocol):
    def names(self) -> tuple[str, ...]: ...

    def get(self, name: str) -> Workflow:
        """Raises WorkflowNotFound."""

    def validate(self, workflow: Workflow, parameters: Mapping[str, Any]) -> list[FieldError]:
        """What the workflow's schema says against these parameters; pointers begin at /parameters."""


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
    """What the engine's events say of a run so far; all None when it has told nothing yet."""

    progress: Progress | None = None
    error_message: str | None = None


class RunReader(Protocol):
    """Follows the events of one attempt; each call reads only what is new."""

    def advance(self) -> bool:
        """Read what was written since; whether `state` changed. A broken line is skipped."""

    @property
    def state(self) -> RunState: ...


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

    def reader(self, files: AttemptFiles) -> RunReader: ...

    def explain(self, state: RunState, log_tail: bytes) -> str | None:
        """The first real error a person needs, from the events or else from the end of the log."""


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
    source: Path
    timeout_s: float | None


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


Observation = NotStarted | Running | Ended | Lost
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
        """What the attempt is doing now; from `Running` on, its end is reported by `wait`."""

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


# ---------------------------------------------------------------- logs


@dataclass(frozen=True, slots=True)
class Gap:
    """Bytes `[start, end)` of the stream that are no longer kept."""

    start: int
    end: int


class Log(Protocol):
    """The log of one attempt. Offsets count the bytes of the stream as written; they never change."""

    def size(self) -> int:
        """Bytes written so far, the skipped ones included."""

    def gap(self) -> Gap | None: ...

    def read(self, offset: int, limit: int) -> tuple[int, bytes]:
        """At most `limit` bytes from `offset` on, and the offset they really begin at.

        Bytes in the gap are passed over: the answer then begins behind it. At the end: (size, b"").
        """

    def tail_offset(self, lines: int) -> int:
        """Where the last `lines` lines begin; never inside the gap."""

    def watch(self) -> AbstractAsyncContextManager[LogWatch]:
        """Wakes an asyncio reader when something is appended."""


class LogWatch(Protocol):
    async def changed(self, timeout_s: float) -> None:
        """Return when something was written since the last call, or time is up."""


class LogStore(Protocol):
    def open(self, job_id: str, attempt: int) -> Log:
        """An attempt that has written nothing yet has an empty log."""

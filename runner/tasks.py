"""What a run consists of: its tasks, which Snakemake calls jobs, and its graph of rules. Frozen values."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from runner.jobs import Reason


class TaskStatus(StrEnum):
    """`cancelled` is a task that was stopped, or never came to its turn, before the run ended."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


def is_of_inner_run(log: str) -> bool:
    """Whether it is the log of the Snakemake that a cluster runs for a task, and not the workflow's own."""
    return log.startswith(".snakemake/")


@dataclass(frozen=True, slots=True)
class TaskError:
    """Why a task failed. `is_root`: nothing that failed before it explains it."""

    message: str
    exit_code: int | None = None
    log_lines: tuple[str, ...] = ()  # the last of its log file, or of the run's log; only of a task by itself
    is_root: bool = True


@dataclass(frozen=True, slots=True)
class Task:
    """One task of one attempt of a job, as the run has told of it; `number` is Snakemake's own jobid.

    A pending task has told its rule, its wildcards and no more. Paths are as the workflow has them,
    relative to the working directory unless they begin with a slash. `attempt` counts how often the run
    has started it (Snakemake's `retries`).
    """

    number: int
    rule: str
    status: TaskStatus
    wildcards: Mapping[str, str] = field(default_factory=dict)
    attempt: int = 0
    started_at: datetime | None = None
    ended_at: datetime | None = None
    reason: str | None = None
    message: str | None = None
    threads: int | None = None
    priority: int | None = None
    resources: Mapping[str, Any] = field(default_factory=dict)
    input: tuple[str, ...] = ()
    output: tuple[str, ...] = ()
    log: tuple[str, ...] = ()
    benchmark: tuple[str, ...] = ()
    shell_command: str | None = None
    script: str | None = None
    is_checkpoint: bool = False
    is_local: bool = False
    group: str | None = None
    external_id: str | None = None  # in the cluster's own words
    error: TaskError | None = None


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How an attempt has ended, for the tasks that have told no end of their own.

    A `reason` of None is not known. What says it failed from `stopped_at` on was running until then; where
    only `was_stopped` is known, what a signal has ended.
    """

    reason: Reason | None
    at: datetime | None = None
    stopped_at: datetime | None = None
    was_stopped: bool = False
    is_interrupted: bool = False  # by the service, to go on in the next attempt


@dataclass(frozen=True, slots=True)
class TaskQuery:
    """A page of an attempt's tasks, in the order of their numbers; each kind of filter must hold.

    `attempt` None is the job's latest. `after` is the last `number` of the page before.
    """

    attempt: int | None = None
    statuses: tuple[TaskStatus, ...] = ()
    rules: tuple[str, ...] = ()
    after: int | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True)
class TaskPage:
    """`total` counts all that the filters let through; `counts` all tasks of the attempt, filters aside.

    `left_out` counts tasks that are not among these: beyond the 100,000 that are kept one by one of a run,
    or told of in number only.
    """

    items: tuple[Task, ...]
    total: int
    counts: Mapping[TaskStatus, int]
    has_more: bool
    attempt: int
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class TaskFailure:
    """The failure that a run is to blame on: the first that no other explains. `wildcards` are for people."""

    number: int
    rule: str
    what: str
    wildcards: str = ""
    command: str | None = None
    logs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MissingInput:
    """Files that a rule needs and that nothing makes."""

    rule: str
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RuleCounts:
    """Tasks of one rule by status; `up_to_date` ones needed no run and are in none of the others."""

    pending: int = 0
    running: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    up_to_date: int = 0

    @property
    def total(self) -> int:
        """All tasks of the rule, the up-to-date ones included."""
        return self.pending + self.running + self.completed + self.failed + self.cancelled + self.up_to_date


@dataclass(frozen=True, slots=True)
class RuleNode:
    rule: str
    counts: RuleCounts
    is_checkpoint: bool = False


@dataclass(frozen=True, slots=True)
class RuleGraph:
    """The rules of a run and which feeds which: an edge leads from the producer to the consumer.

    Nodes are in an order in which every producer comes before its consumers where the run has told
    enough for one, else as they were met. Edges name rules that are among the nodes.
    """

    nodes: tuple[RuleNode, ...] = ()
    edges: tuple[tuple[str, str], ...] = ()
    attempt: int = 1

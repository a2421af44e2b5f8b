"""What goes over the wire about a job's tasks and its graph of rules."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.examples import RULE_GRAPH, TASK, TASK_PAGE
from runner.tasks import TaskStatus

RuleStatus = Literal["pending", "running", "completed", "failed", "cancelled", "up_to_date"]

_ATTEMPT = Field(default=None, ge=1, le=2**31 - 1, description="Which attempt; the latest by default.")


class ListTasks(BaseModel):
    """Statuses are alternatives, and so are rules; both must hold."""

    model_config = ConfigDict(extra="forbid")

    status: list[TaskStatus] = Field(default_factory=list, max_length=5, description="Repeatable.")
    rule: list[str] = Field(
        default_factory=list, max_length=100, description="A rule's name, in full; repeatable."
    )
    attempt: int | None = _ATTEMPT
    limit: int = Field(default=50, ge=1, le=500, description="At most this many tasks on a page.")
    cursor: str | None = Field(
        default=None, max_length=512, description="`next_cursor` of the page before, with the same filters."
    )


class GetTask(BaseModel):
    model_config = ConfigDict(extra="forbid")

    attempt: int | None = _ATTEMPT


class ReadTaskLog(BaseModel):
    model_config = ConfigDict(extra="forbid")

    attempt: int | None = _ATTEMPT
    index: int = Field(default=0, ge=0, le=9999, description="Which of the task's `log` files, from 0.")
    tail: int | None = Field(default=None, ge=0, le=10_000_000, description="The last lines only.")


class GetGraph(BaseModel):
    model_config = ConfigDict(extra="forbid")

    attempt: int | None = _ATTEMPT
    format: Literal["json", "svg"] | None = Field(
        default=None, description="`svg`: the picture; it goes before `Accept`, which an address cannot have."
    )


class TaskError(BaseModel):
    """Why a task failed."""

    message: str
    exit_code: int | None
    log_lines: list[str] = Field(
        description="The last lines of its log file, or of what it wrote to the job's log. Empty in lists."
    )
    is_root: bool = Field(description="False: it failed because something else had.")


class TaskLinks(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    itself: str = Field(alias="self")
    logs: str


class PlannedTask(BaseModel):
    """What a task is to do. Paths are the workflow's own words.

    They lead down from the working directory, unless they begin with a slash.
    """

    number: int = Field(description="Snakemake's own number for it; another attempt numbers anew.")
    rule: str
    wildcards: dict[str, str]
    reason: str | None = Field(description="Why it has to run, in Snakemake's words.")
    message: str | None
    threads: int | None
    priority: int | None
    resources: dict[str, Any]
    input: list[str]
    output: list[str]
    log: list[str]
    benchmark: list[str]
    shell_command: str | None
    script: str | None
    is_checkpoint: bool
    is_local: bool
    group: str | None


class Task(PlannedTask):
    """One task of the run, which Snakemake calls a job."""

    model_config = ConfigDict(json_schema_extra={"examples": [TASK]})

    status: TaskStatus
    attempt: int = Field(description="How often the run has started it (Snakemake's `retries`).")
    started_at: datetime | None
    ended_at: datetime | None
    duration_s: float | None
    external_id: str | None = Field(description="Its id in the cluster, in the cluster's own words.")
    error: TaskError | None
    links: TaskLinks


class TaskCounts(BaseModel):
    """All tasks of the attempt by status, whatever the filters."""

    pending: int
    running: int
    completed: int
    failed: int
    cancelled: int


class TaskPage(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [TASK_PAGE]})

    items: list[Task]
    total: int = Field(description="All tasks that match, not only this page's.")
    counts: TaskCounts
    next_cursor: str | None = Field(description="Null on the last page.")
    attempt: int = Field(description="The attempt these tasks are of.")
    left_out: int = Field(description="Tasks beyond the 100,000 that are kept one by one.")


class RuleCounts(BaseModel):
    """Tasks of the rule by status. `up_to_date` ones needed no run and are in none of the others."""

    pending: int
    running: int
    completed: int
    failed: int
    cancelled: int
    up_to_date: int
    total: int


class RuleNode(BaseModel):
    rule: str
    checkpoint: bool
    counts: RuleCounts
    status: RuleStatus = Field(description="What asks most for attention among its tasks.")


class RuleGraph(BaseModel):
    """The rules of a run, and which feeds which: an edge leads from the producer to the consumer."""

    model_config = ConfigDict(json_schema_extra={"examples": [RULE_GRAPH]})

    nodes: list[RuleNode]
    edges: list[tuple[str, str]]
    attempt: int


# Every model of an answer that stands by itself.
SHOWN: tuple[type[BaseModel], ...] = (Task, TaskPage, RuleGraph)

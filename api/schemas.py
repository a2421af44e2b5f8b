"""What goes over the wire: the models of requests and answers, which are also the OpenAPI document."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from api.examples import JOB, JOB_ID, WORKFLOW
from runner.jobs import JobSpec, JobStatus, Reason

_TEN_YEARS_S = 315_360_000
_NO_CONTROL = r"^[^\x00-\x1f\x7f-\x9f]*$"
LABEL_KEY = r"^[A-Za-z0-9][A-Za-z0-9._/-]*$"

LabelKey = Annotated[str, Field(min_length=1, max_length=63, pattern=LABEL_KEY)]
LabelValue = Annotated[str, Field(max_length=256, pattern=_NO_CONTROL)]
Target = Annotated[str, Field(min_length=1, max_length=1024)]


class SubmitJob(BaseModel):
    """What to run. Everything has a default: `{}` runs the demo workflow."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
        json_schema_extra={
            "examples": [
                {"workflow": "demo"},
                {
                    "workflow": "wordcount",
                    "parameters": {},
                    "cores": 2,
                    "name": "batch 17",
                    "labels": {"project": "atlas"},
                    "priority": 10,
                    "timeout_s": 3600,
                    "max_retries": 1,
                },
            ]
        },
    )

    workflow: str = Field(
        default="demo", min_length=1, max_length=200, description="The name of a registered workflow."
    )
    parameters: dict[str, Any] = Field(
        default_factory=dict, description="Snakemake's config; checked against the workflow's schema."
    )
    targets: list[Target] = Field(
        default_factory=list, max_length=1000, description="Files or rules to make; none means the default."
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="Engine options: `keep_going`, `force_all`, `dry_run`."
    )
    cores: int = Field(default=1, ge=1, le=1_000_000, description="Cores the run may use.")
    name: str | None = Field(
        default=None, min_length=1, max_length=200, pattern=_NO_CONTROL, description="A name for people."
    )
    labels: dict[LabelKey, LabelValue] = Field(
        default_factory=dict, max_length=64, description="Your own tags, to filter by."
    )
    priority: int = Field(default=0, ge=-1000, le=1000, description="Higher starts earlier.")
    timeout_s: float | None = Field(
        default=None, gt=0, le=_TEN_YEARS_S, description="Seconds an attempt may run."
    )
    max_retries: int = Field(default=0, ge=0, le=100, description="Automatic new attempts after a failure.")
    retry_lost: bool = Field(
        default=False,
        description="`max_retries` also covers `lost` attempts: some of their work may be done twice.",
    )

    def spec(self) -> JobSpec:
        return JobSpec(
            workflow=self.workflow,
            parameters=self.parameters,
            targets=tuple(self.targets),
            options=self.options,
            cores=self.cores,
            name=self.name,
            labels=self.labels,
            priority=self.priority,
            timeout_s=self.timeout_s,
            max_retries=self.max_retries,
            retry_lost=self.retry_lost,
        )


def _rfc3339(value: object) -> object:
    """Take RFC 3339 alone, not bare numbers; a `+` that a URL turned into a space is mended."""
    if isinstance(value, str):
        date, _, time = value.upper().partition("T")
        if not time or len(date) != 10:
            raise ValueError("must be a time as in RFC 3339: 2026-01-31T12:00:00Z")
        return f"{date}T{time.replace(' ', '+')}"
    return value


def _utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("must name its time zone, as in 2026-01-31T12:00:00Z")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("is too far away") from None


UtcTime = Annotated[datetime, BeforeValidator(_rfc3339), AfterValidator(_utc)]


class ListJobs(BaseModel):
    """The filters of `GET /jobs`. Statuses are alternatives; everything else must hold together."""

    model_config = ConfigDict(extra="forbid")

    status: list[JobStatus] = Field(default_factory=list, max_length=5, description="Repeatable.")
    workflow: str | None = Field(
        default=None, max_length=200, pattern=_NO_CONTROL, description="The workflow's name, in full."
    )
    label: list[Annotated[str, Field(max_length=320, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*:[^\x00]*$")]] = (
        Field(
            default_factory=list,
            max_length=64,
            description="`key:value`; repeatable.",
            examples=[["project:atlas"]],
        )
    )
    q: str | None = Field(
        default=None,
        max_length=200,
        pattern=r"^[^\x00]*$",
        description=(
            "A part of the name, in any case; one or two characters match the beginning of a name only. "
            "From 8 characters on also the beginning of an id."
        ),
    )
    created_after: UtcTime | None = Field(
        default=None,
        description="RFC 3339 with a time zone; jobs created at this very instant are left out.",
        examples=["2026-01-31T12:00:00Z"],
    )
    created_before: UtcTime | None = Field(
        default=None,
        description="RFC 3339 with a time zone; jobs created at this very instant are left out.",
        examples=["2026-01-31T12:00:00Z"],
    )
    order: Literal["desc", "asc"] = Field(default="desc", description="`desc`: newest first.")
    limit: int = Field(default=50, ge=1, le=500, description="At most this many jobs on a page.")
    cursor: str | None = Field(
        default=None, max_length=512, description="`next_cursor` of the page before, with the same filters."
    )


class WaitForJob(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    wait: float = Field(
        default=0,
        ge=0,
        le=60,
        description="Long-poll: seconds to wait for a change (from the version in `If-None-Match` on).",
    )


class ReadLog(BaseModel):
    model_config = ConfigDict(extra="forbid")

    attempt: int | None = Field(
        default=None, ge=1, le=2**31 - 1, description="Which attempt's log; the latest by default."
    )
    tail: int | None = Field(default=None, ge=0, le=10_000_000, description="The last lines only.")
    offset: int | None = Field(default=None, ge=0, le=2**62, description="The byte to begin at.")
    limit: int | None = Field(default=None, ge=1, le=2**62, description="At most this many bytes.")
    follow: bool = Field(default=False, description="Stream until the attempt ends.")


class Progress(BaseModel):
    """How many of the engine's own jobs there are, and how many have got where."""

    total: int
    done: int
    running: int
    failed: int


class Usage(BaseModel):
    """What the attempt used, over its whole process tree."""

    cpu_s: float
    max_rss_bytes: int
    read_bytes: int
    written_bytes: int


class JobLinks(BaseModel):
    """Where to go from here; references relative to the service's address."""

    model_config = ConfigDict(populate_by_name=True)

    itself: str = Field(alias="self")
    logs: str
    cancel: str
    retry: str
    workflow: str


class Job(BaseModel):
    """A job as it is now."""

    model_config = ConfigDict(json_schema_extra={"examples": [JOB]})

    id: str
    status: JobStatus
    reason: Reason | None = Field(description="Why it ended; null until then.")
    name: str | None
    workflow: str
    parameters: dict[str, Any]
    targets: list[str]
    options: dict[str, Any]
    cores: int
    priority: int
    timeout_s: float | None
    max_retries: int
    retry_lost: bool
    labels: dict[str, str]
    attempt: int = Field(description="The attempt these figures are about, from 1.")
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    cancel_requested_at: datetime | None
    exit_code: int | None = Field(description="Null when it was killed, never started, or is not known.")
    exit_signal: int | None
    error_message: str | None = Field(description="The first real error, for people.")
    progress: Progress | None
    usage: Usage | None
    engine: str
    links: JobLinks


class JobPage(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "items": [JOB],
                    "total": 1234,
                    "total_is_exact": True,
                    "next_cursor": "AAAAAAAAAAJvSdB_mDec_yo",
                }
            ]
        },
    )

    items: list[Job]
    total: int = Field(description="All jobs that match, not only this page's; see `total_is_exact`.")
    total_is_exact: bool = Field(
        description="False: `total` is a lower bound, there may be more. Always true without filters, and "
        "with `status` and `workflow` alone."
    )
    next_cursor: str | None = Field(description="Null on the last page.")


class WorkflowLinks(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    itself: str = Field(alias="self")


class Workflow(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [WORKFLOW]})

    name: str
    description: str
    parameters_schema: dict[str, Any] | None = Field(description="JSON Schema; null: any object is taken.")
    links: WorkflowLinks


class WorkflowPage(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"items": [WORKFLOW], "total": 1}]})

    items: list[Workflow]
    total: int


class Health(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "ok"}]})

    status: Literal["ok"]


class Check(BaseModel):
    name: str
    ok: bool
    detail: str


class Engine(BaseModel):
    name: str
    version: str
    is_mock: bool = Field(description="True: a stand-in; no real pipelines run.")


class Readiness(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "status": "ready",
                    "checks": [{"name": "store", "ok": True, "detail": "can be read and written"}],
                    "engine": {"name": "mock", "version": "mock", "is_mock": True},
                    "isolation": "subreaper",
                }
            ]
        },
    )

    status: Literal["ready"]
    checks: list[Check]
    engine: Engine | None
    isolation: str = Field(description="How jobs are kept apart on this machine.")


class ProblemError(BaseModel):
    """One thing that is wrong: a JSON pointer into the body, or a query parameter or header by name."""

    detail: str
    pointer: str | None = None
    parameter: str | None = None
    header: str | None = None


class Problem(BaseModel):
    """RFC 9457. `type` is a stable slug to compare with; `detail` is for people."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {
                    "type": "job-not-found",
                    "title": "No such job",
                    "status": 404,
                    "detail": f"There is no job '{JOB_ID}'.",
                    "request_id": "6f1c2f0c4d8e4b0f9a4f3f1f6f0d9a11",
                }
            ]
        },
    )

    type: str
    title: str
    status: int
    detail: str
    request_id: str
    errors: list[ProblemError] = Field(default_factory=list)
    job_status: JobStatus | None = Field(default=None, description="On 409: the status that forbids it.")


# Every model of an answer that stands by itself.
SHOWN: tuple[type[BaseModel], ...] = (Job, JobPage, Workflow, WorkflowPage, Health, Readiness)


def examples(model: type[BaseModel]) -> list[Any]:
    """The examples a model carries, as written."""
    extra = model.model_config["json_schema_extra"]
    assert isinstance(extra, dict)
    found = extra["examples"]
    assert isinstance(found, list)
    return found

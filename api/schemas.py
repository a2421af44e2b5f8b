"""What goes over the wire: the models of requests and answers, which are also the OpenAPI document."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from api.examples import JOB, JOB_ID
from api.health_schemas import Health, Readiness
from api.output_schemas import OutputPage
from api.run_schemas import WhatToRun
from api.workflow_schemas import Workflow, WorkflowPage
from runner.jobs import CORES_NOT_NAMED, JobSpec, JobStatus, Reason

_TEN_YEARS_S = 315_360_000
_NO_CONTROL = r"^[^\x00-\x1f\x7f-\x9f]*$"
LABEL_KEY = r"^[A-Za-z0-9][A-Za-z0-9._/-]*$"

LabelKey = Annotated[str, Field(min_length=1, max_length=63, pattern=LABEL_KEY)]
LabelValue = Annotated[str, Field(max_length=256, pattern=_NO_CONTROL)]


class SubmitJob(WhatToRun):
    """What to run. Everything has a default: `{}` runs the demo workflow."""

    model_config = ConfigDict(
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
                    "memory_mb": 4096,
                    "max_retries": 1,
                },
            ]
        },
    )

    workflow: str = Field(
        default="demo", min_length=1, max_length=200, description="The name of a registered workflow."
    )
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
            cores=CORES_NOT_NAMED if self.cores is None else self.cores,
            name=self.name,
            labels=self.labels,
            priority=self.priority,
            timeout_s=self.timeout_s,
            max_retries=self.max_retries,
            retry_lost=self.retry_lost,
            memory_mb=self.memory_mb,
        )


class SubmitJobWithFiles(BaseModel):
    """The parts of a `multipart/form-data` body; `job` is the first."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"job": {"workflow": "uploaded"}, "files": ["ACGT"], "workflow": "rule a:"}]
        }
    )

    job: SubmitJob = Field(description="The job, as JSON. `workflow` is `uploaded` where it comes along.")
    files: list[Annotated[str, Field(json_schema_extra={"contentMediaType": "application/octet-stream"})]] = (
        Field(
            default_factory=list,
            max_length=1000,
            description="Input files, one part each; their file names are paths below `input/`.",
        )
    )
    workflow: str | None = Field(
        default=None,
        description="A Snakefile, or a tar or ZIP archive with one: where the service takes workflows.",
        json_schema_extra={"contentMediaType": "application/octet-stream"},
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

    tenant: str | None = Field(
        default=None, max_length=63, pattern=_NO_CONTROL, description="For operators, who see every tenant."
    )
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
    limit: int = Field(
        default=50, ge=1, le=500, description="At most this many jobs on a page; fewer where they are huge."
    )
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
    """How many tasks (the engine's own jobs) there are to do, and how many have got where."""

    total: int
    done: int
    running: int
    failed: int
    up_to_date: int = Field(
        default=0, description="Tasks that needed no run, because what they make is there; not in `total`."
    )


class Usage(BaseModel):
    """What the attempt used, over its whole process tree."""

    cpu_s: float
    max_rss_bytes: int
    read_bytes: int
    written_bytes: int


class Attachment(BaseModel):
    """A file that came with the job; an archive may have been unpacked."""

    name: str = Field(description="Its path below `input/`.")
    size: int
    sha256: str


class JobLinks(BaseModel):
    """Where to go from here; references relative to the service's address."""

    model_config = ConfigDict(populate_by_name=True)

    itself: str = Field(alias="self")
    logs: str
    tasks: str
    graph: str
    usage: str
    events: str
    outputs: str
    report: str
    ro_crate: str
    cancel: str
    retry: str
    workflow: str | None = Field(description="Null where the workflow came with the job.")


class Job(BaseModel):
    """A job as it is now."""

    model_config = ConfigDict(json_schema_extra={"examples": [JOB]})

    id: str
    status: JobStatus
    reason: Reason | None = Field(description="Why it ended; null until then.")
    name: str | None
    workflow: str = Field(description="The registered workflow's name; `uploaded`: it came with the job.")
    workflow_version: str | None = Field(
        description="`sha256:…` of what is in the workflow's folder; null for jobs of earlier releases."
    )
    workflow_commit: str | None = Field(description="The git commit, where the workflow comes from one.")
    parameters: dict[str, Any]
    targets: list[str]
    options: dict[str, Any]
    cores: int
    priority: int
    timeout_s: float | None
    memory_mb: int | None = Field(description="MiB for all processes of the job together.")
    max_retries: int
    retry_lost: bool
    labels: dict[str, str]
    attachments: list[Attachment] = Field(description="Files that came with the job, as they were sent.")
    attempt: int = Field(description="The attempt these figures are about, from 1.")
    queue_position: int | None = Field(
        description=(
            "Of a pending job in `GET /jobs/{job_id}` and in lists: its place among the pending jobs of its "
            "tenant, 1 is next. By priority, then by age; a small job may pass a large one. Else null."
        ),
    )
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    cancel_requested_at: datetime | None
    exit_code: int | None = Field(description="Null when it was killed, never started, or is not known.")
    exit_signal: int | None
    error_message: str | None = Field(
        description="The first real error, for people. If it is completed: that it did less than was to do."
    )
    progress: Progress | None
    usage: Usage | None
    engine: str
    owner: str = Field(description="Who submitted it: the name of the key, or of the person who logged in.")
    tenant: str = Field(description="Whose it is: nobody else sees it but the operator.")
    isolation: str | None = Field(
        description="What keeps the current attempt apart from the rest of the machine; null until it starts."
    )
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
SHOWN: tuple[type[BaseModel], ...] = (Job, JobPage, OutputPage, Workflow, WorkflowPage, Health, Readiness)


def examples(model: type[BaseModel]) -> list[Any]:
    """The examples a model carries, as written."""
    extra = model.model_config["json_schema_extra"]
    assert isinstance(extra, dict)
    found = extra["examples"]
    assert isinstance(found, list)
    return found

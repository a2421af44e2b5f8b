"""What goes over the wire about streams of events."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

from api.examples import JOB_CHANGE
from api.schemas import Progress
from runner.jobs import Change, JobStatus, Reason

_NO_CONTROL = r"^[^\x00-\x1f\x7f-\x9f]*$"
_ID = Field(
    default=None,
    max_length=64,
    description="Begin behind the event with this id; `0`: with the first that is kept. "
    "`Last-Event-ID` goes before it.",
)


class BriefJobLinks(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    itself: str = Field(alias="self")


class BriefJob(BaseModel):
    """A job in short, as it was when the event was sent."""

    id: str
    status: JobStatus
    reason: Reason | None
    name: str | None
    workflow: str
    attempt: int
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    exit_code: int | None
    exit_signal: int | None
    error_message: str | None
    progress: Progress | None
    owner: str
    tenant: str
    links: BriefJobLinks


class JobChange(BaseModel):
    """The data of an event: what happened to a job, and the status it led to."""

    model_config = ConfigDict(json_schema_extra={"examples": [JOB_CHANGE]})

    job_id: str
    kind: Change
    status: JobStatus
    attempt: int
    at: datetime
    job: BriefJob


EVENT_CONTENT: dict[str, Any] = {
    "text/event-stream": {
        "schema": {
            "type": "object",
            "description": "One event. `start` and `gap` have other data.",
            "required": ["event", "data"],
            "properties": {
                "event": {"enum": [*(kind.value for kind in Change), "start", "gap"]},
                "id": {"type": "string"},
                "data": {
                    "type": "string",
                    "contentMediaType": "application/json",
                    "contentSchema": {"$ref": "#/components/schemas/JobChange"},
                },
            },
        },
        "example": {"event": "ended", "id": "1042", "data": to_json(JOB_CHANGE).decode()},
    }
}


class FollowJob(BaseModel):
    model_config = ConfigDict(extra="forbid")

    after: str | None = _ID


class FollowJobs(BaseModel):
    model_config = ConfigDict(extra="forbid")

    after: str | None = _ID
    status: list[JobStatus] = Field(
        default_factory=list, max_length=5, description="Changes that led to this status; repeatable."
    )
    workflow: str | None = Field(
        default=None, max_length=200, pattern=_NO_CONTROL, description="The workflow's name, in full."
    )


# Named by the document alone: what is in an event's text.
READ_BY_US: tuple[type[BaseModel], ...] = (JobChange,)

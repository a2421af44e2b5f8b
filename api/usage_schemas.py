"""What goes over the wire about what an attempt used of the machine as time went by."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from api.examples import USAGE_HISTORY
from api.schemas import Usage


class GetUsage(BaseModel):
    model_config = ConfigDict(extra="forbid")

    attempt: int | None = Field(
        default=None, ge=1, le=2**31 - 1, description="Which attempt; the latest by default."
    )


class UsageLimits(BaseModel):
    """What the job may use."""

    cores: int
    memory_bytes: int | None = Field(description="For all its processes together; null is no limit.")


class UsagePoint(BaseModel):
    """What all processes of the attempt used together, since the point before or since its start."""

    elapsed_s: float = Field(description="Seconds since `started_at`, by a clock that nobody sets.")
    cores: float = Field(description="CPU seconds per second: 2 is two cores' worth.")
    rss_bytes: int | None = Field(
        description="Memory in use, the most that was seen at once; null where nobody has looked."
    )
    processes: int | None = Field(description="The most that were seen at once; null likewise.")
    read_bytes: int = Field(description="From storage.")
    written_bytes: int = Field(description="To storage.")


class UsageHistory(BaseModel):
    """What one attempt used of the machine, point by point in the order of time."""

    model_config = ConfigDict(json_schema_extra={"examples": [USAGE_HISTORY]})

    job_id: str
    attempt: int
    started_at: datetime | None = Field(description="Null before it has started.")
    ended_at: datetime | None = Field(description="Null while it runs, and of an attempt that was lost.")
    limits: UsageLimits
    usage: Usage | None = Field(description="The sums so far; null while nothing is known.")
    points: list[UsagePoint] = Field(description="At most 1,441: the longer it runs, the further apart.")


# Every model of an answer that stands by itself.
SHOWN: tuple[type[BaseModel], ...] = (UsageHistory,)

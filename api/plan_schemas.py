"""What goes over the wire of plans and reports."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.examples import PLAN, REPORT
from api.run_schemas import WhatToRun
from api.task_schemas import PlannedTask, RuleGraph
from runner.jobs import CORES_NOT_NAMED, JobSpec


class PlanWorkflow(WhatToRun):
    """What a job would be submitted with, as far as it decides about its tasks. `{}` takes every default."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{}, {"parameters": {}, "targets": [], "cores": 2}]},
    )

    attachments: list[Annotated[str, Field(min_length=1, max_length=4096)]] = Field(
        default_factory=list,
        max_length=1000,
        description="Paths below `input/` of files that would come with the job: they are there, and empty.",
    )

    def spec(self, workflow: str) -> JobSpec:
        return JobSpec(
            workflow=workflow,
            parameters=self.parameters,
            targets=tuple(self.targets),
            options=self.options,
            cores=CORES_NOT_NAMED if self.cores is None else self.cores,
            memory_mb=self.memory_mb,
        )


class ReadPlan(BaseModel):
    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=500, ge=0, le=500, description="At most this many of the tasks, the first.")
    format: Literal["json", "svg"] | None = Field(
        default=None, description="`svg`: a picture of the graph, as `Accept: image/svg+xml` asks for."
    )


class PlannedTasks(BaseModel):
    items: list[PlannedTask]
    total: int = Field(description="All tasks that would run, also those beyond `limit`.")
    left_out: int = Field(description="Tasks beyond what is kept one by one of a single run.")


class MissingInput(BaseModel):
    """Files that a rule needs, and that neither are there nor are made by another rule."""

    rule: str
    files: list[str]


class Plan(BaseModel):
    """What a job would do in a fresh working directory."""

    model_config = ConfigDict(json_schema_extra={"examples": [PLAN]})

    workflow: str
    version: str = Field(description="Of the workflow's folder, as a job submitted now would run it.")
    ok: bool = Field(description="False: it cannot be planned, and a job would fail; `errors` say why.")
    tasks: PlannedTasks
    rules: dict[str, int] = Field(description="How many tasks of each rule would run.")
    up_to_date: int = Field(description="Tasks that would not run: what they make is there.")
    graph: RuleGraph
    missing_input: list[MissingInput]
    errors: list[str] = Field(description="In the engine's own words.")


class ReportLinks(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    itself: str = Field(alias="self")
    job: str


class Report(BaseModel):
    """The report of a job, as last made."""

    model_config = ConfigDict(json_schema_extra={"examples": [REPORT]})

    job_id: str
    size: int
    made_at: datetime
    links: ReportLinks


SHOWN: tuple[type[BaseModel], ...] = (Plan, Report)

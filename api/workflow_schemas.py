"""What goes over the wire about registered workflows."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.examples import WORKFLOW, WORKFLOW_SUMMARY


class WorkflowLinks(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    itself: str = Field(alias="self")


class AttachmentRules(BaseModel):
    """Which files a workflow takes with a job."""

    max_mb: float = Field(description="MiB of all together, unpacked.")
    max_files: int
    names: str | None = Field(description="A regular expression for each path below `input/`; null: any.")
    unpack: bool = Field(description="Archives (`.tar`, `.tar.gz`, `.tgz`, `.zip`) are unpacked.")


class WorkflowSummary(BaseModel):
    name: str
    description: str
    source: Literal["folder", "git"]
    commit: str | None = Field(description="The git commit; null for a folder.")
    parameters_schema: dict[str, Any] | None = Field(description="JSON Schema; null: any object is taken.")
    attachments: AttachmentRules | None = Field(description="Null: it takes no files.")
    links: WorkflowLinks


class Workflow(WorkflowSummary):
    model_config = ConfigDict(json_schema_extra={"examples": [WORKFLOW]})

    version: str | None = Field(
        description="`sha256:…` of what is in its folder: what a job submitted now would run. Null while the "
        "folder cannot be read."
    )
    snakefile: str
    readme: str | None = Field(description="Markdown, at most 64 KiB of it; null without a README.md.")


class WorkflowPage(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"items": [WORKFLOW_SUMMARY], "total": 1}]})

    items: list[WorkflowSummary]
    total: int

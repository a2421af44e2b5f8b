"""What is to be run, as a submission and a plan both say it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from runner.engines import options

_PEBIBYTE_MB = 2**30

Target = Annotated[str, Field(min_length=1, max_length=1024)]
# Looked at by the engine, which also knows what the operator allows.
Options = Annotated[dict[str, Any], WithJsonSchema(options.document())]


class WhatToRun(BaseModel):
    """Everything that decides which tasks there are."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    parameters: dict[str, Any] = Field(
        default_factory=dict, description="Snakemake's config; checked against the workflow's schema."
    )
    targets: list[Target] = Field(
        default_factory=list, max_length=1000, description="Files or rules to make; none means the default."
    )
    options: Options = Field(default_factory=dict)
    cores: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Cores the run may use; null means the service's default, usually 1.",
    )
    memory_mb: int | None = Field(
        default=None,
        ge=16,
        le=_PEBIBYTE_MB,
        description="MiB of memory for all processes of the job together; beyond it the job fails with "
        "`out_of_memory`.",
    )

"""The runner's settings: plain frozen models. The environment is read in api/settings.py alone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

EngineName = Literal["mock", "snakemake"]
OnShutdown = Literal["detach", "drain", "stop"]


class MockSettings(BaseModel):
    """How the stand-in behaves: seconds per run, and the share of runs that succeed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_s: float = Field(default=10.0, ge=0)
    max_s: float = Field(default=30.0, ge=0)
    success_rate: float = Field(default=0.8, ge=0, le=1)
    seed: int | None = None


class RunnerSettings(BaseModel):
    """Everything the runner needs to know, built once in the entry point and passed in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data_dir: Path
    database_url: str
    engine: EngineName = "mock"
    snakemake: str = "snakemake"
    python: str = sys.executable
    workflows_dir: Path
    max_cores: int = Field(ge=1)
    max_pending: int = Field(default=100_000, ge=1)
    stop_grace_s: float = Field(default=10.0, ge=0)
    log_limit_bytes: int = Field(default=256 * 2**20, ge=64 * 2**10)
    default_timeout_s: float | None = Field(default=None, gt=0)
    on_shutdown: OnShutdown = "detach"
    shutdown_s: float = Field(default=10.0, ge=2)
    retention_s: float | None = Field(default=None, gt=0)
    max_data_bytes: int | None = Field(default=None, gt=0)
    warm_start: bool = True
    min_free_bytes: int = Field(default=64 * 2**20, ge=0)
    mock: MockSettings = MockSettings()

"""The runner's settings: plain frozen models. The environment is read in api/settings.py alone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from runner.access import Quota
from runner.isolation.probe import DEFAULT_WRITABLE
from runner.isolation.uids import UidRange

EngineName = Literal["mock", "snakemake"]
SoftwareDeployment = Literal["conda", "apptainer", "env-modules"]
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
    profiles_dir: Path | None = None
    executors: tuple[str, ...] = ("local",)
    software_deployment: tuple[SoftwareDeployment, ...] = ()
    workflow_uploads: bool = False
    max_attachment_bytes: int = Field(default=100 * 2**20, ge=0)
    max_cores: int = Field(ge=1)
    max_pending: int = Field(default=100_000, ge=1)
    tenant_quota: Quota = Quota()  # of a tenant that has none of its own
    audit_s: float = Field(default=365 * 86_400.0, gt=0)
    stop_grace_s: float = Field(default=10.0, ge=0)
    log_limit_bytes: int = Field(default=256 * 2**20, ge=64 * 2**10)
    default_timeout_s: float | None = Field(default=None, gt=0)
    max_timeout_s: float | None = Field(default=None, gt=0)
    plan_timeout_s: float = Field(default=60.0, gt=0)
    report_timeout_s: float = Field(default=300.0, gt=0)
    default_memory_mb: int | None = Field(default=None, ge=16)
    max_memory_mb: int | None = Field(default=None, ge=16)
    default_cores: int = Field(default=1, ge=1)
    max_job_cores: int | None = Field(default=None, ge=1)
    max_processes: int = Field(default=4096, ge=16)
    isolation: str = "auto"
    user: str | None = None
    job_uids: UidRange = UidRange(1_900_000_000, 1_900_009_999)
    job_readable: tuple[str, ...] = ()
    job_writable: tuple[str, ...] = DEFAULT_WRITABLE
    on_shutdown: OnShutdown = "detach"
    shutdown_s: float = Field(default=10.0, ge=2)
    retention_s: float | None = Field(default=None, gt=0)
    max_data_bytes: int | None = Field(default=None, gt=0)
    warm_start: bool = True
    traces: Literal["off", "otlp"] = "off"
    min_free_bytes: int = Field(default=64 * 2**20, ge=0)
    mock: MockSettings = MockSettings()

"""The answers of `/healthz` and `/readyz`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


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
    """All but `status` is left out for callers who do not say who they are, where they have to."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "status": "ready",
                    "checks": [{"name": "store", "ok": True, "detail": "can be read and written"}],
                    "engine": {"name": "mock", "version": "mock", "is_mock": True},
                    "isolation": "cgroup",
                    "isolation_certain": True,
                    "isolation_protections": ["landlock", "memory_limit"],
                    "isolation_detail": "every process of a job is in one control group and ended with it",
                }
            ]
        },
    )

    status: Literal["ready"]
    checks: list[Check] = Field(default_factory=list)
    engine: Engine | None = None
    isolation: str | None = Field(
        default=None,
        description="How a job's processes are ended here: `cgroup`, `pid_namespace`, `uid`, `subreaper` "
        "or `none`.",
    )
    isolation_certain: bool | None = Field(
        default=None, description="False: ending them is best effort; some may get away."
    )
    isolation_protections: list[str] = Field(
        default_factory=list, description="What else holds for every job: `landlock`, `memory_limit`, `uid`."
    )
    isolation_detail: str | None = Field(
        default=None, description="What that means, and what is missing and why."
    )

"""What goes over the wire about keys, tenants and the audit record."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from api.plan_schemas import PlanWorkflow
from api.schemas import Problem, SubmitJob, SubmitJobWithFiles, UtcTime
from runner.access import Action, Scope

_PREFIX = "snk_4k2v9m0q1x"
_KEY: dict[str, Any] = {
    "prefix": _PREFIX,
    "name": "lims",
    "tenant": "atlas",
    "scopes": ["read", "submit"],
    "status": "active",
    "created_at": "2026-01-31T12:00:00.000000Z",
    "created_by": "operator",
    "expires_at": "2026-05-01T12:00:00.000000Z",
    "revoked_at": None,
}
_AUDIT: dict[str, Any] = {
    "at": "2026-01-31T12:00:00.000000Z",
    "actor": "lims",
    "tenant": "atlas",
    "action": "job.submitted",
    "subject": "019ab5f0-1c2d-7e3f-8a4b-5c6d7e8f9a0b",
    "address": "192.0.2.7",
    "request_id": "6f1c2f0c4d8e4b0f9a4f3f1f6f0d9a11",
    "data": {},
}
_TENANT: dict[str, Any] = {"name": "atlas", "max_cores": 16, "max_pending": 1000, "max_gb": 500}

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$", max_length=63)]
KeyTenant = Annotated[str, Field(pattern=r"^(\*|[a-z0-9][a-z0-9._-]{0,62})$", max_length=63)]


def _text(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("must be a time as in RFC 3339: 2026-01-31T12:00:00Z")  # noqa: TRY004 - for pydantic
    return value


class CreateKey(BaseModel):
    """A key to be made."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"name": "lims", "scopes": ["read", "submit"]},
                {
                    "name": "prometheus",
                    "scopes": ["read"],
                    "tenant": "*",
                    "expires_at": "2099-01-31T12:00:00Z",
                },
            ]
        },
    )

    name: Name = Field(description="Who will use it: the owner of its jobs, the actor in the audit record.")
    scopes: list[Annotated[Scope, Field(strict=False)]] = Field(
        min_length=1, max_length=3, description="What it may do; none contains another."
    )
    tenant: KeyTenant | None = Field(
        default=None, description="Whose jobs it sees; `*`: every tenant's. By default your own tenant."
    )
    expires_at: Annotated[UtcTime, Field(strict=False), BeforeValidator(_text)] | None = Field(
        default=None, description="From then on it is refused; null: never."
    )


class RotateKey(BaseModel):
    """How a key is replaced."""

    model_config = ConfigDict(
        strict=True, extra="forbid", json_schema_extra={"examples": [{"overlap_s": 86_400}, {}]}
    )

    overlap_s: float = Field(
        default=0, ge=0, le=31_536_000, allow_inf_nan=False, description="Seconds the old key stays good."
    )


class Key(BaseModel):
    """A key, without its secret."""

    model_config = ConfigDict(json_schema_extra={"examples": [_KEY]})

    prefix: str = Field(description="Its name for ever; no secret.")
    name: str
    tenant: str = Field(description="`*`: every tenant.")
    scopes: list[Scope]
    status: Literal["active", "expired", "revoked"]
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None


class CreatedKey(Key):
    """A key that has just been made: the only time that its text can be seen."""

    model_config = ConfigDict(json_schema_extra={"examples": [{**_KEY, "key": f"{_PREFIX}.{'A' * 43}"}]})

    key: str = Field(description="What its holder sends. It is not stored and cannot be shown again.")


class KeyPage(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"items": [_KEY], "total": 1}]})

    items: list[Key]
    total: int


class SetQuota(BaseModel):
    """A tenant's quota, as a whole: what is not named goes back to what the settings say."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        json_schema_extra={"examples": [{"max_cores": 16, "max_pending": 1000, "max_gb": 500}, {}]},
    )

    max_cores: int | None = Field(
        default=None, ge=1, le=1_000_000, description="Cores of its running jobs together."
    )
    max_pending: int | None = Field(default=None, ge=1, le=2**31 - 1, description="Pending jobs.")
    max_gb: float | None = Field(
        default=None, gt=0, le=2**30, allow_inf_nan=False, description="GiB of its jobs' files."
    )


class Tenant(BaseModel):
    """A tenant and what was set for it; null: what the settings say for every tenant."""

    model_config = ConfigDict(json_schema_extra={"examples": [_TENANT]})

    name: str
    max_cores: int | None
    max_pending: int | None
    max_gb: float | None


class TenantPage(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"items": [_TENANT], "total": 1}]})

    items: list[Tenant]
    total: int


class ReadAudit(BaseModel):
    """The filters of `GET /audit`; all must hold together."""

    model_config = ConfigDict(extra="forbid")

    actor: str | None = Field(
        default=None, max_length=255, pattern=r"^[^\x00-\x1f]*$", description="Who did it."
    )
    action: Action | None = Field(default=None, description="What was done.")
    subject: str | None = Field(
        default=None,
        max_length=255,
        pattern=r"^[^\x00-\x1f]*$",
        description="What it was done to: a job's id, a key's prefix, a tenant's name.",
    )
    tenant: Name | None = Field(default=None, description="Whose job, key or quota it was.")
    limit: int = Field(default=50, ge=1, le=500, description="At most this many records on a page.")
    cursor: str | None = Field(
        default=None, max_length=512, description="`next_cursor` of the page before, with the same filters."
    )


class Audited(BaseModel):
    """One change: who did what, when, and from where."""

    model_config = ConfigDict(json_schema_extra={"examples": [_AUDIT]})

    at: datetime
    actor: str = Field(description="A key's name, `oidc:` and a token's name, or `operator`.")
    tenant: str = Field(description="Whose job, key or quota it was, also when an operator changed it.")
    action: Action
    subject: str
    address: str | None = Field(description="The caller's; null for a command on the service's machine.")
    request_id: str | None
    data: dict[str, Any]


class AuditPage(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"items": [_AUDIT], "next_cursor": "AAAAAAAAAAJvSdB_mDec_yo"}]}
    )

    items: list[Audited] = Field(
        description="The newest first. With filters a page may be short and yet have a next one."
    )
    next_cursor: str | None = Field(description="Null on the last page.")


SHOWN: tuple[type[BaseModel], ...] = (
    Key, CreatedKey, KeyPage, Tenant, TenantPage, Audited, AuditPage,
)  # fmt: skip
"""Every model of an answer that stands by itself."""

READ_BY_US: tuple[type[BaseModel], ...] = (
    Problem,
    SubmitJob,
    SubmitJobWithFiles,
    PlanWorkflow,
    CreateKey,
    RotateKey,
    SetQuota,
)
"""Every model that routes name without FastAPI's knowing."""

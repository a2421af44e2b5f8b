"""The service's settings, read from the environment once; nothing else reads `os.environ`."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

import runner
from api import auth_settings
from api import sign_in_settings as sign_in
from api.log_settings import AccessLogShare, AccessLogSlow, LogFormat, LogLevel
from api.machine_cores import machine_cores
from api.offer_settings import Executors, ProfilesDir, Software
from api.origins import parse_origins
from api.proxies import parse_networks
from api.runner_settings import folders, runner_settings
from runner.isolation.probe import misnamed
from runner.isolation.uids import UidRange
from runner.settings import EngineName, RunnerSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "SNAKELINE_"
OF_CLIENTS = frozenset(
    {"SNAKELINE_URL", "SNAKELINE_API_KEY", "SNAKELINE_PROFILE"}
)  # no settings of the service
_SECRET = frozenset({"database_url"})
_DEFAULTS_WITHIN = {
    "default_timeout_s": ("max_timeout_s",),
    "default_memory_mb": ("max_memory_mb",),
    "default_cores": ("max_job_cores", "max_cores"),
}
_TEN_YEARS_S = 315_360_000
_PEBIBYTE_MB = 2**30


class SettingsError(Exception):
    """A setting is misspelt or cannot be used; the text is one line that says which and why."""


def bundled_workflows() -> Path:
    """The example workflows: inside the installed package, or beside it in a source tree."""
    package = Path(runner.__file__ or "").resolve().parent
    installed = package / "bundled_workflows"
    return installed if installed.is_dir() else package.parent / "workflows"


class ServiceSettings(BaseSettings):
    """Every setting; the environment variable is the field's name in capitals behind `SNAKELINE_`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid", allow_inf_nan=False
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic-settings' form
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # What `load_settings` hands in, and nothing behind its back.
        return (init_settings,)

    host: str = Field(default="127.0.0.1", min_length=1, description="The address to listen on.")
    port: int = Field(
        default=8000, ge=0, le=65535, description="The port to listen on; 0 takes a free one and prints it."
    )
    data_dir: Path = Field(
        default=Path(".snakeline"), description="Where rows, logs and working directories are kept."
    )
    database_url: str | None = Field(
        default=None,
        pattern=r"^(memory://|sqlite:///.+|postgresql\+psycopg://.+)$",
        description="Where jobs are stored: `sqlite:///PATH`, `memory://` or `postgresql+psycopg://…`.",
    )
    engine: EngineName = Field(default="mock", description="What runs the jobs: `mock` or `snakemake`.")
    snakemake: str = Field(
        default="snakemake", min_length=1, description="The command that starts real Snakemake."
    )
    workflows_dir: Path = Field(
        default_factory=bundled_workflows, description="The registered workflows, one folder each."
    )
    workflow_uploads: Literal["off", "on"] = Field(
        default="off",
        description="`on` takes workflows that come with a job: who may submit then runs code of their own.",
    )
    max_attachments_mb: float = Field(
        default=100,
        ge=0,
        le=1_048_576,
        description="MiB of files that may come with a job; 0 takes none.",
    )
    profiles_dir: ProfilesDir = None
    executors: Executors = "local"
    software_deployment: Software = None
    max_cores: int = Field(
        default_factory=machine_cores, ge=1, le=1_000_000, description="The sum of the cores of running jobs."
    )
    max_pending: int = Field(
        default=100_000, ge=1, description="Pending jobs beyond which a submission is answered 429."
    )
    tenant_max_cores: int | None = Field(
        default=None, ge=1, le=1_000_000, description="Cores of running jobs for each tenant."
    )
    tenant_max_pending: int | None = Field(
        default=None,
        ge=1,
        description="Pending jobs of one tenant beyond which its submissions are answered 429.",
    )
    tenant_max_gb: float | None = Field(
        default=None,
        gt=0,
        description="GiB of files for the jobs of each tenant; beyond it its submissions are answered 507.",
    )
    audit_days: float = Field(
        default=365, gt=0, le=36_500, description="How long the record of who did what is kept."
    )
    stop_grace_s: float = Field(default=10, ge=0, le=86_400, description="Seconds from SIGTERM to SIGKILL.")
    log_limit_mb: float = Field(
        default=256,
        ge=0.0625,
        le=1_048_576,
        description="MiB of log kept per attempt; the middle goes first.",
    )
    default_timeout_s: float | None = Field(
        default=None, gt=0, le=_TEN_YEARS_S, description="Time limit of jobs that name none, in seconds."
    )
    max_timeout_s: float | None = Field(
        default=None, gt=0, le=_TEN_YEARS_S, description="The longest `timeout_s` a job may ask for."
    )
    plan_timeout_s: float = Field(
        default=60, gt=0, le=86_400, description="Seconds a plan may take; then it is stopped and says so."
    )
    report_timeout_s: float = Field(
        default=300, gt=0, le=86_400, description="Seconds the report of a job may take to be made."
    )
    default_memory_mb: int | None = Field(
        default=None, ge=16, le=_PEBIBYTE_MB, description="MiB of memory for jobs that name none."
    )
    max_memory_mb: int | None = Field(
        default=None, ge=16, le=_PEBIBYTE_MB, description="The largest `memory_mb` a job may ask for."
    )
    default_cores: int = Field(default=1, ge=1, le=1_000_000, description="Cores of jobs that name none.")
    max_job_cores: int | None = Field(
        default=None, ge=1, le=1_000_000, description="The most `cores` a single job may ask for."
    )
    max_processes: int = Field(
        default=4096, ge=16, le=4_194_304, description="Processes and threads a job may have at a time."
    )
    isolation: str = Field(
        default="auto",
        pattern=r"^(auto|off|(require|without):[a-z_]+(\+[a-z_]+)*)$",
        description="How jobs are kept apart: `auto` uses all that works here, `require:` and names with `+` "
        "between (`cgroup`, `landlock`, `memory_limit`, `uid`, …) refuses to start without these, `without:` "
        "leaves some out, `off` uses the least.",
    )
    job_readable: str | None = Field(
        default=None, description="Folders that jobs may read besides, separated by colons."
    )
    job_writable: str = Field(
        default="/dev/shm",  # noqa: S108 - POSIX semaphores live there
        description="Folders that jobs may write to besides their own, separated by colons.",
    )
    on_shutdown: Literal["auto", "detach", "drain", "stop"] = Field(
        default="auto",
        description="What happens to running jobs at SIGTERM: `detach` leaves them running, `drain` waits "
        "for them, `stop` ends them and queues them to resume; `auto` is `stop` in a container, "
        "else `detach`.",
    )
    shutdown_s: float = Field(
        default=10,
        ge=2,
        le=86_400,
        description="Seconds from SIGTERM until the service has to be gone: its supervisor's stop timeout.",
    )
    retention_days: float | None = Field(
        default=None,
        gt=0,
        le=36_500,
        description="Ended jobs are deleted, files and all, this many days after their end.",
    )
    max_data_gb: float | None = Field(
        default=None,
        gt=0,
        description="GiB the files of all jobs may take; beyond it ended jobs are deleted, the oldest first.",
    )
    warm_start: bool = Field(
        default=True, description="Start Python engines by a fork of a warm process; `false` executes each."
    )
    mock_min_s: float = Field(default=10, ge=0, description="Shortest run of the stand-in, in seconds.")
    mock_max_s: float = Field(default=30, ge=0, description="Longest run of the stand-in, in seconds.")
    mock_success_rate: float = Field(
        default=0.8, ge=0, le=1, description="The share of the stand-in's runs that succeed, 0 to 1."
    )
    mock_seed: int | None = Field(default=None, description="Makes the stand-in's choices repeatable.")
    log_level: LogLevel = "info"
    log_format: LogFormat = "auto"
    access_log_share: AccessLogShare = 1
    access_log_slow_s: AccessLogSlow = 1
    traces: Literal["off", "otlp"] = Field(
        default="off",
        description="`otlp` sends a trace of each job by OTLP over HTTP, where the `OTEL_` variables say.",
    )
    user: str | None = Field(
        default=None,
        min_length=1,
        description="Who the service becomes when it is started as root: a name or an id, with `:group` if "
        "need be; by default the account `snakeline`, else the first of the jobs' user ids.",
    )
    job_uids: str = Field(
        default="1900000000-1900009999",
        description="The user ids for running jobs, one each, where the service is started as root.",
    )
    max_connections: int = Field(
        default=4096, ge=16, le=1_000_000, description="Connections that may be open at once, of all clients."
    )
    max_connections_per_client: int = Field(
        default=256, ge=4, le=1_000_000, description="Connections that one client address may have open."
    )
    max_streams_per_client: int = Field(
        default=128,
        ge=1,
        le=1_000_000,
        description="Followed logs, long-polls, events and archives that one client address may have open.",
    )
    trusted_proxies: str | None = Field(
        default=None,
        description="Addresses and networks of proxies, separated by commas, whose `X-Forwarded-For` and "
        "`X-Forwarded-Proto` are believed.",
    )
    cors_origins: str | None = Field(
        default=None,
        description="Origins, separated by commas, whose pages may call the API from a browser.",
    )
    auth: auth_settings.AuthSetting = Field(
        default="auto",
        description="Who may call: `none` lets everybody in, `keys` takes API keys, `oidc` an issuer's "
        "tokens and API keys; `auto` is `none` on a loopback address, else `keys`.",
    )
    oidc_issuer: auth_settings.Issuer = None
    oidc_audience: auth_settings.Audience = None
    oidc_algorithms: auth_settings.Algorithms = auth_settings.DEFAULT_ALGORITHMS
    oidc_name_claim: auth_settings.NameClaim = "sub"
    oidc_tenant_claim: auth_settings.TenantClaim = None
    oidc_scope_claim: auth_settings.ScopeClaim = "scope"
    oidc_scopes: auth_settings.Scopes = auth_settings.DEFAULT_GRANTS
    oidc_client_id: sign_in.ClientId = None
    oidc_sign_in_scopes: sign_in.Scopes = sign_in.DEFAULT_SCOPES
    oidc_sign_in_token: sign_in.TokenName = sign_in.DEFAULT_TOKEN
    oidc_sign_in_parameters: sign_in.Parameters = None
    metrics_public: bool = Field(default=False, description="`true` answers `/metrics` without a key, too.")

    @field_validator(
        "log_level",
        "log_format",
        "traces",
        "engine",
        "auth",
        "on_shutdown",
        "isolation",
        "workflow_uploads",
        "oidc_sign_in_token",
        mode="before",
    )
    @classmethod
    def _any_case(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("job_uids")
    @classmethod
    def _are_uids(cls, value: str) -> str:
        UidRange.parse(value)
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: str | None) -> str | None:
        parse_networks(value or "")
        return value

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: str | None) -> str | None:
        parse_origins(value or "")
        return value

    @field_validator("isolation")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if (trouble := misnamed(value)) is not None:
            raise ValueError(trouble)
        return value

    @field_validator("job_readable", "job_writable")
    @classmethod
    def _are_absolute(cls, value: str | None) -> str | None:
        for folder in folders(value):
            if not folder.startswith("/"):
                raise ValueError(f"{folder} is not an absolute path")
        return value

    @field_validator("data_dir", "workflows_dir")
    @classmethod
    def _is_text(cls, value: Path) -> Path:
        # Bytes that are not UTF-8 come as lone surrogates; files of jobs are JSON and name these paths.
        if any(c < " " or "\ud800" <= c <= "\udfff" for c in str(value.absolute())):
            raise ValueError("its full path must be UTF-8 text without control characters")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> ServiceSettings:
        if self.mock_min_s > self.mock_max_s:
            raise ValueError(
                f"SNAKELINE_MOCK_MIN_S ({self.mock_min_s:g}) must not be greater than "
                f"SNAKELINE_MOCK_MAX_S ({self.mock_max_s:g})"
            )
        for default, limits in _DEFAULTS_WITHIN.items():
            for limit in limits:
                self._require_within(default, limit)
        sign_in.sign_in_rules(self, auth_settings.token_rules(self))
        return self

    def _require_within(self, default: str, limit: str) -> None:
        value, most = getattr(self, default), getattr(self, limit)
        if value is not None and most is not None and value > most:
            raise ValueError(
                f"{PREFIX}{default.upper()} ({value:g}) must not be greater than "
                f"{PREFIX}{limit.upper()} ({most:g})"
            )

    def runner(self) -> RunnerSettings:
        """The part the runner needs, with every path absolute."""
        return runner_settings(self)


def from_environment() -> ServiceSettings:
    """The settings in this process's environment. Raises SettingsError."""
    return load_settings(os.environ)  # noqa: TID251 - the one place that reads it


def load_settings(environ: Mapping[str, str]) -> ServiceSettings:
    """The settings in `environ`; an empty value counts as unset.

    Raises SettingsError: a variable is misspelt or its value cannot be used.
    """
    values = {
        name: value
        for name, value in environ.items()
        if name.startswith(PREFIX) and name not in OF_CLIENTS and value.strip()
    }
    known = {PREFIX + field.upper(): field for field in ServiceSettings.model_fields}
    unknown = sorted(values.keys() - known.keys())
    if unknown:
        raise SettingsError("; ".join(_misspelt(name, list(known)) for name in unknown))
    source = EnvSettingsSource(ServiceSettings)
    source.env_vars = {name.lower(): value.strip() for name, value in values.items()}
    try:
        return ServiceSettings(**source())
    except ValidationError as error:
        raise SettingsError("; ".join(_one_line(detail) for detail in error.errors())) from None


def _misspelt(name: str, known: list[str]) -> str:
    # Compared without the prefix, which would make everything look alike.
    bare = [each.removeprefix(PREFIX) for each in known]
    close = difflib.get_close_matches(name.removeprefix(PREFIX), bare, n=1)
    hint = f"did you mean {PREFIX}{close[0]}?" if close else "docs/settings.md lists them all"
    return f"{name} is not a setting: {hint}"


def _one_line(detail: Any) -> str:
    if not detail["loc"]:
        return str(detail["ctx"]["error"])
    field = str(detail["loc"][0])
    value = "the value" if field in _SECRET else repr(detail["input"])
    message = str(detail["msg"]).removeprefix("Value error, ").replace("\n", " ")
    return f"{PREFIX}{field.upper()}: {value} cannot be used: {message[:1].lower()}{message[1:]}"

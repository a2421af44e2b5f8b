"""The service's settings, read from the environment once; nothing else reads `os.environ`."""

from __future__ import annotations

import difflib
import ipaddress
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

import runner
from api.container import in_container
from api.machine_cores import machine_cores
from runner.settings import EngineName, MockSettings, OnShutdown, RunnerSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "SNAKELINE_"
_SECRET = frozenset({"database_url"})
_TEN_YEARS_S = 315_360_000


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
    max_cores: int = Field(
        default_factory=machine_cores, ge=1, le=1_000_000, description="The sum of the cores of running jobs."
    )
    max_pending: int = Field(
        default=100_000, ge=1, description="Pending jobs beyond which a submission is answered 429."
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
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="What the service logs: `debug`, `info`, `warning` or `error`."
    )
    auth: Literal["auto", "none"] = Field(
        default="auto",
        description="Who may call: `none` lets everybody in; `auto` does so on a loopback address only.",
    )

    @field_validator("log_level", "engine", "auth", "on_shutdown", mode="before")
    @classmethod
    def _any_case(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

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
        if (refusal := self.exposure()) is not None:
            raise ValueError(refusal)
        return self

    def exposure(self) -> str | None:
        """Why the service must not listen where it is told to, or None."""
        if self.auth == "none" or _is_loopback(self.host):
            return None
        return (
            f"SNAKELINE_HOST={self.host} can be reached from other machines and nobody would have to log in: "
            "set SNAKELINE_AUTH=none if that is what you want"
        )

    def runner(self) -> RunnerSettings:
        """The part the runner needs, with every path absolute."""
        data_dir = self.data_dir.absolute()
        return RunnerSettings(
            data_dir=data_dir,
            database_url=self.database_url or f"sqlite:///{quote(str(data_dir / 'snakeline.db'))}",
            engine=self.engine,
            snakemake=self.snakemake,
            workflows_dir=self.workflows_dir.absolute(),
            max_cores=self.max_cores,
            max_pending=self.max_pending,
            stop_grace_s=self.stop_grace_s,
            log_limit_bytes=math.ceil(self.log_limit_mb * 2**20),
            default_timeout_s=self.default_timeout_s,
            on_shutdown=self._what_on_shutdown(),
            shutdown_s=self.shutdown_s,
            retention_s=None if self.retention_days is None else self.retention_days * 86_400,
            max_data_bytes=None if self.max_data_gb is None else math.ceil(self.max_data_gb * 2**30),
            warm_start=self.warm_start,
            mock=MockSettings(
                min_s=self.mock_min_s,
                max_s=self.mock_max_s,
                success_rate=self.mock_success_rate,
                seed=self.mock_seed,
            ),
        )

    def _what_on_shutdown(self) -> OnShutdown:
        if self.on_shutdown != "auto":
            return self.on_shutdown
        return "stop" if in_container() else "detach"


def from_environment() -> ServiceSettings:
    """The settings in this process's environment. Raises SettingsError."""
    return load_settings(os.environ)  # noqa: TID251 - the one place that reads it


def load_settings(environ: Mapping[str, str]) -> ServiceSettings:
    """The settings in `environ`; an empty value counts as unset.

    Raises SettingsError: a variable is misspelt or its value cannot be used.
    """
    values = {name: value for name, value in environ.items() if name.startswith(PREFIX) and value.strip()}
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


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
